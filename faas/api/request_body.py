"""A request body that goes to its function while it arrives."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from faas.api.dataplane import FaasProtocol

__all__ = ["FEW_PIECES", "STREAM_BYTES", "RequestBody"]

STREAM_BYTES = 64 * 1024
"""A longer body goes to the function while it arrives; a shorter one is complete before the call begins."""

MAX_BUFFERED_BYTES = 256 * 1024
"""Of a body that its function is slow to take; as much as one read brings, so that only a slow function's client is
paused: to pause and to resume are a system call each."""

FEW_PIECES = 16
"""So many pieces of a body are handed on as they came. More that came at once are small, and are put together first:
somebody who sends chunks of a byte each must not keep the event loop busy."""


class RequestBody:
    """A request body on its way from the client to the function, with back-pressure on the client.

    It simply stops coming when the client hangs up or the body grows too large: the call is stopped then, and with it
    whoever reads here.
    """

    def __init__(self, protocol: FaasProtocol) -> None:
        self._protocol = protocol
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._is_ended = False
        self._changed: asyncio.Future[None] | None = None
        self.total = len(protocol.cycle.body)

    def feed(self, data: bytes) -> None:
        """Some more of it came."""
        self.total += len(data)
        self._chunks.append(data)
        self._buffered += len(data)
        if self._buffered > MAX_BUFFERED_BYTES:
            self._protocol.flow.pause_reading()
        self._wake()

    def end(self) -> None:
        """That was all."""
        self._is_ended = True
        self._wake()

    def _wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    def _take(self) -> bytes:
        if len(self._chunks) > FEW_PIECES:
            data = b"".join(self._chunks)
            self._chunks.clear()
        else:
            data = self._chunks.popleft()
        self._buffered -= len(data)
        if self._buffered <= STREAM_BYTES:
            self._protocol.resume_body()
        return data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            while self._chunks:
                yield self._take()
            if self._is_ended:
                return
            self._changed = asyncio.get_running_loop().create_future()
            await self._changed
