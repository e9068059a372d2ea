"""Identifiers: time-ordered UUIDs (RFC 9562, version 7), so that an id says when it was made and sorts by age."""

from __future__ import annotations

import random
import time
import uuid
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["created_at_of", "is_call_id", "new_id"]

_getrandbits = random.Random(random.SystemRandom().getrandbits(128)).getrandbits  # noqa: S311 - unique, not secret

_recent: tuple[int, str, Iterator[int]] = (0, "", iter(()))
"""The latest millisecond that had an id, how its ids begin, and what numbers them."""


def new_id() -> str:
    """A new UUIDv7 in its canonical text form (36 characters); unique, but no secret.

    48 bits of Unix milliseconds, then 74 that are random for the first id of a millisecond and count up from there (RFC
    9562 section 6.2, method 2): ids of one process sort in the order they were made, and all but the first of a
    millisecond take a third of a microsecond. Every call needs one.
    """
    global _recent  # noqa: PLW0603 - one assignment, so that threads see all of it or nothing
    millis = time.time_ns() // 1_000_000
    recent = _recent
    if millis != recent[0]:
        # The counter begins in the lower half of the last group, which it can't leave.
        bits = _getrandbits(26)
        prefix = f"{millis >> 16:08x}-{millis & 0xFFFF:04x}-7{bits & 0xFFF:03x}-{0x8000 | bits >> 12:04x}-"
        recent = _recent = (millis, prefix, count(_getrandbits(47)))
    return f"{recent[1]}{next(recent[2]):012x}"


def is_call_id(text: str) -> bool:
    """Whether the text is a canonical UUIDv7."""
    try:
        parsed = uuid.UUID(text)
    except ValueError:
        return False
    return parsed.version == 7 and str(parsed) == text


def created_at_of(call_id: str) -> datetime:
    """The instant at which an id was made; the text must be one (`is_call_id`)."""
    return datetime.fromtimestamp(int(call_id[:8] + call_id[9:13], 16) / 1000, UTC)
