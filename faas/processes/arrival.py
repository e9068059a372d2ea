"""A connection that a satellite has handed over, as it comes to life in the primary."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Arrival"]


class Arrival(asyncio.Protocol):
    """Holds back what the client sends until the protocol has seen what it had sent before.

    The protocol gets the connection in the loop's next round: a transport that has just told of a connection begins to
    read, even when it was told to pause.
    """

    def __init__(self, make: Callable[[], asyncio.Protocol], data: bytes) -> None:
        self._make = make
        self._data = bytearray(data)
        self._is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is here; asyncio calls this."""
        asyncio.get_running_loop().call_soon(self._go_on, cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        """Some more came; asyncio calls this."""
        self._data += data

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone already; asyncio calls this."""
        self._is_lost = True

    def _go_on(self, transport: asyncio.Transport) -> None:
        if self._is_lost:
            return
        protocol = self._make()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(bytes(self._data))
