"""A call's history as a list that only grows, and how far somebody has been told of it.

The list follows from the record alone: any node makes the same one of it at any time, so that a follower who comes
back, wherever, goes on where he was, and nothing is kept for him meanwhile.

    queued | delayed, then of each attempt: running, attempt ended; queued, where the call did not end with it;
    in the end success | error | cancelled
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from faas.errors import InvalidRequestError
from faas.models import CallStatus

if TYPE_CHECKING:
    from datetime import datetime

    from faas.models import Attempt, Call, Reason

__all__ = ["AttemptEnded", "Change", "Position", "StateChange", "changes_of"]

_POSITION = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,12})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far a follower has been told."""

    changes: int = 0
    """How many entries of the history."""
    attempt: int = 0
    """Whose log was told last; the log of each begins anew."""
    log_bytes: int = 0
    """How much of that log."""

    def __str__(self) -> str:
        return f"{self.changes}.{self.attempt}.{self.log_bytes}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The position that `str` wrote; raises `InvalidRequestError`."""
        found = _POSITION.fullmatch(text)
        if found is None:
            raise InvalidRequestError("`Last-Event-ID` is not the id of one of this call's events")
        changes, attempt, log_bytes = map(int, found.groups())
        return cls(changes=changes, attempt=attempt, log_bytes=log_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChange:
    """The call came into a state."""

    status: CallStatus
    at: datetime | None
    """None when the record does not say."""
    attempt: int = 0
    """Of `running`: which."""
    reason: Reason | None = None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEnded:
    """An attempt ended, in whatever way; its evidence is complete."""

    attempt: Attempt


Change = StateChange | AttemptEnded


def changes_of(call: Call) -> list[Change]:
    """All that the record says has happened, oldest first."""
    is_delayed = call.not_before is not None and call.not_before > call.created_at
    first = CallStatus.DELAYED if is_delayed else CallStatus.QUEUED
    changes: list[Change] = [StateChange(status=first, at=call.created_at)]
    for attempt in call.attempts:
        if attempt.completed_at is None and call.status is not CallStatus.RUNNING and not call.status.is_final:
            break  # it has begun for the database, and waits for its container
        changes.append(StateChange(status=CallStatus.RUNNING, at=attempt.started_at, attempt=attempt.number))
        if attempt.completed_at is None:
            break
        changes.append(AttemptEnded(attempt=attempt))
        # One that waits after an attempt may still end otherwise than that did: cancelled, expired.
        if attempt.number < call.attempt or not call.status.is_final or attempt.reason is not call.reason:
            changes.append(StateChange(status=CallStatus.QUEUED, at=attempt.completed_at))
    if not call.attempts and call.status is CallStatus.RUNNING:
        # A sync call's attempt is written when it has ended.
        changes.append(StateChange(status=CallStatus.RUNNING, at=call.started_at, attempt=call.attempt))
    if call.status.is_final:
        changes.append(StateChange(status=call.status, at=call.completed_at, reason=call.reason, error=call.error))
    return changes
