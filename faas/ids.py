"""Identifiers: time-ordered UUIDs (RFC 9562, version 7), so that an id says when it was made and sorts by age."""

from __future__ import annotations

import random
import time
import uuid
from datetime import UTC, datetime

__all__ = ["created_at_of", "is_call_id", "new_id"]

_random = random.Random(random.SystemRandom().getrandbits(128))  # noqa: S311 - ids are unique, not secret
_getrandbits = _random.getrandbits


def new_id() -> str:
    """A new UUIDv7 in its canonical text form (36 characters).

    48 bits of Unix milliseconds, 74 random bits; about a microsecond, because every call needs one.
    """
    millis = time.time_ns() // 1_000_000
    bits = _getrandbits(74)
    return (
        f"{millis >> 16:08x}-{millis & 0xFFFF:04x}-7{bits & 0xFFF:03x}"
        f"-{0x8000 | (bits >> 12 & 0x3FFF):04x}-{bits >> 26:012x}"
    )


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
