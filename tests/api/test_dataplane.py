"""`/r/...` over a real socket, on uvicorn's protocol, with functions of this process."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from faas.api import dataplane as dataplane_module
from faas.api.dataplane import DataPlane
from faas.errors import StoreUnavailableError
from faas.metrics import Metrics
from faas.models import App, CallType, FormatName
from faas.runner import agent as agent_module
from faas.runner.functions import FunctionTable
from faas.runner.invocation import State
from faas.tasks import TaskSet
from tests.support.programs import FunctionRequest, answer, hang, http_stream, on_socket
from tests.support.rig import Rig, running_rig
from tests.support.samples import a_call, a_route
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from faas.models import CallRequest
    from faas.runner.functions import Function
    from tests.support.inprocess import Program

MIB = 1024 * 1024
COLD_TIMING = re.compile(r"queue;dur=[\d.]+, pull;dur=[\d.]+, create;dur=.*, start;dur=.*, exec;dur=[\d.]+, cold\Z")
CALL_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\Z")


@dataclass(frozen=True)
class Answer:
    """One answer off the wire."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def __getitem__(self, name: str) -> str:
        (value,) = self.all(name)
        return value


@dataclass
class Client:
    """A client that writes bytes and reads answers."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, text: str, body: bytes = b"") -> None:
        """A request's lines, separated by "|", and its body."""
        self.writer.write(text.replace("|", "\r\n").encode("latin-1") + b"\r\n\r\n" + body)

    async def answer(self, *, to_head: bool = False) -> Answer:
        async with asyncio.timeout(10):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status_line, *lines = head[:-4].split("\r\n")
            parsed = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
            read = Answer(int(status_line.split()[1]), parsed, b"")
            if to_head or read.status in (100, 204, 304):
                return read
            return Answer(read.status, parsed, await self._body(read))

    async def _body(self, read: Answer) -> bytes:
        if read.all("transfer-encoding"):
            assert not read.all("content-length")
            body = b""
            while size := int(await self.reader.readline(), 16):
                body += await self.reader.readexactly(size)
                assert await self.reader.readexactly(2) == b"\r\n"
            assert await self.reader.readexactly(2) == b"\r\n"
            return body
        if read.all("content-length"):
            return await self.reader.readexactly(int(read["content-length"]))
        return await self.reader.read()

    async def ask(self, text: str, body: bytes = b"") -> Answer:
        self.send(text, body)
        return await self.answer(to_head=text.startswith("HEAD"))

    async def is_closed(self) -> bool:
        """Whether nothing more comes, and the server has closed."""
        async with asyncio.timeout(10):
            try:
                return await self.reader.read() == b""
            except ConnectionResetError:
                return True

    @contextmanager
    def is_slow(self) -> Iterator[None]:
        """Take nothing from the socket in the block."""
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]
        yield
        self.writer.transport.resume_reading()  # type: ignore[attr-defined]


@dataclass
class Front:
    """A data plane behind a real socket."""

    rig: Rig
    plane: DataPlane
    table: FunctionTable
    port: int
    submitted: list[CallRequest] = field(default_factory=list)
    submit_error: Exception | None = None
    asgi_may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def client(self) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers.append(writer)
        return Client(reader, writer)

    def deploy(self, image: str, **changes: Any) -> None:
        values = {"image": image, "path": f"/{image}", "format": FormatName.HTTP_STREAM, **changes}
        self.table.route_changed(App(name="demo"), a_route(**values))

    @property
    def running(self) -> list[Any]:
        return list(self.rig.agent.running.values())

    async def a_call_runs(self, count: int = 1) -> None:
        await wait_until(lambda: [call.state for call in self.running].count(State.RUNNING) == count)

    async def no_call_is_left(self) -> None:
        await wait_until(lambda: not self.running)


class Gate:
    """A handler that answers when it may."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.bodies: list[bytes] = []

    async def __call__(self, request: FunctionRequest) -> bytes:
        self.bodies.append(request.body)
        await self.may_answer.wait()
        return answer(request.body)


async def echo(request: FunctionRequest) -> bytes:
    headers = request.headers
    return answer(
        request.body,
        int(headers.get("Fn-Http-H-Reply-Status", "200")) if headers.get("Fn-Http-H-Raw-Status") else 200,
        f"Fn-Http-Status: {headers.get('Fn-Http-H-Reply-Status', '200')}",
        f"Fn-Http-H-Url: {headers['Fn-Http-Request-Url']}",
        f"Fn-Http-H-Method: {headers['Fn-Http-Method']}",
        "Fn-Http-H-Faas-Error: forged",
        "Fn-Http-H-X-Call-Id: forged",
        "Fn-Http-H-Date: forged",
        "Fn-Http-H-Set-Cookie: a=1",
        "Fn-Http-H-Set-Cookie: b=2",
        "Fn-Http-H-Connection: close",
    )


async def flood(request: FunctionRequest) -> bytes:
    """As many megabytes as the body says."""
    return answer(b"x" * (int(request.body) * MIB))


async def shown(request: FunctionRequest) -> bytes:
    """What the function was sent, without what differs in each call."""
    lines = [line for line in request.head.split(b"\r\n") if not line.startswith((b"Fn-Call-Id", b"Fn-Deadline"))]
    return answer(b"\n".join(lines) + b"\n" + request.body)


async def chunked(request: FunctionRequest) -> bytes:
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n"


@pytest.fixture
def programs() -> dict[str, Program]:
    """Images by name; a test adds its own before it asks for `front`."""
    return {name: http_stream(handler) for name, handler in PROGRAMS.items()}


PROGRAMS = {"echo": echo, "hang": hang, "flood": flood, "chunked": chunked, "shown": shown}
LIMITS = {
    "max_header_bytes": 2000,
    "max_request_bytes": 4 * MIB,
    "max_buffered_request_bytes": 1000,
    "max_response_bytes": 64 * MIB,
    "request_read_timeout_s": 0.2,
}


@pytest.fixture
async def make_front(tmp_path: Path, programs: dict[str, Program]) -> AsyncIterator[Callable[..., Awaitable[Front]]]:
    async with AsyncExitStack() as stack:

        async def make(*, server: bool = False, **limits: Any) -> Front:
            root = tmp_path / "sockets"
            root.mkdir()
            rig = await stack.enter_async_context(running_rig(root, programs, max_response_bytes=64 * MIB))
            return await stack.enter_async_context(running_front(rig, programs, limits))

        yield make


@pytest.fixture
async def front(make_front: Callable[..., Awaitable[Front]]) -> Front:
    return await make_front()


@asynccontextmanager
async def running_front(rig: Rig, programs: dict[str, Program], limits: dict[str, Any]) -> AsyncIterator[Front]:
    table = FunctionTable(Metrics())
    table.app_changed(App(name="demo"))

    async def submit(function: Function, request: CallRequest) -> Any:
        await asyncio.sleep(0)
        if front.submit_error is not None:
            raise front.submit_error
        front.submitted.append(request)
        return a_call()

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass
        if scope["path"] == "/slow":
            await front.asgi_may_answer.wait()
        body = f"asgi {scope['path']}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    plane = DataPlane(table, rig.agent, submit, **{**LIMITS, **limits})
    config = uvicorn.Config(asgi, http="httptools", ws="none", lifespan="off", log_config=None, access_log=False)
    state = ServerState()
    state.default_headers = [(b"date", b"Sun, 06 Nov 1994 08:49:37 GMT")]
    server = await asyncio.get_running_loop().create_server(
        lambda: plane.protocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    front = Front(rig, plane, table, server.sockets[0].getsockname()[1])
    for image in programs:
        front.deploy(image)
    async with TaskSet("front") as tasks:
        tasks.supervise(plane.sweep_forever(), name="sweep")
        try:
            yield front
        finally:
            for writer in front._writers:
                writer.transport.abort()
            server.close()
            await front.no_call_is_left()
            await wait_until(lambda: not plane.connections)
            await plane.tasks.cancel()


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


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses that only matter to a real node."""
    monkeypatch.setattr(dataplane_module, "SWEEP_S", 0.05)
    monkeypatch.setattr(agent_module, "DIAGNOSIS_S", 0.05)


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


# --- clients that are slow, or gone


@pytest.mark.both_loops
async def test_a_client_that_reads_slowly_slows_its_function_and_gets_all(front: Front) -> None:
    client = await front.client()
    with client.is_slow():
        client.send("POST /r/demo/flood HTTP/1.1|Host: here|Content-Length: 2", b"40")
        (connection,) = front.plane.connections
        await wait_until(lambda: connection.flow is not None and connection.flow.write_paused)
        await asyncio.sleep(0.05)
        # What is between: both sockets' buffers, and as much as one read brings.
        assert connection.transport.get_write_buffer_size() < 4 * MIB
        assert len(front.running) == 1
    got = await client.answer()
    assert len(got.body) == 40 * MIB


@pytest.mark.both_loops
async def test_a_second_request_does_not_forget_the_first_ones_slow_answer(front: Front) -> None:
    client = await front.client()
    with client.is_slow():
        client.send("POST /r/demo/flood HTTP/1.1|Host: here|Content-Length: 2", b"20")
        (connection,) = front.plane.connections
        await wait_until(lambda: connection.flow is not None and connection.flow.write_paused)
        client.send("POST /r/demo/flood HTTP/1.1|Host: here|Content-Length: 2", b"30")
        await asyncio.sleep(0.05)
    assert len((await client.answer()).body) == 20 * MIB
    with client.is_slow():
        await wait_until(lambda: connection.flow.write_paused)
        await asyncio.sleep(0.05)
        assert connection.transport.get_write_buffer_size() < 4 * MIB
    assert len((await client.answer()).body) == 30 * MIB


@pytest.mark.both_loops
async def test_an_answer_begins_slowly_when_the_one_before_it_is_not_yet_read(front: Front) -> None:
    client = await front.client()
    with client.is_slow():
        # Much of the first is in the buffer when it is complete: the second finds the connection full.
        client.send("POST /r/demo/flood HTTP/1.1|Host: here|Content-Length: 1", b"6")
        (connection,) = front.plane.connections
        await wait_until(lambda: connection.flow is not None and connection.flow.write_paused)
        for _ in range(3):
            client.send("POST /r/demo/flood HTTP/1.1|Host: here|Content-Length: 2", b"20")
        await asyncio.sleep(0.2)
        assert connection.transport.get_write_buffer_size() < 8 * MIB
    assert [len((await client.answer()).body) // MIB for _ in range(4)] == [6, 20, 20, 20]


@pytest.mark.both_loops
async def test_a_client_that_sends_slowly_read_functions_is_slowed(front: Front) -> None:
    may_read = asyncio.Event()

    async def reluctant(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await may_read.wait()
        body = await reader.readexactly(3 * MIB)
        writer.write(answer(b"%d" % len(body)))
        await reader.read()

    front.rig.executor.programs["reluctant"] = on_socket(reluctant)
    front.deploy("reluctant")
    client = await front.client()
    client.send(f"POST /r/demo/reluctant HTTP/1.1|Host: here|Content-Length: {3 * MIB}")
    await front.a_call_runs() if front.running else None
    client.writer.write(b"x" * (3 * MIB))
    (connection,) = front.plane.connections
    await wait_until(lambda: connection.flow.read_paused)
    may_read.set()
    assert (await client.answer()).body == b"%d" % (3 * MIB)


@pytest.mark.both_loops
async def test_a_client_that_hangs_up_ends_its_call(front: Front) -> None:
    client = await front.client()
    client.send("GET /r/demo/hang HTTP/1.1|Host: here")
    await front.a_call_runs()
    client.writer.transport.abort()
    await front.no_call_is_left()
    await front.rig.settled()
    assert [invocation.error.code for invocation in front.rig.observed] == ["client_gone"]
    assert not front.rig.executor.running


@pytest.mark.both_loops
async def test_a_client_that_hangs_up_with_a_second_request_in_line_ends_the_first(front: Front) -> None:
    client = await front.client()
    # Reading stops at the second request and goes on after the first answer: the third is in line then.
    client.send("GET /slow HTTP/1.1|Host: here")
    client.send("GET /r/demo/hang HTTP/1.1|Host: here")
    client.send("GET /r/demo/hang HTTP/1.1|Host: here")
    front.asgi_may_answer.set()
    await front.a_call_runs()
    client.writer.transport.abort()
    await front.no_call_is_left()
    assert [invocation.error.code for invocation in front.rig.observed] == ["client_gone"]


@pytest.mark.both_loops
async def test_a_client_that_hangs_up_in_line_is_taken_out_of_it(front: Front) -> None:
    front.deploy("hang", max_concurrency=1)
    first, second = await front.client(), await front.client()
    first.send("GET /r/demo/hang HTTP/1.1|Host: here")
    await front.a_call_runs()
    second.send("GET /r/demo/hang HTTP/1.1|Host: here")
    await wait_until(lambda: len(front.running) == 2)
    second.writer.transport.abort()
    await wait_until(lambda: len(front.running) == 1)
    assert front.running[0].state is State.RUNNING


@pytest.mark.both_loops
async def test_a_client_that_hangs_up_while_its_body_streams_ends_its_call(front: Front) -> None:
    client = await front.client()
    client.send("POST /r/demo/echo HTTP/1.1|Host: here|Content-Length: 1000000", b"x" * 100_000)
    await front.a_call_runs()
    client.writer.transport.abort()
    await front.no_call_is_left()
    await front.rig.settled()
    assert not front.rig.executor.running


@pytest.mark.both_loops
async def test_a_client_that_hangs_up_while_it_is_answered_ends_its_call(front: Front) -> None:
    client = await front.client()
    with client.is_slow():
        client.send("POST /r/demo/flood HTTP/1.1|Host: here|Content-Length: 2", b"40")
        (connection,) = front.plane.connections
        await wait_until(lambda: connection.flow is not None and connection.flow.write_paused)
        client.writer.transport.abort()
        await front.no_call_is_left()


@pytest.mark.both_loops
async def test_a_client_that_hangs_up_in_its_head_or_before_leaves_nothing(front: Front) -> None:
    for start in (b"", b"GET /r/de", b"POST /r/demo/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab"):
        client = await front.client()
        client.writer.write(start)
        await asyncio.sleep(0.01)
        client.writer.transport.abort()
    await wait_until(lambda: not front.plane.connections)
    assert front.rig.executor.made == 0


@pytest.mark.both_loops
async def test_an_answer_that_breaks_off_cuts_the_connection(front: Front) -> None:
    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello")
        await asyncio.sleep(0.02)

    front.rig.executor.programs["broken"] = on_socket(broken)
    front.deploy("broken")
    client = await front.client()
    client.send("GET /r/demo/broken HTTP/1.1|Host: here")
    assert (await client.reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200")
    assert await client.is_closed()


@pytest.mark.both_loops
async def test_an_answer_over_the_limit_is_502_when_its_length_was_declared(
    make_front: Callable[..., Awaitable[Front]],
) -> None:
    front = await make_front(max_response_bytes=1000)
    client = await front.client()
    got = await client.ask("POST /r/demo/flood HTTP/1.1|Host: here|Content-Length: 1", b"1")
    assert (got.status, got["faas-error"]) == (502, "response_too_large")


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
