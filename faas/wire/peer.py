"""What the kernel knows of the other side of a connection, and an event loop does not tell."""

from __future__ import annotations

import select
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

__all__ = ["has_hung_up", "is_dying"]

_CREDENTIALS = struct.Struct("iII")
"""`struct ucred`: process, user, group (unix(7))."""

_PF_EXITING = 0x4
"""Set for a process before any of its files is closed (Linux, `do_exit`)."""


def has_hung_up(transport: asyncio.BaseTransport) -> bool:
    """Whether the peer has closed its side, or the connection broke; what it sent before may still wait to be read.

    The event loop only tells who reads.
    """
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))


def is_dying(transport: asyncio.BaseTransport) -> bool:
    """Whether the process that listened for this connection has begun to end; False where that can't be known.

    To be asked when the connection ends, but not yet closed: a process that closes a connection looks the same as one
    that was killed, otherwise. Only of Unix sockets the kernel knows the peer.
    """
    peer = transport.get_extra_info("socket")
    if peer is None or peer.family != socket.AF_UNIX:
        return False
    pid, _, _ = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    if not pid:
        return False  # it is in a namespace of processes that can't be seen from ours
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    state, *_, flags = stat.rpartition(")")[2].split()[:7]  # what is before is its name, which may hold anything
    return state in "ZX" or bool(int(flags) & _PF_EXITING)
