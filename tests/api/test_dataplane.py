"""`/r/...` over a real socket, on uvicorn's protocol, with functions of this process."""

from __future__ import annotations

import asyncio
import gc
import re
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from faas.api import dataplane as dataplane_module
from faas.errors import StoreUnavailableError
from faas.models import CallType
from tests.api.front import MIB, Gate
from tests.support.programs import FunctionRequest, answer, http_stream, on_socket
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from faas.runner.functions import Function
    from tests.api.front import Front
    from tests.support.inprocess import Program

CALL_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\Z")


# --- one request


@pytest.mark.both_loops
async def test_a_call_gets_its_functions_status_headers_and_body(front: Front) -> None:
    client = await front.client()
    got = await client.ask("POST /r/demo/echo?a=1 HTTP/1.1|Host: here|Content-Length: 5|Reply-Status: 418", b"hello")
    assert (got.status, got.body) == (418, b"hello")
    assert got["url"] == "http://here/r/demo/echo?a=1"
    assert got["method"] == "POST"
    assert got.all("set-cookie") == ["a=1", "b=2"]
    assert got["date"] == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert CALL_ID.match(got["x-call-id"])
    assert got["content-length"] == "5"
    assert not got.all("faas-error")
    assert not got.all("connection")
    assert re.match(
        r"queue;dur=[\d.]+, pull;dur=[\d.]+, create;dur=.*, start;dur=.*, exec;dur=[\d.]+, cold", got["server-timing"]
    )
    warm = await client.ask("POST /r/demo/echo HTTP/1.1|Host: here|Content-Length: 5", b"again")
    assert warm["server-timing"].endswith(", warm")
    assert front.rig.executor.made == 1


async def test_an_answer_in_chunks_that_is_short_gets_a_length(front: Front) -> None:
    client = await front.client()
    got = await client.ask("GET /r/demo/chunked HTTP/1.1|Host: here")
    assert (got.body, got.all("transfer-encoding")) == (b"hello, world", [])
    assert got["content-length"] == "12"


async def test_the_answer_to_head_has_a_length_and_no_body(front: Front) -> None:
    client = await front.client()
    got = await client.ask("HEAD /r/demo/chunked HTTP/1.1|Host: here")
    assert (got.status, got["content-length"]) == (200, "12")
    again = await client.ask("GET /r/demo/chunked HTTP/1.1|Host: here")
    assert again.body == b"hello, world"


async def test_the_answer_to_head_has_no_body_when_it_is_an_error_either(front: Front) -> None:
    client = await front.client()
    refused = await client.ask("HEAD /r/demo/none HTTP/1.1|Host: here")
    assert (refused.status, refused["faas-error"]) == (404, "route_not_found")
    front.deploy("hang", timeout_s=0.05)
    failed = await client.ask("HEAD /r/demo/hang HTTP/1.1|Host: here")
    assert (failed.status, failed["faas-error"]) == (504, "timeout")
    assert (await client.ask("GET /r/demo/chunked HTTP/1.1|Host: here")).body == b"hello, world"


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_a_body_have_no_length(front: Front, status: int) -> None:
    client = await front.client()
    got = await client.ask(f"GET /r/demo/echo HTTP/1.1|Host: here|Reply-Status: {status}")
    assert (got.status, got.all("content-length"), got.all("transfer-encoding")) == (status, [], [])
    assert (await client.ask("GET /r/demo/chunked HTTP/1.1|Host: here")).status == 200


@pytest.mark.both_loops
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 3 * MIB])
async def test_bodies_of_every_size_arrive_whole(front: Front, framing: str, size: int) -> None:
    client = await front.client()
    body = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    for _ in range(2):
        if framing == "length":
            client.send(f"POST /r/demo/echo HTTP/1.1|Host: here|Content-Length: {size}", body)
        else:
            client.send("POST /r/demo/echo HTTP/1.1|Host: here|Transfer-Encoding: chunked")
            for start in range(0, size, 100_000):
                part = body[start : start + 100_000]
                client.writer.write(b"%x\r\n%b\r\n" % (len(part), part))
            client.writer.write(b"0\r\n\r\n")
        got = await client.answer()
        assert (got.status, got.body == body) == (200, True)
    assert front.rig.executor.made == 1


@pytest.mark.both_loops
async def test_a_request_may_come_byte_by_byte(front: Front) -> None:
    client = await front.client()
    for byte in b"POST /r/demo/echo HTTP/1.1\r\nHost: here\r\nContent-Length: 3\r\n\r\nabc":
        client.writer.write(bytes([byte]))
        await asyncio.sleep(0)
    assert (await client.answer()).body == b"abc"


@pytest.mark.parametrize("ask", ["call", "refused", "refused before its body came", "ended in the middle"])
async def test_a_closed_connection_leaves_nothing_to_the_garbage_collector(front: Front, ask: str) -> None:
    client = await front.client()
    (connection,) = [weakref.ref(one) for one in front.plane.connections]
    gc.collect()
    gc.disable()
    try:
        path = "/r/demo/echo" if ask in ("call", "ended in the middle") else "/r/demo/nowhere"
        body = b"hello" if ask in ("call", "refused") else b""
        client.send(f"POST {path} HTTP/1.1|Host: here|Content-Length: 5", body)
        if ask != "ended in the middle":
            await client.answer()
        client.reset()
        await wait_until(lambda: not front.plane.connections)
        await wait_until(lambda: connection() is None)
    finally:
        gc.enable()


async def test_http_1_0_is_answered_with_a_length_and_closed(front: Front) -> None:
    client = await front.client()
    got = await client.ask("GET /r/demo/chunked HTTP/1.0")
    assert (got.status, got.body, got["connection"]) == (200, b"hello, world", "close")
    assert await client.is_closed()


@pytest.mark.both_loops
async def test_a_long_answer_to_http_1_0_ends_with_the_connection(front: Front, programs: dict[str, Program]) -> None:
    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
            await asyncio.sleep(0.05)
            writer.write(b"5\r\nworld\r\n0\r\n\r\n")

    front.rig.executor.programs["slowly"] = on_socket(slowly)
    front.deploy("slowly")
    client = await front.client()
    got = await client.ask("GET /r/demo/slowly HTTP/1.0")
    assert (got.body, got.all("transfer-encoding"), got.all("content-length")) == (b"helloworld", [], [])
    modern = await (await front.client()).ask("GET /r/demo/slowly HTTP/1.1|Host: here")
    assert (modern.body, modern.all("transfer-encoding")) == (b"helloworld", ["chunked"])


async def test_connection_close_is_kept(front: Front) -> None:
    client = await front.client()
    got = await client.ask("GET /r/demo/chunked HTTP/1.1|Host: here|Connection: close")
    assert got["connection"] == "close"
    assert await client.is_closed()


async def test_what_connection_names_does_not_reach_the_function(front: Front) -> None:
    seen = []

    async def look(request: FunctionRequest) -> bytes:
        seen.append(request.headers)
        return answer()

    front.rig.executor.programs["look"] = http_stream(look)
    front.deploy("look")
    client = await front.client()
    await client.ask(
        "GET /r/demo/look HTTP/1.1|Host: here|Connection: keep-alive, X-Hop|X-Hop: 1|X-End: 2|TE: trailers"
    )
    assert "Fn-Http-H-X-Hop" not in seen[0]
    assert "Fn-Http-H-Te" not in seen[0]
    assert seen[0]["Fn-Http-H-X-End"] == "2"


async def test_a_proxys_form_of_the_request_line_is_understood(front: Front) -> None:
    client = await front.client()
    got = await client.ask("GET http://here:99/r/demo/echo?a=1 HTTP/1.1|Host: here")
    assert (got.status, got["url"]) == (200, "http://here/r/demo/echo?a=1")


async def test_an_offer_to_speak_another_protocol_is_passed_over(front: Front) -> None:
    client = await front.client()
    offer = "Connection: Upgrade, HTTP2-Settings|Upgrade: h2c|HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"
    assert (await client.ask(f"GET /r/demo/chunked HTTP/1.1|Host: here|{offer}")).body == b"hello, world"


@pytest.mark.both_loops
async def test_expect_is_answered_when_the_body_is_wanted(front: Front) -> None:
    client = await front.client()
    got = await client.ask("POST /r/demo/echo HTTP/1.1|Host: here|Content-Length: 5|Expect: 100-continue")
    assert got.status == 100
    client.writer.write(b"hello")
    assert (await client.answer()).body == b"hello"
    refused = await client.ask("POST /r/demo/none HTTP/1.1|Host: here|Content-Length: 5|Expect: 100-continue")
    assert refused.status == 404


async def test_expect_of_http_1_0_is_passed_over(front: Front) -> None:
    client = await front.client()
    client.send("POST /r/demo/echo HTTP/1.0|Content-Length: 5|Expect: 100-continue")
    await wait_until(lambda: [one.answering for one in front.plane.connections if one.answering])
    client.writer.write(b"hello")
    assert (await client.answer()).body == b"hello"


# --- errors


async def test_unknown_apps_and_routes_are_404(front: Front) -> None:
    client = await front.client()
    for path, code in (("/r/demo/none", "route_not_found"), ("/r/none/echo", "app_not_found")):
        got = await client.ask(f"GET {path} HTTP/1.1|Host: here")
        assert (got.status, got["faas-error"]) == (404, code)
        assert got["content-type"] == "application/json; charset=utf-8"
        assert CALL_ID.match(got["x-call-id"])
        assert got["x-call-id"].encode() in got.body
        assert got["date"]


async def test_a_functions_failure_names_itself_once(front: Front) -> None:
    async def broken(request: FunctionRequest) -> bytes:
        return answer(b"", 502)

    front.rig.executor.programs["broken"] = http_stream(broken)
    front.deploy("broken", headers={"Content-Type": ("text/html",), "X-Route": ("yes",)})
    client = await front.client()
    got = await client.ask("GET /r/demo/broken HTTP/1.1|Host: here")
    assert (got.status, got["faas-error"], got["x-route"]) == (502, "function_failed", "yes")
    assert got["content-type"] == "application/json; charset=utf-8"
    assert (await client.ask("GET /r/demo/chunked HTTP/1.1|Host: here")).status == 200


async def test_a_timeout_is_504_and_the_connection_serves_on(front: Front) -> None:
    front.deploy("hang", timeout_s=0.05)
    client = await front.client()
    got = await client.ask("GET /r/demo/hang HTTP/1.1|Host: here")
    assert (got.status, got["faas-error"]) == (504, "timeout")
    assert not front.rig.executor.running
    assert (await client.ask("GET /r/demo/chunked HTTP/1.1|Host: here")).status == 200


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("how", ["at once", "in parts", "one long header"])
async def test_a_header_block_over_the_limit_is_431(front: Front, before: int, how: str) -> None:
    client = await front.client()
    for _ in range(before):
        assert (await client.ask("GET /r/demo/chunked HTTP/1.1|Host: here")).status == 200
    lines = (
        ["X-Long: " + "x" * 3000] if how == "one long header" else [f"X-{number}: {'x' * 90}" for number in range(30)]
    )
    if how == "at once":
        client.send("GET /r/demo/chunked HTTP/1.1|Host: here|" + "|".join(lines))
    else:
        client.writer.write(b"GET /r/demo/chunked HTTP/1.1\r\nHost: here\r\n")
        block = "\r\n".join(lines).encode()
        for start in range(0, 2200 + 400 * before, 200):
            client.writer.write(block[start : start + 200])
            await asyncio.sleep(0.001)
    got = await client.answer()
    assert (got.status, got["faas-error"], got["connection"]) == (431, "headers_too_large", "close")
    assert await client.is_closed()
    assert front.rig.agent.completed == before


async def test_many_short_requests_are_not_taken_for_one_long_head(front: Front) -> None:
    client = await front.client()
    for _ in range(100):
        client.send("GET /r/demo/none HTTP/1.1|Host: here")
    assert [(await client.answer()).status for _ in range(100)] == [404] * 100


async def test_a_declared_length_over_the_limit_is_413_before_the_body(front: Front) -> None:
    client = await front.client()
    got = await client.ask("POST /r/demo/echo HTTP/1.1|Host: here|Content-Length: 5000000", b"x")
    assert (got.status, got["faas-error"], got["connection"]) == (413, "body_too_large", "close")
    assert await client.is_closed()
    assert front.rig.executor.made == 0


async def test_a_body_that_grows_over_the_limit_is_413_and_its_container_is_killed(front: Front) -> None:
    client = await front.client()
    client.send("POST /r/demo/echo HTTP/1.1|Host: here|Transfer-Encoding: chunked")
    for _ in range(5):
        client.writer.write(b"100000\r\n" + b"x" * MIB + b"\r\n")
    got = await client.answer()
    assert (got.status, got["faas-error"]) == (413, "body_too_large")
    await front.no_call_is_left()
    await front.rig.settled()
    assert not front.rig.executor.running


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"GET /r/demo/echo HTTP/9\r\n\r\n"]
)
async def test_what_is_not_http_is_400(front: Front, garbage: bytes) -> None:
    client = await front.client()
    client.writer.write(garbage)
    got = await client.answer()
    assert (got.status, got["faas-error"], got["connection"]) == (400, "invalid_request", "close")
    assert await client.is_closed()


@pytest.mark.parametrize(
    "framing",
    ["Content-Length: 5|Content-Length: 6", "Content-Length: 5|Transfer-Encoding: chunked", "Content-Length: -1"],
)
async def test_two_ideas_of_a_bodys_length_are_400(front: Front, framing: str) -> None:
    client = await front.client()
    got = await client.ask(f"POST /r/demo/echo HTTP/1.1|Host: here|{framing}", b"hello")
    assert got.status == 400
    assert await client.is_closed()
    assert front.rig.agent.completed == 0


async def test_a_head_that_stops_arriving_is_408(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    client = await front.client()
    client.writer.write(b"GET /r/demo/echo HTTP/1.1\r\nHo")
    got = await client.answer()
    assert (got.status, got["faas-error"], got["connection"]) == (408, "request_timeout", "close")
    assert await client.is_closed()


async def test_a_body_that_stops_arriving_ends_the_call(front: Front) -> None:
    client = await front.client()
    client.send("POST /r/demo/echo HTTP/1.1|Host: here|Content-Length: 100000", b"x")
    await front.a_call_runs()
    assert await client.is_closed()
    await front.no_call_is_left()
    assert not front.rig.executor.running


async def test_a_call_longer_than_the_reads_limit_is_left_alone(front: Front) -> None:
    gate = Gate()
    front.rig.executor.programs["gate"] = http_stream(gate)
    front.deploy("gate")
    client = await front.client()
    client.send("POST /r/demo/gate HTTP/1.1|Host: here|Content-Length: 1", b"x")
    await front.a_call_runs()
    (connection,) = front.plane.connections
    connection.close_if_stalled(asyncio.get_running_loop().time() + 1000)
    gate.may_answer.set()
    assert (await client.answer()).status == 200
    connection.close_if_stalled(asyncio.get_running_loop().time() + 0.5)
    assert (await client.ask("GET /r/demo/chunked HTTP/1.1|Host: here")).status == 200
    connection.close_if_stalled(asyncio.get_running_loop().time() + 1000)
    assert await client.is_closed()


# --- async calls


async def test_an_async_call_is_202_once_it_is_on_disk(front: Front) -> None:
    front.deploy("echo", type=CallType.ASYNC)
    client = await front.client()
    got = await client.ask("POST /r/demo/echo HTTP/1.1|Host: here|Content-Length: 5|Connection: X-A|X-A: 1", b"hello")
    assert got.status == 202
    call_id = got["x-call-id"]
    assert got.body == b'{"call_id":"%b"}\n' % call_id.encode()
    assert got["location"] == f"/v1/calls/{call_id}"
    (request,) = front.submitted
    assert (request.method, request.url, request.body) == ("POST", "http://here/r/demo/echo", b"hello")
    assert request.headers == ((b"host", b"here"), (b"content-length", b"5"))


async def test_any_call_is_async_when_the_caller_prefers_that(front: Front) -> None:
    client = await front.client()
    got = await client.ask("GET /r/demo/echo HTTP/1.1|Host: here|Prefer: respond-async")
    assert got.status == 202
    over = await client.ask(
        "POST /r/demo/echo HTTP/1.1|Host: a|Prefer: respond-async|Content-Length: 1001", b"x" * 1001
    )
    assert (over.status, over["faas-error"]) == (413, "body_too_large")


async def test_a_call_that_cannot_be_stored_is_503(front: Front) -> None:
    front.submit_error = StoreUnavailableError("The database does not answer")
    client = await front.client()
    got = await client.ask("GET /r/demo/echo HTTP/1.1|Host: here|Prefer: respond-async")
    assert (got.status, got["faas-error"], got["retry-after"]) == (503, "store_unavailable", got["retry-after"])


# --- several requests on a connection


@pytest.mark.both_loops
async def test_requests_in_a_row_are_answered_in_their_order_whoever_answers(front: Front) -> None:
    client = await front.client()
    client.send("GET /slow HTTP/1.1|Host: here")
    client.send("POST /r/demo/echo HTTP/1.1|Host: here|Content-Length: 3", b"one")
    client.send("GET /r/demo/none HTTP/1.1|Host: here")
    client.send("GET /fast HTTP/1.1|Host: here")
    client.send("POST /r/demo/echo HTTP/1.1|Host: here|Content-Length: 3", b"two")
    await asyncio.sleep(0.02)
    assert not front.running
    front.asgi_may_answer.set()
    answers = [await client.answer() for _ in range(5)]
    assert [(one.status, one.body) for one in answers if one.status == 200] == [
        (200, b"asgi /slow"),
        (200, b"one"),
        (200, b"asgi /fast"),
        (200, b"two"),
    ]
    assert answers[2].status == 404
    assert (await client.ask("GET /r/demo/chunked HTTP/1.1|Host: here")).status == 200


@pytest.mark.both_loops
async def test_hundreds_of_refused_requests_behind_a_slow_one_are_all_answered(front: Front) -> None:
    client = await front.client()
    client.send("GET /slow HTTP/1.1|Host: here")
    for _ in range(800):
        client.send("GET /r/x/y HTTP/1.1|Host: h")
    await wait_until(lambda: sum(len(one.pipeline) for one in front.plane.connections) > 300)
    front.asgi_may_answer.set()
    assert (await client.answer()).body == b"asgi /slow"
    assert [(await client.answer()).status for _ in range(800)] == [404] * 800


@pytest.mark.both_loops
async def test_a_body_that_arrives_while_an_earlier_call_runs_is_whole(front: Front) -> None:
    client = await front.client()
    client.send("GET /slow HTTP/1.1|Host: here")
    client.send("POST /r/demo/echo HTTP/1.1|Host: here|Content-Length: 200000", b"a" * 50_000)
    await asyncio.sleep(0.02)
    front.asgi_may_answer.set()
    assert (await client.answer()).body == b"asgi /slow"
    client.writer.write(b"b" * 150_000)
    assert (await client.answer()).body == b"a" * 50_000 + b"b" * 150_000


@pytest.mark.both_loops
@pytest.mark.parametrize(
    ("first", "status"), [("none HTTP/1.1|Connection: close", 404), (f"none HTTP/1.1|A: {'x' * 3000}", 431)]
)
async def test_behind_an_answer_that_closes_the_connection_nothing_runs(front: Front, first: str, status: int) -> None:
    client = await front.client()
    client.send(f"GET /r/demo/{first}|Host: here||POST /r/demo/echo HTTP/1.1|Host: here|Content-Length: 3", b"one")
    assert (await client.answer()).status == status
    assert await client.is_closed()
    assert front.rig.agent.completed == 0
    assert front.rig.executor.made == 0


@pytest.mark.both_loops
async def test_garbage_behind_a_running_call_is_not_answered_in_its_place(front: Front) -> None:
    client = await front.client()
    client.send("GET /r/demo/hang HTTP/1.1|Host: here")
    await front.a_call_runs()
    client.writer.write(b"\x00\x01\r\n\r\n")
    assert await client.is_closed()
    await front.no_call_is_left()


@pytest.mark.both_loops
async def test_an_oversized_head_behind_a_running_call_is_not_answered_in_its_place(front: Front) -> None:
    client = await front.client()
    client.send("GET /r/demo/hang HTTP/1.1|Host: here")
    await front.a_call_runs()
    client.send("GET /r/demo/hang HTTP/1.1|Host: here|X-Long: " + "x" * 4000)
    assert await client.is_closed()
    await front.no_call_is_left()


# --- shutdown


@pytest.mark.both_loops
async def test_a_graceful_shutdown_lets_a_running_exchange_end_and_says_so(front: Front) -> None:
    gate = Gate()
    front.rig.executor.programs["gate"] = http_stream(gate)
    front.deploy("gate")
    busy, idle = await front.client(), await front.client()
    assert (await idle.ask("GET /r/demo/chunked HTTP/1.1|Host: here")).status == 200
    busy.send("POST /r/demo/gate HTTP/1.1|Host: here|Content-Length: 1", b"x")
    await wait_until(lambda: gate.bodies)
    for connection in list(front.plane.connections):
        connection.shutdown()
    assert await idle.is_closed()
    gate.may_answer.set()
    got = await busy.answer()
    assert (got.status, got["connection"]) == (200, "close")
    assert await busy.is_closed()


async def test_a_defect_of_ours_is_not_blamed_on_the_client(
    front: Front, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    front.deploy("echo")

    def broken(raw_path: bytes) -> Function:
        raise ZeroDivisionError

    monkeypatch.setattr(front.table, "match", broken)
    client = await front.client()
    got = await client.ask("GET /r/demo/echo HTTP/1.1|Host: here")
    assert (got.status, got["faas-error"]) == (500, "internal")
    assert "ZeroDivisionError" in caplog.text


async def test_what_comes_behind_a_chunked_body_does_not_become_a_header(front: Front) -> None:
    seen = []

    async def look(request: FunctionRequest) -> bytes:
        seen.append(request.headers)
        return answer()

    front.rig.executor.programs["look"] = http_stream(look)
    front.deploy("look")
    client = await front.client()
    body = b"2\r\nhi\r\n0\r\nX-Late: 1\r\n\r\n"
    got = await client.ask("POST /r/demo/look HTTP/1.1|Host: here|Transfer-Encoding: chunked|X-Early: 1", body)
    assert got.status == 200
    assert "Fn-Http-H-X-Early" in seen[0]
    assert "Fn-Http-H-X-Late" not in seen[0]


# --- a client that sends the same head again and again


REPEATED = "POST /r/demo/shown?x=1 HTTP/1.1|Host: h|Content-Type: text/plain|Content-Length: 5"


@contextmanager
def counted_parsing(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """The heads that were really parsed."""
    parsed: list[bytes] = []
    original = dataplane_module.RequestHead

    def noted(scheme: bytes, method: bytes, target: bytes, *rest: Any, **options: Any) -> Any:
        parsed.append(target)
        return original(scheme, method, target, *rest, **options)

    monkeypatch.setattr(dataplane_module, "RequestHead", noted)
    yield parsed


async def test_a_repeated_head_is_parsed_once_and_means_the_same(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    front.deploy("shown")
    with counted_parsing(monkeypatch) as parsed:
        client = await front.client()
        answers = [await client.ask(REPEATED, body) for body in (b"first", b"other", b"third")]
    assert [one.body.rpartition(b"\n")[2] for one in answers] == [b"first", b"other", b"third"]
    assert len({one.body.rpartition(b"\n")[0] for one in answers}) == 1
    assert len({one["x-call-id"] for one in answers}) == 3
    assert len(parsed) == 1


@pytest.mark.parametrize(
    ("text", "body"),
    [
        (REPEATED.replace("x=1", "x=2"), b"other"),
        (REPEATED.replace("Length: 5", "Length: 6"), b"longer"),
        (REPEATED.replace("text/plain", "text/other"), b"other"),
        (REPEATED + "|Connection: close", b"other"),
        (REPEATED.replace("HTTP/1.1", "HTTP/1.0"), b"other"),
    ],
)
async def test_a_head_that_only_resembles_the_one_before_is_parsed(
    front: Front, monkeypatch: pytest.MonkeyPatch, text: str, body: bytes
) -> None:
    front.deploy("shown")
    with counted_parsing(monkeypatch) as parsed:
        client = await front.client()
        await client.ask(REPEATED, b"first")
        assert (await client.ask(text, body)).body.endswith(body)
    assert len(parsed) == 2


async def test_repeated_requests_in_one_packet_are_all_answered_in_order(front: Front) -> None:
    front.deploy("shown")
    client = await front.client()
    await client.ask(REPEATED, b"first")
    request = REPEATED.replace("|", "\r\n").encode() + b"\r\n\r\n"
    client.writer.write(b"".join(request + b"%05d" % number for number in range(20)))
    bodies = [(await client.answer()).body[-5:] for _ in range(20)]
    assert bodies == [b"%05d" % number for number in range(20)]
    client.writer.write(request[:30])
    await client.writer.drain()
    client.writer.write(request[30:] + b"piece")
    assert (await client.answer()).body.endswith(b"piece")


async def test_repeated_requests_that_come_before_their_turn_wait_for_it(front: Front) -> None:
    front.deploy("shown", max_concurrency=1)
    client = await front.client()
    await client.ask(REPEATED, b"first")
    for number in range(10):
        client.send(REPEATED, b"%05d" % number)
        await asyncio.sleep(0)
    assert [(await client.answer()).body[-5:] for _ in range(10)] == [b"%05d" % number for number in range(10)]


async def test_a_repeated_request_meets_every_change_of_its_route(front: Front) -> None:
    front.deploy("shown")
    client = await front.client()
    assert (await client.ask(REPEATED, b"first")).status == 200
    front.deploy("shown", jwt_key="secret")
    assert (await client.ask(REPEATED, b"first")).status == 401
    front.deploy("shown", type=CallType.ASYNC)
    assert (await client.ask(REPEATED, b"first")).status == 202
    assert [request.body for request in front.submitted] == [b"first"]
    front.table.route_removed("demo", "/shown")
    assert (await client.ask(REPEATED, b"first")).status == 404
    front.deploy("shown")
    assert (await client.ask(REPEATED, b"first")).status == 200


@pytest.mark.parametrize("junk", [b"\r\n", b"\r\n\r\n"])
async def test_empty_lines_around_a_request_are_no_part_of_what_is_repeated(front: Front, junk: bytes) -> None:
    front.deploy("shown")
    client = await front.client()
    request = REPEATED.replace("|", "\r\n").encode() + b"\r\n\r\n"
    for packet in (junk + request + b"first", request + b"other" + junk, request + b"third"):
        client.writer.write(packet)
        assert (await client.answer()).body[-5:] in (b"first", b"other", b"third")
