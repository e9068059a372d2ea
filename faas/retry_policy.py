"""When a failed async call runs again, as its route says."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "DEFAULT_BACKOFF",
    "DEFAULT_DELAY_S",
    "DEFAULT_JITTER",
    "DEFAULT_MAX_DELAY_S",
    "MAX_DELAY_S",
    "MAX_RETRIES",
    "RETRYABLE_REASONS",
    "Backoff",
    "RetryPolicy",
]

RETRYABLE_REASONS = (
    "timeout",
    "oom",
    "bad_exit",
    "killed",
    "protocol",
    "start_failed",
    "image_not_found",
    "no_capacity",
    "internal",
)
"""Every reason of a failed call but `client_request`: what the caller asked for wrongly, or took back, stays so."""

MAX_RETRIES = 100
MAX_DELAY_S = 86_400.0
"""A day; who wants to wait longer wants a schedule."""

FIRST_ERROR_STATUS = 400
LAST_ERROR_STATUS = 599

DEFAULT_DELAY_S = 1.0
DEFAULT_MAX_DELAY_S = 300.0
DEFAULT_JITTER = 0.5
"""Half of each delay is drawn: calls that failed together do not come back together."""


class Backoff(StrEnum):
    """How the delay grows from one retry to the next."""

    FIXED = "fixed"
    EXPONENTIAL = "exponential"


DEFAULT_BACKOFF = Backoff.EXPONENTIAL


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """A route's word on its failed async calls. A call that the platform lost runs again without one."""

    max_retries: int
    """Attempts after the first one that failed by itself."""
    backoff: Backoff = DEFAULT_BACKOFF
    delay_s: float = DEFAULT_DELAY_S
    """Before the first retry."""
    max_delay_s: float = DEFAULT_MAX_DELAY_S
    jitter: float = DEFAULT_JITTER
    """Which share of a delay is drawn at random, 0 to 1; no delay gets longer by it."""
    on: tuple[str | int, ...] = RETRYABLE_REASONS
    """Reasons, and statuses that a sync caller would have got."""

    def problems(self) -> list[str]:
        """What is wrong with it, a sentence each."""
        problems = []
        if not 1 <= self.max_retries <= MAX_RETRIES:
            problems.append(f"retries.max: {self.max_retries} asked, 1 to {MAX_RETRIES} are allowed; null is none")
        for name, value in (("delay_s", self.delay_s), ("max_delay_s", self.max_delay_s)):
            if not 0 <= value <= MAX_DELAY_S:
                problems.append(f"retries.{name}: {value:g} asked, 0 to {MAX_DELAY_S:g} is allowed")
        if self.max_delay_s < self.delay_s:
            problems.append(f"retries.max_delay_s: {self.max_delay_s:g} is less than delay_s, {self.delay_s:g}")
        if not 0 <= self.jitter <= 1:
            problems.append(f"retries.jitter: {self.jitter:g} asked, 0 to 1 is allowed")
        if not self.on:
            problems.append("retries.on: empty, so that nothing would be retried; leave it out for every failure")
        problems += [
            f"retries.on: {cause!r} is no error status ({FIRST_ERROR_STATUS} to {LAST_ERROR_STATUS}) and none of "
            + ", ".join(RETRYABLE_REASONS)
            for cause in self.on
            if not _is_cause(cause)
        ]
        return problems

    def delay_after(self, retries: int, draw: float) -> float:
        """Seconds until the next retry of a call that had so many; `draw` is 0 to 1, at random."""
        delay_s = self.delay_s
        if self.backoff is Backoff.EXPONENTIAL:
            delay_s = math.ldexp(delay_s, retries)
        return min(delay_s, self.max_delay_s) * (1 - self.jitter * draw)

    def to_json(self) -> dict[str, Any]:
        """As the API and the database write it."""
        return {
            "max": self.max_retries,
            "backoff": self.backoff.value,
            "delay_s": self.delay_s,
            "max_delay_s": self.max_delay_s,
            "jitter": self.jitter,
            "on": list(self.on),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RetryPolicy:
        """From what `to_json` made."""
        return cls(
            max_retries=value["max"],
            backoff=Backoff(value["backoff"]),
            delay_s=value["delay_s"],
            max_delay_s=value["max_delay_s"],
            jitter=value["jitter"],
            on=tuple(value["on"]),
        )


def _is_cause(cause: str | int) -> bool:
    if isinstance(cause, int):
        return FIRST_ERROR_STATUS <= cause <= LAST_ERROR_STATUS
    return cause in RETRYABLE_REASONS
