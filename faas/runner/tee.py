"""The sink of a call whose answer goes to its caller and is kept, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from faas.errors import FaasError
    from faas.runner.collector import Collector
    from faas.runner.invocation import Invocation, Sink
    from faas.wire.headers import Headers

__all__ = ["Tee"]


class Tee:
    """Gives everything to the caller's sink first, which alone may refuse it, and then to the collector."""

    def __init__(self, caller: Sink, collector: Collector) -> None:
        self._caller = caller
        self._collector = collector

    def start(self, invocation: Invocation, status: int, headers: Headers, content_length: int | None) -> None:
        """The answer's head."""
        self._caller.start(invocation, status, headers, content_length)
        self._collector.start(invocation, status, headers, content_length)

    def write(self, data: bytes) -> None:
        """Some of its body."""
        self._caller.write(data)
        self._collector.write(data)

    def flush(self) -> None:
        """Only the caller is interested in parts."""
        self._caller.flush()

    async def drain(self) -> None:
        """At the caller's pace."""
        await self._caller.drain()

    def finish(self, invocation: Invocation) -> None:
        """The answer is complete."""
        self._caller.finish(invocation)
        self._collector.finish(invocation)

    def fail(self, invocation: Invocation, error: FaasError) -> None:
        """There is no complete answer."""
        self._caller.fail(invocation, error)
        self._collector.fail(invocation, error)
