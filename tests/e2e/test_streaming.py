"""Streaming on the wire: what passes while it is made, and how the end of it is told from its breaking off."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import pytest

from faas.api.request_body import STREAM_BYTES
from tests.e2e.wire import Wire
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.support.node import App

GONE_TIMEOUT_S = 30.0


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def sum_of(data: bytes) -> bytes:
    """What the function `stream` says of a body."""
    return b"%d %08x\n" % (len(data), zlib.crc32(data))


async def assert_goes_on(wire: Wire, url: str) -> None:
    """The connection serves another request, and only that."""
    await wire.request(f"POST {url}", "X-Mode: echo", body=b"the next one")
    assert (await wire.answer()).body == b"the next one"


async def the_record(app: App) -> dict[str, object]:
    """The record of the app's one call, which has ended."""
    with app.node.api() as api:
        calls = f"/v1/apps/{app.name}/calls"
        await wait_until(lambda: api.get(calls).json()["calls"], timeout_s=GONE_TIMEOUT_S)
        [record] = api.get(calls).json()["calls"]
    return record


async def assert_cancelled(app: App, path: str) -> None:
    record = await the_record(app)
    assert (record["status"], record["reason"]) == ("cancelled", "client_request")
    await wait_until(lambda: not app.containers(path), timeout_s=GONE_TIMEOUT_S)


# --- as it is made


async def test_pieces_go_to_the_function_and_back_before_the_next_is_sent(wire: Wire, misfit: str) -> None:
    await wire.request(f"POST {misfit}", "X-Mode: relay", "Transfer-Encoding: chunked")
    assert (await wire.head()).header("transfer-encoding") == "chunked"
    for number in range(20):
        piece = chunk(b"piece %d" % number)
        await wire.send(piece)
        assert await wire.take(len(piece)) == piece
    await wire.send(b"0\r\n\r\n")
    assert await wire.take(5) == b"0\r\n\r\n"
    await assert_goes_on(wire, misfit)


async def test_http_1_0_gets_the_pieces_until_the_connection_ends(wire: Wire, misfit: str) -> None:
    length = STREAM_BYTES + 100
    await wire.request(f"POST {misfit}", "X-Mode: relay", f"Content-Length: {length}", version="HTTP/1.0")
    head = await wire.head()
    assert (head.header("transfer-encoding"), head.header("content-length")) == (None, None)
    for number in range(10):
        piece = b"piece %d" % number
        await wire.send(piece)
        assert await wire.take(len(piece)) == piece
    rest = b"x" * (length - 10 * len(b"piece 0"))
    await wire.send(rest)
    assert await wire.take(len(rest)) == rest
    assert await wire.is_closed()


async def test_the_first_event_is_there_while_the_function_makes_the_next(app: App) -> None:
    url = app.deploy("/events", "misfit", config={"MODE": "sse"})
    async with Wire(app.node.url) as wire:
        await wire.request(f"GET {url}", "Accept: text/event-stream", "X-Chunks: 2", "X-Delay-Ms: 60000")
        head = await wire.head()
        event = chunk(b"id: 0\ndata: event 0\n\n")
        assert head.header("content-type") == "text/event-stream"
        assert await wire.take(len(event)) == event
        assert app.node.record(head.header("x-call-id") or "")["status"] == "running"
    await assert_cancelled(app, "/events")


@pytest.mark.parametrize("ending", ["length", "chunks"])
@pytest.mark.parametrize("size", [0, 1, STREAM_BYTES - 1, STREAM_BYTES, STREAM_BYTES + 1, 3 * STREAM_BYTES])
async def test_a_request_may_follow_a_body_of_any_size_at_once(
    size: int, ending: str, wire: Wire, stream: str, misfit: str
) -> None:
    body = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    next_one = wire.encode(f"POST {misfit}", "X-Mode: echo", body=b"the next one")
    for is_split in (False, True):
        if ending == "length":
            head, sent = wire.encode(f"POST {stream}", f"Content-Length: {size}"), body
        else:
            head = wire.encode(f"POST {stream}", "Transfer-Encoding: chunked")
            sent = (chunk(body) if body else b"") + b"0\r\n\r\n"
        if is_split:
            await wire.send(head)
            await wire.send(sent[: size // 2])
            await wire.send(sent[size // 2 :] + next_one)
        else:
            await wire.send(head + sent + next_one)
        assert (await wire.answer()).body == sum_of(body)
        assert (await wire.answer()).body == b"the next one"


# --- what an answer's head says of its body


@pytest.mark.parametrize(
    ("query", "name", "value"),
    [("bytes=300000", "content-length", "300000"), ("bytes=300000&chunked=1", "transfer-encoding", "chunked")],
)
async def test_head_gets_the_functions_framing_and_no_body(
    query: str, name: str, value: str, wire: Wire, stream: str, misfit: str
) -> None:
    await wire.request(f"HEAD {stream}?{query}")
    answer = await wire.answer(to_head=True)
    assert (answer.status, answer.header(name)) == (200, value)
    await assert_goes_on(wire, misfit)


async def test_the_error_that_answers_head_has_no_body(wire: Wire, shared_app: App, misfit: str) -> None:
    await wire.request(f"HEAD /r/{shared_app.name}/nothing-here")
    assert (await wire.answer(to_head=True)).status == 404
    await assert_goes_on(wire, misfit)


@pytest.mark.parametrize("status", [204, 304])
async def test_a_status_without_a_body_ends_with_its_head(status: int, wire: Wire, misfit: str) -> None:
    await wire.request(f"POST {misfit}", "X-Mode: http_status", f"X-Status: {status}")
    answer = await wire.answer()
    assert answer.status == status
    assert (answer.header("content-length"), answer.header("transfer-encoding")) == (None, None)
    await assert_goes_on(wire, misfit)


async def test_informational_answers_stay_between_the_node_and_the_function(wire: Wire, misfit: str) -> None:
    await wire.request(f"POST {misfit}", "X-Mode: interim")
    answer = await wire.answer()
    assert (answer.status, answer.body, answer.header("link")) == (200, b"hello", None)
    await assert_goes_on(wire, misfit)


async def test_trailers_end_here(wire: Wire, misfit: str, stream: str) -> None:
    await wire.request(f"POST {misfit}", "X-Mode: trailers")
    answer = await wire.answer()
    assert (answer.body, answer.header("x-sum"), answer.header("trailer")) == (b"hello", None, None)

    for body in (b"hello", b"x" * 2 * STREAM_BYTES):
        await wire.request(f"POST {stream}", "Transfer-Encoding: chunked", "Trailer: X-Sum")
        await wire.send(chunk(body) + b"0\r\nX-Sum: 1\r\nContent-Type: text/html\r\n\r\n")
        assert (await wire.answer()).body == sum_of(body)
    await assert_goes_on(wire, misfit)


# --- asked before it is sent


@pytest.mark.parametrize("length", [5, 3 * STREAM_BYTES])
async def test_a_body_that_waits_to_be_asked_for_is_asked_for_once(
    length: int, wire: Wire, stream: str, misfit: str
) -> None:
    await wire.request(f"POST {stream}", "Expect: 100-continue", f"Content-Length: {length}")
    interim = await wire.head()
    assert (interim.status, interim.headers) == (100, [])
    await wire.send(b"x" * length)
    assert (await wire.answer()).body == sum_of(b"x" * length)
    await assert_goes_on(wire, misfit)


@pytest.mark.parametrize(
    ("path", "fields", "length", "status", "code"),
    [
        ("/nothing-here", {}, 5, 404, "route_not_found"),
        ("/guarded", {"jwt_key": "0123456789abcdef0123456789abcdef"}, 5, 401, "unauthorized"),
        ("/small", {}, 262_145, 413, "body_too_large"),
    ],
)
async def test_a_body_that_will_not_be_taken_is_not_asked_for(
    path: str, fields: dict[str, object], length: int, status: int, code: str, small_app: App
) -> None:
    if path != "/nothing-here":
        small_app.deploy(path, "stream", memory=32, **fields)
    async with Wire(small_app.node.url) as wire:
        await wire.request(f"POST /r/{small_app.name}{path}", "Expect: 100-continue", f"Content-Length: {length}")
        answer = await wire.answer()
        assert (answer.status, answer.header("faas-error")) == (status, code)
        assert answer.header("connection") == "close"
        assert await wire.is_closed()


# --- what breaks off


async def test_an_answer_longer_than_its_function_said_is_none(app: App) -> None:
    url = app.deploy("/long", "misfit")
    async with Wire(app.node.url) as wire:
        await wire.request(f"POST {url}", "X-Mode: long_body")
        answer = await wire.answer()
        assert (answer.status, answer.header("faas-error")) == (502, "protocol")


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
async def test_an_answer_whose_function_dies_never_ends_cleanly(framing: str, version: str, app: App) -> None:
    url = app.deploy("/dies", "misfit", config={"MODE": "exit_midbody"})
    async with Wire(app.node.url) as wire:
        await wire.request(f"GET {url}", f"X-Framing: {framing}", version=version)
        assert not await wire.ends_cleanly()
    record = await the_record(app)
    assert (record["status"], record["reason"]) == ("error", "protocol")
    await wait_until(lambda: not app.containers("/dies"), timeout_s=GONE_TIMEOUT_S)


async def test_an_answer_that_lasts_until_its_connection_ends_is_whole(wire: Wire, misfit: str) -> None:
    await wire.request(f"POST {misfit}", "X-Mode: until_close")
    assert (await wire.answer()).body == b"hello"
    await assert_goes_on(wire, misfit)


async def test_an_answer_that_falls_silent_is_cut_after_the_routes_time(app: App) -> None:
    url = app.deploy("/silent", "misfit", config={"MODE": "stall"}, stream_idle_s=1)
    async with Wire(app.node.url) as wire:
        await wire.request(f"GET {url}")
        assert (await wire.head()).header("content-length") == "10"
        assert await wire.take(5) == b"hello"
        assert await wire.is_closed()
    record = await the_record(app)
    assert (record["status"], record["reason"]) == ("error", "timeout")
    assert "stream_idle_s" in str(record["error"])
    await wait_until(lambda: not app.containers("/silent"), timeout_s=GONE_TIMEOUT_S)


@pytest.mark.parametrize("moment", ["in the body", "in the answer", "before the answer"])
async def test_a_client_that_hangs_up_cancels_its_call_and_ends_its_container(moment: str, app: App) -> None:
    url = app.deploy("/left", "misfit")
    async with Wire(app.node.url) as wire:
        if moment == "in the answer":
            await wire.request(f"POST {url}", "X-Mode: source", f"X-Bytes: {1 << 30}")
            await wire.head()
        elif moment == "in the body":
            await wire.request(f"POST {url}", "X-Mode: relay", f"Content-Length: {1 << 30}")
            await wire.send(b"begun")
            await wire.head()
        else:
            await wire.request(f"POST {url}", "X-Mode: relay", f"Content-Length: {1 << 30}")
            await wait_until(app.node.busy_containers, timeout_s=GONE_TIMEOUT_S)
    await assert_cancelled(app, "/left")
