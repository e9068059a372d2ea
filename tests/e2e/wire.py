"""HTTP/1.1 byte by byte, for what an HTTP client would hide."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Answer", "Wire"]

TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer; header names in lower case."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


class Wire:
    """A connection on which a test says exactly what is sent."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host = f"{parts.hostname}:{parts.port}"
        self._address = parts.hostname, parts.port
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection(*self._address)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def request(self, line: str, *headers: str, body: bytes = b"", version: str = "HTTP/1.1") -> None:
        """Send a request as it is given; a body gets its Content-Length."""
        await self.send(self.encode(line, *headers, body=body, version=version))

    def encode(self, line: str, *headers: str, body: bytes = b"", version: str = "HTTP/1.1") -> bytes:
        """The bytes of a request."""
        length = [f"Content-Length: {len(body)}"] if body else []
        return "\r\n".join([f"{line} {version}", f"Host: {self.host}", *headers, *length, "", ""]).encode() + body

    async def head(self) -> Answer:
        """The next answer's status and headers, its body unread."""
        async with asyncio.timeout(TIMEOUT_S):
            text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status_line, *lines = text.strip().split("\r\n")
        pairs = (line.partition(":") for line in lines)
        headers = [(name.lower(), value.strip()) for name, _, value in pairs]
        return Answer(status=int(status_line.split()[1]), headers=headers)

    async def answer(self, *, to_head: bool = False) -> Answer:
        """The next answer; `to_head` says that a HEAD was asked."""
        head = await self.head()
        async with asyncio.timeout(TIMEOUT_S):
            body = b"" if to_head or head.status in (204, 304) else await self._body(head)
        return Answer(status=head.status, headers=head.headers, body=body)

    async def take(self, count: int) -> bytes:
        """So many bytes of an answer, as they are on the wire."""
        async with asyncio.timeout(TIMEOUT_S):
            return await self.reader.readexactly(count)

    async def ends_cleanly(self) -> bool:
        """Whether the next answer ends as its head says it would; an error is an answer, too."""
        try:
            await self.answer()
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            return False
        return True

    async def is_closed(self) -> bool:
        """Whether the node closes the connection without a further byte."""
        async with asyncio.timeout(TIMEOUT_S):
            return await self.reader.read() == b""

    async def _body(self, head: Answer) -> bytes:
        if "chunked" in (head.header("transfer-encoding") or ""):
            body = b""
            while size := int(await self.reader.readline(), 16):
                body += await self.reader.readexactly(size)
                assert await self.reader.readexactly(2) == b"\r\n"
            assert await self.reader.readline() == b"\r\n"
            return body
        length = head.header("content-length")
        return await self.reader.read() if length is None else await self.reader.readexactly(int(length))
