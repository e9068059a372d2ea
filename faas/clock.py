"""The one room that reads clocks: instants are aware UTC datetimes, durations come from the monotonic clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime

__all__ = ["monotonic", "utc_now"]

monotonic = time.monotonic


def utc_now() -> datetime:
    """The present instant, aware, in UTC."""
    return datetime.now(UTC)
