"""A function of format http-stream that misbehaves on demand, for tests.

What it does is named by the request's header X-Mode, or by the environment's MODE. Some modes are of the start: MODE
only. Numbers come from headers of the request, given in the docstrings. Request headers are understood with and
without the prefix Fn-Http-H-. Everything is written by hand on the connection, since most of it is not proper HTTP.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

PIECE_BYTES = 64 << 10
PREFIX = "fn-http-h-"
FOR_EVER_S = 86_400

LISTENER = Path(os.environ.get("FN_LISTENER", "unix:/tmp/iofs/lsnr.sock").removeprefix("unix:"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, its body not read yet."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def header(self, name: str, default: str = "") -> str:
        """Value of a request header, given in lower case; the caller's own wins over the platform's."""
        found = {key.lower(): value for key, value in self.headers}
        return found.get(PREFIX + name, found.get(name, default))

    async def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, body: bytes = b"ok\n", status: int = 200, **headers: str) -> None:
        """Send a proper answer."""
        headers = {"Content_Type": "text/plain", "Content_Length": str(len(body)), "Fn_Http_Status": "200"} | headers
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        await self.write(f"HTTP/1.1 {status} Whatever\r\n{lines}\r\n".encode() + body)

    async def body_pieces(self, take: Callable[[bytes], None]) -> None:
        """Read the body, piece after piece, with memory for one."""
        if "chunked" in self.header("transfer-encoding"):
            while size := int((await self.reader.readline()).split(b";")[0], 16):
                await _read_exactly(self.reader, size, take)
                await self.reader.readline()
            await self.reader.readline()
        else:
            await _read_exactly(self.reader, int(self.header("content-length", "0")), take)

    async def skip_body(self) -> None:
        """Read the body and forget it."""
        await self.body_pieces(lambda _piece: None)


async def _read_exactly(reader: asyncio.StreamReader, size: int, take: Callable[[bytes], None]) -> None:
    while size:
        piece = await reader.read(min(size, PIECE_BYTES))
        if not piece:
            raise asyncio.IncompleteReadError(b"", size)
        size -= len(piece)
        take(piece)


MODES: dict[str, Callable[[Call], Awaitable[None]]] = {}


def mode(function: Callable[[Call], Awaitable[None]]) -> Callable[[Call], Awaitable[None]]:
    """Make the function a mode of its own name."""
    MODES[function.__name__] = function
    return function


# Proper answers.


@mode
async def ok(call: Call) -> None:
    """Answer `ok`."""
    await call.skip_body()
    await call.answer()


@mode
async def echo(call: Call) -> None:
    """Answer the body, which is held in memory."""
    body = bytearray()
    await call.body_pieces(body.extend)
    await call.answer(bytes(body))


@mode
async def sink(call: Call) -> None:
    """Read a body of any size in little memory, answer its size and SHA-256 as JSON."""
    sha256, size = hashlib.sha256(), 0

    def take(piece: bytes) -> None:
        nonlocal size
        sha256.update(piece)
        size += len(piece)

    await call.body_pieces(take)
    await _answer_json(call, {"size_bytes": size, "sha256": sha256.hexdigest()})


@mode
async def source(call: Call) -> None:
    """Answer X-Bytes (1 MiB) zero bytes, in little memory; without Content-Length if X-Chunked is set."""
    await call.skip_body()
    left = int(call.header("x-bytes", str(1 << 20)))
    chunked = bool(call.header("x-chunked"))
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {left}"
    await call.write(f"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n{length}\r\n\r\n".encode())
    while left:
        piece = bytes(min(left, PIECE_BYTES))
        left -= len(piece)
        await call.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
    if chunked:
        await call.write(b"0\r\n\r\n")


@mode
async def chunked(call: Call) -> None:
    """Answer X-Chunks (3) chunks, `chunk 0\\n` and so on, X-Delay-Ms (100) apart."""
    await _stream(call, "text/plain", "chunk {}\n")


@mode
async def sse(call: Call) -> None:
    """Answer X-Chunks (3) server-sent events, X-Delay-Ms (100) apart."""
    await _stream(call, "text/event-stream", "id: {0}\ndata: event {0}\n\n")


@mode
async def relay(call: Call) -> None:
    """Answer the body in chunks, each piece as soon as it is here."""
    await call.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    await call.body_pieces(lambda piece: call.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece)))
    await call.write(b"0\r\n\r\n")


@mode
async def trailers(call: Call) -> None:
    """Answer a chunk and two trailers."""
    await call.skip_body()
    await call.write(
        b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nFn-Http-H-X-Sum: 1\r\n\r\n"
    )


@mode
async def interim(call: Call) -> None:
    """Send two informational answers, and then the answer, the last one's head in two pieces."""
    await call.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    await call.skip_body()
    await call.write(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")
    await call.write(b"HTTP/1.1 200 OK\r\nContent-")
    await asyncio.sleep(0.05)
    await call.write(b"Length: 5\r\n\r\nhello")


@mode
async def until_close(call: Call) -> None:
    """Answer with a body that lasts until the end of the connection."""
    await call.skip_body()
    await call.write(b"HTTP/1.1 200 OK\r\n\r\nhello")
    call.writer.close()


@mode
async def slow(call: Call) -> None:
    """Answer after X-Seconds (1)."""
    await call.skip_body()
    await asyncio.sleep(_seconds(call))
    await call.answer(b"slept\n")


@mode
async def block(call: Call) -> None:
    """Answer after X-Seconds (1) in which the process does nothing else, as a busy handler would."""
    await call.skip_body()
    deadline = asyncio.get_running_loop().time() + _seconds(call)
    while asyncio.get_running_loop().time() < deadline:
        pass
    await call.answer(b"was busy\n")


@mode
async def env(call: Call) -> None:
    """Answer the environment as JSON."""
    await call.skip_body()
    await _answer_json(call, dict(os.environ))


@mode
async def headers(call: Call) -> None:
    """Answer the request as it came in, as JSON; headers as a list, in their order."""
    await call.skip_body()
    await _answer_json(call, {"method": call.method, "target": call.target, "headers": call.headers})


@mode
async def identity(call: Call) -> None:
    """Answer who the process is and what it may, as JSON: user, group, capabilities, whether / is writable."""
    await call.skip_body()
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    await _answer_json(call, {
        "host": os.uname().nodename, "pid": os.getpid(), "uid": os.getuid(), "gid": os.getgid(),
        "capabilities": status["CapEff"], "no_new_privileges": status["NoNewPrivs"],
        "root_is_writable": os.access("/", os.W_OK), "tmp_is_writable": os.access("/tmp", os.W_OK),
    })  # fmt: skip


@mode
async def print_stdout(call: Call) -> None:
    """Print X-Lines (3) lines to standard output and as many to standard error, then answer."""
    await call.skip_body()
    for number in range(int(call.header("x-lines", "3"))):
        # Each line in one write: the parts of two streams' lines would mix.
        os.write(1, b"stdout line %d\n" % number)
        os.write(2, b"stderr line %d\n" % number)
    await call.answer()


@mode
async def side_effect(call: Call) -> None:
    """Sleep X-Seconds (1), then touch `side-effect` beside the socket (seen from outside), print, and answer."""
    await call.skip_body()
    await asyncio.sleep(_seconds(call))
    LISTENER.with_name("side-effect").touch()
    print("side effect", flush=True)
    await call.answer()


# Statuses.


@mode
async def fn_502(call: Call) -> None:
    """Say that the function failed, as an FDK does after an exception."""
    await call.skip_body()
    await call.answer(b"kaboom\n", 502)


@mode
async def fn_504(call: Call) -> None:
    """Say that the function took too long, as an FDK does."""
    await call.skip_body()
    await call.answer(b"too late\n", 504)


@mode
async def bad_status(call: Call) -> None:
    """Answer with the status X-Status (500), which the contract has no meaning for."""
    await call.skip_body()
    await call.answer(b"bad\n", int(call.header("x-status", "500")))


@mode
async def http_status(call: Call) -> None:
    """Answer 200 with Fn-Http-Status X-Status (404), two cookies and the header X-Plain that is not for the caller."""
    await call.skip_body()
    status = call.header("x-status", "404")
    await call.write(
        f"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nFn-Http-Status: {status}\r\nX-Plain: hidden\r\n"
        "Fn-Http-H-X-Own: shown\r\nFn-Http-H-Set-Cookie: a=1\r\nFn-Http-H-Set-Cookie: b=2\r\n\r\nown\n".encode()
    )


# Broken protocol.


@mode
async def garbage(call: Call) -> None:
    """Answer with something that is not HTTP."""
    await call.skip_body()
    await call.write(b"this is not HTTP at all\r\n\r\n\0\1\2")


@mode
async def huge_headers(call: Call) -> None:
    """Answer with a header of X-Bytes (1 MiB)."""
    await call.skip_body()
    await call.answer(Fn_Http_H_X_Huge="x" * int(call.header("x-bytes", str(1 << 20))))


@mode
async def close_socket(call: Call) -> None:
    """Close the connection without an answer, and stay alive."""
    await call.skip_body()
    call.writer.close()


@mode
async def short_body(call: Call) -> None:
    """Promise 100 bytes, send 5, close the connection."""
    await call.skip_body()
    await call.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello")
    call.writer.close()


@mode
async def long_body(call: Call) -> None:
    """Promise 5 bytes, send more."""
    await call.skip_body()
    await call.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, and more")


@mode
async def two_answers(call: Call) -> None:
    """Answer twice: whoever uses the connection next would get another call's answer."""
    await call.skip_body()
    await call.answer(b"first\n")
    await call.answer(b"second\n")


@mode
async def early_answer(call: Call) -> None:
    """Answer before having read the body, and never read it."""
    await call.answer(b"early\n")
    await asyncio.sleep(FOR_EVER_S)


@mode
async def stall(call: Call) -> None:
    """Send a head and half of a body, and then nothing more."""
    await call.skip_body()
    await call.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
    await asyncio.sleep(FOR_EVER_S)


@mode
async def never(_call: Call) -> None:
    """Never answer, never read the body."""
    await asyncio.sleep(FOR_EVER_S)


# Dying.


@mode
async def exit_midcall(call: Call) -> None:
    """Exit with X-Code (3) instead of answering."""
    await call.skip_body()
    _exit(int(call.header("x-code", "3")))


@mode
async def exit_midbody(call: Call) -> None:
    """Exit with X-Code (3) after half of the answer, whose end X-Framing was to tell: length, chunked, or close."""
    await call.skip_body()
    framing, body = {
        "length": (b"Content-Length: 10\r\n", b"hello"),
        "chunked": (b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n"),
        "close": (b"", b"hello"),
    }[call.header("x-framing", "length")]
    await call.write(b"HTTP/1.1 200 OK\r\n%b\r\n%b" % (framing, body))
    _exit(int(call.header("x-code", "3")))


@mode
async def exit_after_answer(call: Call) -> None:
    """Answer properly and exit X-Seconds (0.2) later, idle."""
    await call.skip_body()
    await call.answer()
    asyncio.get_running_loop().call_later(float(call.header("x-seconds", "0.2")), _exit, 0)


@mode
async def oom(call: Call) -> None:
    """Use memory until the kernel ends it; `kept` grows by touched pages, not by promises."""
    await call.skip_body()
    kept = []
    while True:
        kept.append(b"\1" * (8 << 20))


def _seconds(call: Call) -> float:
    return float(call.header("x-seconds", "1"))


def _exit(code: int) -> None:
    print(f"exiting with {code}", file=sys.stderr, flush=True)
    os._exit(code)


async def _answer_json(call: Call, value: object) -> None:
    await call.answer(json.dumps(value).encode(), Content_Type="application/json")


async def _stream(call: Call, content_type: str, template: str) -> None:
    await call.skip_body()
    await call.write(f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    for number in range(int(call.header("x-chunks", "3"))):
        if number:
            await asyncio.sleep(int(call.header("x-delay-ms", "100")) / 1000)
        text = template.format(number).encode()
        await call.write(b"%x\r\n%b\r\n" % (len(text), text))
    await call.write(b"0\r\n\r\n")


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection, call after call."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while not writer.is_closing() and (request_line := await reader.readline()):
            method, target, _ = request_line.decode("latin-1").split(" ", 2)
            headers = []
            while line := (await reader.readline()).decode("latin-1").strip():
                name, _, value = line.partition(":")
                headers.append((name, value.strip()))
            call = Call(method=method, target=target, headers=headers, reader=reader, writer=writer)
            chosen = call.header("x-mode") or os.environ.get("MODE", "ok")
            await MODES.get(chosen, ok)(call)
    writer.close()


async def start(how: str) -> asyncio.Server | None:
    """Begin to listen in the way that MODE says; None when there is nothing to serve."""
    match how:
        case "exit_before_ready":
            _exit(3)
        case "never_ready":
            return None
        case "slow_ready":  # after SECONDS (2)
            await asyncio.sleep(float(os.environ.get("SECONDS", "2")))
        case "not_a_socket":  # a plain file with the right name
            LISTENER.write_text("not a socket")
            return None
        case "ignore_sigterm":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
    outside = how == "symlink_outside"
    socket = Path("/tmp/outside.sock") if outside else LISTENER.with_name(f"phony-{LISTENER.name}")
    server = await asyncio.start_unix_server(serve, socket, limit=1 << 20)
    socket.chmod(0o666)
    links = {"symlink_outside": "../outside.sock", "absolute_symlink": str(socket)}
    LISTENER.symlink_to(links.get(how, socket.name))
    return server


async def main() -> None:
    """Listen and serve until SIGTERM."""
    # A container's first process ignores signals that it has no handler for.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if server := await start(os.environ.get("MODE", "ok")):
        await server.serve_forever()
    await asyncio.sleep(FOR_EVER_S)


if __name__ == "__main__":
    asyncio.run(main())
