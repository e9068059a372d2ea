"""Whether the peer of a connection has hung up, asked of the kernel: an event loop only tells who reads."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

__all__ = ["has_hung_up"]


def has_hung_up(transport: asyncio.Transport) -> bool:
    """Whether the peer has closed its side, or the connection broke; what it sent before may still wait to be read."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))
