"""The one room that reads clocks: instants are aware UTC datetimes, durations come from the monotonic clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime

__all__ = ["monotonic", "unix_s", "utc_now"]

monotonic = time.monotonic
unix_s = time.time
"""Seconds since 1970: a third of the price of `utc_now`, for what every call asks."""


def utc_now() -> datetime:
    """The present instant, aware, in UTC."""
    return datetime.now(UTC)
