"""What a caller may say of an async call in its request's headers: when it may begin, how urgent it is, how long the
answer may take.

    X-Delay: seconds                 begin so long after the submission, or
    X-Not-Before: RFC 3339           not before an instant
    X-Expires: seconds               when it has not begun so long after the submission, it never will
    X-Priority: 0, 1 or 2            2 goes first; IronFunctions' range
    Prefer: respond-async, wait=N    answer with the result, if that comes within N seconds (RFC 7240)

These headers mean something on async calls only. The function gets them, too, as it gets all headers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from faas.errors import InvalidRequestError
from faas.queue.base import MAX_PRIORITY
from faas.webhooks import url_problem

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NO_OPTIONS", "SubmissionOptions", "submission_options", "wait_preference_s"]

MAX_DELAY_S = 30 * 86400
"""Longest time ahead; a month's mistake in a header should not hold a call for a year."""

MAX_WAIT_S = 300
"""Longest wait for a result in one answer, as of `?wait=`; who prefers more gets this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmissionOptions:
    """What one caller said."""

    priority: int = 0
    not_before: datetime | None = None
    expires_at: datetime | None = None
    callback_url: str = ""
    """Who is told of the call's end; empty: whom the route says."""


NO_OPTIONS = SubmissionOptions()
"""Of who says nothing."""

_NAMES = (b"x-delay", b"x-not-before", b"x-expires", b"x-priority", b"x-callback-url")


def submission_options(fields: Mapping[bytes, bytes], now: datetime) -> SubmissionOptions:
    """Read the headers of a request that comes `now`; `InvalidRequestError` for one that can't be obeyed."""
    if not any(name in fields for name in _NAMES):
        return NO_OPTIONS
    delay_s = _seconds(fields, "X-Delay")
    not_before = _instant(fields, "X-Not-Before", now)
    if delay_s is not None:
        if not_before is not None:
            raise InvalidRequestError("X-Delay and X-Not-Before say the same in two ways: give one of them")
        not_before = now + timedelta(seconds=delay_s)
    expires_s = _seconds(fields, "X-Expires")
    expires_at = None if expires_s is None else now + timedelta(seconds=expires_s)
    if expires_at is not None and expires_at <= max(now, not_before or now):
        raise InvalidRequestError("X-Expires passes before the call may begin; give more seconds")
    return SubmissionOptions(
        priority=_priority(fields),
        not_before=not_before,
        expires_at=expires_at,
        callback_url=_callback_url(fields),
    )


def wait_preference_s(prefer: bytes) -> int:
    """The seconds of `Prefer: wait=N`; 0 when there is none, or none that can be understood: preferences are no orders
    (RFC 7240 section 2)."""
    for preference in prefer.split(b","):
        name, _, value = preference.partition(b";")[0].partition(b"=")
        digits = value.strip().strip(b'"')
        if name.strip().lower() == b"wait" and digits.isdigit():
            # By length first: int() takes its time for thousands of digits.
            return MAX_WAIT_S if len(digits) > len(str(MAX_WAIT_S)) else min(int(digits), MAX_WAIT_S)
    return 0


def _text(fields: Mapping[bytes, bytes], name: str) -> str | None:
    value = fields.get(name.lower().encode())
    return None if value is None else value.decode("latin-1").strip()


def _seconds(fields: Mapping[bytes, bytes], name: str) -> float | None:
    text = _text(fields, name)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= MAX_DELAY_S:
        raise InvalidRequestError(f"{name} must be a number of seconds from 0 to {MAX_DELAY_S}, not {text!r}")
    return seconds


def _instant(fields: Mapping[bytes, bytes], name: str, now: datetime) -> datetime | None:
    text = _text(fields, name)
    if text is None:
        return None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise InvalidRequestError(f"{name} must be an RFC 3339 time such as 2030-01-31T08:00:00Z, not {text!r}")
    if (instant - now).total_seconds() > MAX_DELAY_S:
        raise InvalidRequestError(f"{name} must not be more than {MAX_DELAY_S} s ahead")
    return instant


def _priority(fields: Mapping[bytes, bytes]) -> int:
    text = _text(fields, "X-Priority")
    if text is None:
        return 0
    if text not in {str(priority) for priority in range(MAX_PRIORITY + 1)}:
        raise InvalidRequestError(f"X-Priority must be a whole number from 0 to {MAX_PRIORITY}, not {text!r}")
    return int(text)


def _callback_url(fields: Mapping[bytes, bytes]) -> str:
    text = _text(fields, "X-Callback-Url")
    if text is None:
        return ""
    if problem := url_problem(text):
        raise InvalidRequestError(f"X-Callback-Url {problem}")
    return text
