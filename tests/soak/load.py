"""Calls as fast as a few connections carry them, and connections as fast as they can be opened and closed."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

import uvloop

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["call_warm"]

BODY_BYTES = 11
TIMEOUT_S = 600.0
"""For what hangs; the machine may be very busy."""


def call_warm(url: str, *, calls: int, connections: int) -> float:
    """POST to an echo function, one call after the other on each connection; returns how many were done a second.

    Raises when an answer is not the 200 with the body that was sent.
    """
    began = time.monotonic()
    uvloop.run(_call(url, calls, connections))
    return calls / (time.monotonic() - began)


async def _call(url: str, calls: int, connections: int) -> None:
    parts = urlsplit(url)
    numbers = iter(range(calls))
    loop = asyncio.get_running_loop()
    callers = [_Caller(parts.path, numbers) for _ in range(connections)]
    for caller in callers:
        await loop.create_connection(lambda caller=caller: caller, parts.hostname, parts.port)  # type: ignore[misc]
    async with asyncio.timeout(TIMEOUT_S):
        await asyncio.gather(*(caller.ended for caller in callers))


class _Caller(asyncio.Protocol):
    """One connection: callbacks, because with streams the load would take longer than the node."""

    def __init__(self, path: str, numbers: Iterator[int]) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (path.encode(), BODY_BYTES)
        self._numbers = numbers
        self._transport: asyncio.WriteTransport
        self._body = b""
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        self._call()

    def _call(self) -> None:
        number = next(self._numbers, None)
        if number is None:
            self.ended.set_result(None)
            self._transport.close()
            return
        self._body = b"%0*d" % (BODY_BYTES, number)
        self._answer = b""
        self._transport.write(self._head + self._body)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head_end = self._answer.find(b"\r\n\r\n") + 4
        if head_end < 4 or len(self._answer) < head_end + BODY_BYTES:
            return
        if self._answer.startswith(b"HTTP/1.1 200 ") and self._answer[head_end:] == self._body:
            self._call()
        else:
            self._fail(f"not the answer to {self._body!r}: {self._answer!r}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the node closed a connection: {exc}")

    def _fail(self, problem: str) -> None:
        if not self.ended.done():
            self.ended.set_exception(AssertionError(problem))
        self._transport.close()
