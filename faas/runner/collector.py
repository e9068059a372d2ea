"""The sink of a call that nobody waits for: keeps the answer, up to a limit."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from faas.models import CallResult

if TYPE_CHECKING:
    from faas.errors import FaasError
    from faas.runner.invocation import Invocation
    from faas.wire.headers import Headers

__all__ = ["Collector"]


class Collector:
    """The sink of an async call: keeps the answer, up to a limit."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._status = 0
        self._headers: Headers = []
        self._body = bytearray()
        self._is_truncated = False
        self.error: FaasError | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # --- Sink

    def start(self, invocation: Invocation, status: int, headers: Headers, content_length: int | None) -> None:
        """The answer's head; the route's own headers are over the function's."""
        self._status = status
        own = [header for header in headers if header[0] != b"faas-error"]  # the platform's word, and nobody else's
        self._headers = invocation.function.add_headers(own)

    def write(self, data: bytes) -> None:
        """Keep what still fits."""
        room = self._max_bytes - len(self._body)
        if len(data) > room:
            self._is_truncated = True
            data = data[:room]
        self._body += data

    def flush(self) -> None:
        """Nobody waits for the parts."""

    async def drain(self) -> None:
        """It is never slow."""

    def finish(self, invocation: Invocation) -> None:
        """The answer is complete."""
        self.ended.set_result(None)

    def fail(self, invocation: Invocation, error: FaasError) -> None:
        """There is no answer."""
        self.error = error
        self.ended.set_result(None)

    def result(self) -> CallResult:
        """The answer, once `ended` is done and there is no `error`."""
        return CallResult(
            status_code=self._status,
            headers=tuple(self._headers),
            body=bytes(self._body),
            is_truncated=self._is_truncated,
        )
