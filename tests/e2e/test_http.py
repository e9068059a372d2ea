"""`/r/...` on the wire: what of a request reaches the function, what of its answer reaches the caller."""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.e2e.answers import is_warm

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

    from tests.e2e.wire import Wire
    from tests.support.node import App, NodeProcess

MIB = 1024 * 1024
EVERY_BYTE = bytes(range(256))

ECHOES = ["cat", "stdio_echo", "echo"]
"""Fixtures: one function of each format that answers its body."""


@pytest.mark.parametrize("name", ECHOES)
async def test_every_format_carries_any_body_byte_for_byte(
    name: str, request: pytest.FixtureRequest, client: httpx.AsyncClient
) -> None:
    url: str = request.getfixturevalue(name)
    bodies = [EVERY_BYTE, EVERY_BYTE[::-1] * 4096, b"\0", b"\r\n\r\n", b"x" * 65536, b"x" * 65537]

    answers = await asyncio.gather(*(client.post(url, content=body) for body in bodies))

    assert [answer.status_code for answer in answers] == [200] * len(bodies)
    assert [answer.content == body for answer, body in zip(answers, bodies, strict=True)] == [True] * len(bodies)


@pytest.mark.parametrize(("name", "expected"), [("cat", b""), ("stdio_echo", b""), ("echo", b"hello\n")])
async def test_every_format_takes_an_empty_body(
    name: str, expected: bytes, request: pytest.FixtureRequest, client: httpx.AsyncClient
) -> None:
    answer = await client.post(request.getfixturevalue(name))

    assert (answer.status_code, answer.content) == (200, expected)


@pytest.mark.parametrize("name", ["cat", "echo"])
async def test_a_chunked_body_arrives_whole(
    name: str, request: pytest.FixtureRequest, client: httpx.AsyncClient
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for size in (1, 255, 70_000, 3):
            yield (EVERY_BYTE * 300)[:size]

    answer = await client.post(request.getfixturevalue(name), content=pieces())

    assert answer.content == b"".join([piece async for piece in pieces()])


async def test_a_body_of_100_mib_streams_through_little_memory(
    node: NodeProcess, misfit: str, client: httpx.AsyncClient
) -> None:
    piece = EVERY_BYTE * 4096
    count = 100 * MIB // len(piece)
    sha256 = hashlib.sha256()
    for _ in range(count):
        sha256.update(piece)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(count):
            yield piece

    before_mib = node.memory_mib("VmRSS")
    node.forget_memory_peak()
    declared = {"X-Mode": "sink", "Content-Length": str(100 * MIB)}
    answers = [
        await client.post(misfit, content=pieces(), headers=headers) for headers in (declared, {"X-Mode": "sink"})
    ]

    assert [answer.json() for answer in answers] == [{"size_bytes": 100 * MIB, "sha256": sha256.hexdigest()}] * 2
    assert node.memory_mib("VmHWM") - before_mib < 64


@pytest.mark.parametrize("chunked", ["", "yes"])
async def test_an_answer_of_100_mib_streams_through_little_memory(
    chunked: str, node: NodeProcess, misfit: str, client: httpx.AsyncClient
) -> None:
    before_mib = node.memory_mib("VmRSS")
    node.forget_memory_peak()
    headers = {"X-Mode": "source", "X-Bytes": str(100 * MIB), **({"X-Chunked": chunked} if chunked else {})}
    size = 0
    async with client.stream("POST", misfit, headers=headers) as answer:
        await asyncio.sleep(0.3)  # a caller that does not read yet: the node may not read on either
        async for piece in answer.aiter_bytes():
            size += len(piece)

    assert size == 100 * MIB
    assert node.memory_mib("VmHWM") - before_mib < 64


async def test_an_answer_is_passed_on_while_it_is_made(misfit: str, client: httpx.AsyncClient) -> None:
    headers = {"X-Mode": "chunked", "X-Chunks": "3", "X-Delay-Ms": "300"}
    loop = asyncio.get_running_loop()
    times = []
    async with client.stream("POST", misfit, headers=headers) as answer:
        pieces = []
        async for piece in answer.aiter_bytes():
            pieces.append(piece)
            times.append(loop.time())

    assert b"".join(pieces) == b"chunk 0\nchunk 1\nchunk 2\n"
    assert len(pieces) >= 2
    assert times[-1] - times[0] > 0.2


async def test_a_client_that_expects_100_continue_is_told_to_go_on_once(wire: Wire, misfit: str, echo: str) -> None:
    for url, mode in ((echo, "ok"), (misfit, "sink")):
        await wire.request(f"POST {url}", "Expect: 100-continue", f"X-Mode: {mode}", "Content-Length: 5")
        interim = await wire.head()
        await wire.send(b"hello")
        answer = await wire.answer()

        assert (interim.status, interim.headers) == (100, [])
        assert answer.status == 200
    assert json.loads(answer.body)["size_bytes"] == 5


async def test_a_head_request_gets_the_headers_and_no_body(wire: Wire, echo: str, misfit: str) -> None:
    for url in (echo, misfit):
        await wire.request(f"HEAD {url}")
        answer = await wire.answer(to_head=True)
        assert answer.status == 200
        assert int(answer.header("content-length") or 0) > 0

    await wire.request(f"POST {echo}", body=b"the next one")
    assert (await wire.answer()).body == b"the next one"


@pytest.mark.parametrize("status", [204, 304])
async def test_a_status_without_a_body_has_none(status: int, wire: Wire, echo: str) -> None:
    await wire.request(f"POST {echo}", f"X-Status: {status}", body=b"dropped")
    answer = await wire.answer()
    assert answer.status == status
    assert answer.header("transfer-encoding") is None
    assert status == 304 or answer.header("content-length") is None

    await wire.request(f"POST {echo}", body=b"the next one")
    assert (await wire.answer()).body == b"the next one"


async def test_pipelined_requests_are_answered_in_their_order(wire: Wire, echo: str, node: NodeProcess) -> None:
    with node.api() as api:
        version = api.get("/version").content
    await wire.send(
        wire.encode(f"POST {echo}", "X-Sleep-Ms: 300", body=b"first")
        + wire.encode(f"POST {echo}", body=b"second")
        + wire.encode("GET /version")
        + wire.encode(f"POST {echo}", body=b"fourth")
        + wire.encode("GET /v1/apps/shared")
    )

    answers = [await wire.answer() for _ in range(5)]

    assert [answer.status for answer in answers] == [200] * 5
    assert [answer.body for answer in answers[:4]] == [b"first", b"second", version, b"fourth"]
    assert json.loads(answers[4].body)["app"]["name"] == "shared"


async def test_a_connection_serves_one_request_after_the_other(wire: Wire, echo: str, cat: str) -> None:
    for url in (echo, "/version", echo, cat, "/r/no-such-app/x", echo):
        await wire.request(f"POST {url}" if url.startswith("/r/") else f"GET {url}", body=b"body")
        answer = await wire.answer()
        assert answer.header("connection") != "close"
        assert answer.status == (404 if "no-such-app" in url else 200)


async def test_connection_close_is_honoured(wire: Wire, echo: str) -> None:
    await wire.request(f"POST {echo}", "Connection: close", body=b"bye")

    assert (await wire.answer()).body == b"bye"
    assert await wire.is_closed()


async def test_http_1_0_gets_an_answer_that_ends_with_the_connection(wire: Wire, misfit: str) -> None:
    await wire.request(f"POST {misfit}", "X-Mode: chunked", "X-Delay-Ms: 1", version="HTTP/1.0")
    answer = await wire.answer()

    assert answer.status == 200
    assert answer.header("transfer-encoding") is None
    assert answer.body == b"chunk 0\nchunk 1\nchunk 2\n"
    assert await wire.is_closed()


async def test_a_request_line_with_the_whole_url_is_understood(wire: Wire, misfit: str, node: NodeProcess) -> None:
    await wire.request(f"POST {node.url}{misfit}?a=1", "X-Mode: headers")
    seen = _seen(json.loads((await wire.answer()).body))

    assert seen["Fn-Http-Request-Url"] == [f"{node.url}{misfit}?a=1"]


async def test_method_query_and_headers_reach_the_function_as_they_were_sent(wire: Wire, misfit: str) -> None:
    query = "?a=b%20c&a=%2F&x=%C3%A4&empty=&plus=+"
    await wire.request(
        f"PROPFIND {misfit}{query}",
        "X-Mode: headers",
        "x-lower: one",
        "X-LOWER: two",
        "Content-Type: text/x",
        "X-Latin: \u00e4",
    )
    answer = json.loads((await wire.answer()).body)
    seen = _seen(answer)

    assert (answer["method"], answer["target"]) == ("POST", "/call")
    assert seen["Fn-Http-Method"] == ["PROPFIND"]
    assert seen["Fn-Http-Request-Url"] == [f"http://{wire.host}{misfit}{query}"]
    assert seen["Fn-Http-H-X-Lower"] == ["one", "two"]
    assert seen["Content-Type"] == ["text/x"]
    assert seen["Fn-Http-H-X-Latin"] == ["\u00e4".encode().decode("latin-1")]


async def test_hop_by_hop_headers_of_a_request_stay_here(wire: Wire, misfit: str) -> None:
    await wire.request(
        f"POST {misfit}",
        "X-Mode: headers",
        "Connection: keep-alive, X-Named",
        "X-Named: drop me",
        "Keep-Alive: timeout=5",
        "TE: trailers",
        "Upgrade: h2c",
        "Proxy-Authorization: Basic eDp5",
        "X-Kept: kept",
        body=b"x",
    )
    seen = {name.lower() for name in _seen(json.loads((await wire.answer()).body))}

    assert "fn-http-h-x-kept" in seen
    dropped = {"x-named", "keep-alive", "te", "upgrade", "proxy-authorization", "connection", "host", "content-length"}
    assert not {f"fn-http-h-{name}" for name in dropped} & seen


async def test_an_encoded_path_finds_its_route(app: App, client: httpx.AsyncClient) -> None:
    app.deploy("/grün/a b", "echo")

    answers = [await client.post(f"/r/{app.name}{path}") for path in ("/gr%C3%BCn/a%20b", "/gr%c3%bcn/%61%20b/")]

    assert [answer.status_code for answer in answers] == [200, 200]


async def test_the_functions_status_and_headers_reach_the_caller(misfit: str, client: httpx.AsyncClient) -> None:
    for status in (201, 302, 404, 418, 500, 599):
        answer = await client.post(misfit, headers={"X-Mode": "http_status", "X-Status": str(status)})

        assert (answer.status_code, answer.content) == (status, b"own\n")
        assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]
        assert answer.headers["x-own"] == "shown"
        assert "x-plain" not in answer.headers
        assert "faas-error" not in answer.headers


async def test_a_hot_stdio_functions_status_and_headers_reach_the_caller(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/status", "stdio-misfit", config={"MODE": "status"})

    answer = await client.post(url)

    assert (answer.status_code, answer.content, answer.headers["x-own"]) == (404, b"own\n", "shown")


async def test_every_answer_has_a_call_id_of_its_own_that_grows(
    client: httpx.AsyncClient, echo: str, cat: str, shared_app: App
) -> None:
    urls = [echo, echo, cat, echo, f"/r/{shared_app.name}/nothing-here"]

    ids = [(await client.post(url)).headers["x-call-id"] for url in urls]

    assert [uuid.UUID(one).version for one in ids] == [7] * len(ids)
    assert len(set(ids)) == len(ids)
    times = [uuid.UUID(one).int >> 80 for one in ids]
    assert all(earlier <= later for earlier, later in pairwise(times))


async def test_server_timing_tells_cold_from_warm(app: App, client: httpx.AsyncClient, cat: str) -> None:
    url = app.deploy("/timing", "echo")

    answers = [await client.post(url, headers={"X-Sleep-Ms": "50"}) for _ in range(2)]

    assert [is_warm(answer) for answer in answers] == [False, True]
    assert not is_warm(await client.post(cat))
    names = {part.split(";")[0].strip() for part in answers[0].headers["server-timing"].split(",")}
    assert {"pull", "create", "start"} <= names
    durations = dict(part.strip().split(";dur=") for part in answers[1].headers["server-timing"].split(",")[:2])
    assert float(durations["exec"]) >= 45


async def test_a_routes_headers_are_set_over_the_functions(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/own", "echo", headers={"X-Route": ["first", "second"], "content-type": ["text/x-route"]})

    answer = await client.post(url, content=b"x", headers={"Content-Type": "text/x-caller"})

    assert answer.headers.get_list("x-route") == ["first"]
    assert answer.headers.get_list("content-type") == ["text/x-route"]


def _seen(answer: dict[str, object]) -> dict[str, list[str]]:
    """The headers that a function saw."""
    seen: dict[str, list[str]] = {}
    for name, value in answer["headers"]:  # type: ignore[attr-defined]
        seen.setdefault(name, []).append(value)
    return seen
