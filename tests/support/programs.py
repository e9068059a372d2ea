"""Programs for the in-process executor: functions of each format, in a few lines each."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.inprocess import Process, Program

__all__ = ["FunctionRequest", "Handler", "answer", "hang", "http_stream", "listening_socket", "on_socket", "stdio_http"]

SOCKET_NAME = "lsnr.sock"
PHONY_NAME = "phonylsnr.sock"


@dataclass(frozen=True)
class FunctionRequest:
    """One call, as its function reads it."""

    head: bytes
    body: bytes
    connection: int
    """Which connection of the container it came on, from 1."""

    @property
    def headers(self) -> dict[str, str]:
        """By name as it was spelled; of repeated ones the last."""
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return dict(line.split(": ", 1) for line in lines if line)


Handler = Callable[[FunctionRequest], Awaitable[bytes]]
"""Gives the bytes of the answer, head and all; b"" breaks the connection off."""


class _Writer(Protocol):
    def write(self, data: bytes) -> None: ...


def answer(body: bytes = b"", status: int = 200, *headers: str) -> bytes:
    """An answer with a length."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def hang(_request: FunctionRequest) -> bytes:
    """Never answer."""
    await asyncio.Event().wait()
    return b""


def listening_socket(folder: Path, name: str, *, backlog: int = 100) -> socket.socket:
    """A listening Unix socket; pytest's folders have longer names than such a socket may have."""
    fd = os.open(folder, os.O_PATH)
    try:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"/proc/self/fd/{fd}/{name}")
        listener.listen(backlog)
    finally:
        os.close(fd)
    return listener


def http_stream(handler: Handler, *, pieces: int = 1, backlog: int = 100) -> Program:
    """A function of Fn's contract: listens under another name, then links to it; answers in so many pieces."""
    return on_socket(
        lambda reader, writer, connection: _serve(reader, writer, handler, connection, pieces), backlog=backlog
    )


def on_socket(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]], *, backlog: int = 100
) -> Program:
    """A function of Fn's contract that does what it likes with its connections, which are counted from 1."""

    async def program(process: Process) -> None:
        assert process.socket_dir is not None
        numbers = itertools.count(1)
        tasks: set[asyncio.Task[Any]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                if is_ending:
                    return  # accepted by a process that was dead before it could know
                await serve(reader, writer, next(numbers))
            except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass
            finally:
                tasks.discard(task)
                # A program that is being killed says nothing more, one that has returned has said all.
                writer.transport.abort() if is_ending else writer.close()

        is_ending = False
        listener = listening_socket(process.socket_dir, PHONY_NAME, backlog=backlog)
        server = await asyncio.start_unix_server(connected, sock=listener, start_serving=False, backlog=backlog)
        try:
            await server.start_serving()
            (process.socket_dir / SOCKET_NAME).symlink_to(PHONY_NAME)
            await asyncio.Event().wait()
        finally:
            is_ending = True
            for task in tasks:
                task.cancel()
            # asyncio forgets to close what it has accepted, and not yet served, when the server closes.
            asyncio.get_running_loop().remove_reader(listener)
            try:
                await asyncio.sleep(0)
            finally:
                server.close()

    return program


def stdio_http(handler: Handler, *, pieces: int = 1) -> Program:
    """A function of IronFunctions' hot contract: HTTP over its standard streams; answers in so many pieces."""

    async def program(process: Process) -> None:
        await _serve(process.stdin, process, handler, 1, pieces)

    return program


async def _serve(reader: asyncio.StreamReader, writer: _Writer, handler: Handler, connection: int, pieces: int) -> None:
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return
        body = await _body(head, reader)
        reply = await handler(FunctionRequest(head[:-4], body, connection))
        if not reply:
            return
        size = -(-len(reply) // pieces)
        for start in range(0, len(reply), size):
            if start:
                await asyncio.sleep(0)
            writer.write(reply[start : start + size])


async def _body(head: bytes, reader: asyncio.StreamReader) -> bytes:
    lines = head.lower().split(b"\r\n")
    if b"transfer-encoding: chunked" in lines:
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
        return body
    length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:"))
    return await reader.readexactly(length)
