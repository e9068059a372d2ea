"""A call's log: what its function wrote to standard error, bounded."""

from __future__ import annotations

__all__ = ["LogBuffer"]


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

    def getvalue(self) -> bytes:
        """What was kept, with a last line that says so when something was dropped."""
        if not self.is_truncated:
            return bytes(self._data)
        return bytes(self._data) + b"\n[log truncated: %d bytes dropped]\n" % self.dropped_bytes
