"""A call's log: what its function wrote to standard error, bounded."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from faas.runner.invocation import Invocation

__all__ = ["LogBuffer", "share_out", "write_log"]

_CALL_ID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


class LogBuffer:
    """Keeps the first `limit_bytes`; what comes after is counted and dropped."""

    __slots__ = ("_data", "dropped_bytes", "limit_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.dropped_bytes = 0
        self._data = bytearray()

    def __bool__(self) -> bool:
        return bool(self._data)

    def append(self, data: bytes) -> None:
        """Add what still fits."""
        room = self.limit_bytes - len(self._data)
        if len(data) > room:
            self.dropped_bytes += len(data) - room
            data = data[:room]
        self._data += data

    @property
    def is_truncated(self) -> bool:
        """Whether anything was dropped."""
        return self.dropped_bytes > 0

    def part(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes of what was kept, from `offset` on."""
        return bytes(self._data[offset : offset + size])

    def getvalue(self) -> bytes:
        """What was kept, with a last line that says so when something was dropped."""
        if not self.is_truncated:
            return bytes(self._data)
        return bytes(self._data) + b"\n[log truncated: %d bytes dropped]\n" % self.dropped_bytes


def write_log(invocation: Invocation, log: LogBuffer, data: bytes) -> None:
    """Add to a call's log, and tell who follows the call."""
    log.append(data)
    if invocation.watcher is not None:
        invocation.watcher()


def share_out(data: bytes, calls: Sequence[Invocation], log_of: Callable[[Invocation], LogBuffer]) -> None:
    """Log lines of a container that runs several calls: a line that holds the id of one of them is that call's.

    Any other line may be about any of them, so that all get it.
    """
    by_id = {call.id.encode(): call for call in calls}
    for line in data.splitlines(keepends=True):
        named = {by_id[match] for match in _CALL_ID.findall(line) if match in by_id}
        for call in named or calls:
            write_log(call, log_of(call), line)
