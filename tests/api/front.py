"""The data plane behind a real socket, on uvicorn's protocol, with functions of this process; and a client of it."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.server import ServerState

from faas.api.admission import Admission
from faas.api.dataplane import DataPlane
from faas.ids import new_id
from faas.metrics import Metrics
from faas.models import App, CallStatus, FormatName
from faas.runner.functions import FunctionTable
from faas.runner.invocation import State
from faas.tasks import TaskSet
from tests.support.programs import FunctionRequest, answer, hang
from tests.support.samples import a_call, a_route
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from faas.models import Call, CallRequest, CallResult
    from faas.runner.functions import Function
    from tests.support.inprocess import Program
    from tests.support.rig import Rig

__all__ = ["MIB", "PROGRAMS", "Answer", "Client", "Front", "Gate", "running_front"]

MIB = 1024 * 1024


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

    def reset(self) -> None:
        """Hang up without waiting until what was sent has arrived."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()

    @contextmanager
    def is_slow(self) -> Iterator[None]:
        """Take nothing from the socket in the block."""
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]
        yield
        self.writer.transport.resume_reading()  # type: ignore[attr-defined]


@dataclass
class Ends:
    """The ends of submitted calls, told by the test."""

    calls: dict[str, Call] = field(default_factory=dict)
    results: dict[str, CallResult] = field(default_factory=dict)
    waits_s: list[float] = field(default_factory=list)
    is_waited_for: bool = False
    has_news: asyncio.Event = field(default_factory=asyncio.Event)

    async def get(self, call_id: str, *, wait_s: float = 0) -> Call:
        self.waits_s.append(wait_s)
        self.is_waited_for = True
        try:
            await self.has_news.wait()
        finally:
            self.is_waited_for = False
        return self.calls[call_id]

    async def result(self, call_id: str) -> CallResult:
        return self.results[call_id]

    def end(self, result: CallResult) -> None:
        """End the one call there is."""
        ((call_id, call),) = self.calls.items()
        self.calls[call_id] = call.ended(CallStatus.SUCCESS, completed_at=call.created_at)
        self.results[call_id] = result
        self.has_news.set()


@dataclass
class Front:
    """A data plane behind a real socket."""

    rig: Rig
    plane: DataPlane
    table: FunctionTable
    port: int
    ends: Ends
    submitted: list[CallRequest] = field(default_factory=list)
    options: list[dict[str, Any]] = field(default_factory=list)
    """What was said of each of the submitted."""
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


async def packet(_request: FunctionRequest) -> bytes:
    """As much as one read brings."""
    return answer(b"x" * 200_000)


async def shown(request: FunctionRequest) -> bytes:
    """What the function was sent, without what differs in each call."""
    lines = [line for line in request.head.split(b"\r\n") if not line.startswith((b"Fn-Call-Id", b"Fn-Deadline"))]
    return answer(b"\n".join(lines) + b"\n" + request.body)


async def chunked(request: FunctionRequest) -> bytes:
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n"


PROGRAMS = {"echo": echo, "hang": hang, "flood": flood, "packet": packet, "chunked": chunked, "shown": shown}
LIMITS = {
    "max_header_bytes": 2000,
    "max_request_bytes": 4 * MIB,
    "max_buffered_request_bytes": 1000,
    "max_response_bytes": 64 * MIB,
    "request_read_timeout_s": 0.2,
}


@asynccontextmanager
async def running_front(
    rig: Rig, programs: dict[str, Program], limits: dict[str, Any], *, ends: Any = None, once: Any = None
) -> AsyncIterator[Front]:
    """`once` is what requests with an `Idempotency-Key` need."""
    table = FunctionTable(Metrics())
    table.app_changed(App(name="demo"))

    async def submit(function: Function, request: CallRequest, **options: Any) -> Any:
        await asyncio.sleep(0)
        if front.submit_error is not None:
            raise front.submit_error
        front.submitted.append(request)
        front.options.append(options)
        call = a_call(id=options["call_id"] or new_id())
        front.ends.calls[call.id] = call
        return call

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        if scope["path"] == "/slow":
            await front.asgi_may_answer.wait()
        body = f"asgi {scope['path']}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    ends = ends or Ends()
    admission = Admission(submit, ends, once, max_result_bytes=1000)
    plane = DataPlane(table, rig.agent, admission.admit, **{**LIMITS, **limits})
    config = uvicorn.Config(asgi, http="httptools", ws="none", lifespan="off", log_config=None, access_log=False)
    state = ServerState()
    state.default_headers = [(b"date", b"Sun, 06 Nov 1994 08:49:37 GMT")]
    server = await asyncio.get_running_loop().create_server(
        lambda: plane.protocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    front = Front(rig, plane, table, server.sockets[0].getsockname()[1], ends)
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
