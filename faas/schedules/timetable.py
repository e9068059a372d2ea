"""When a schedule is due: by its cron expression, or by intervals that do not drift."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from faas.schedules.cron import next_cron

if TYPE_CHECKING:
    from datetime import datetime

    from faas.schedule import Schedule

__all__ = ["first_due", "next_due", "upcoming"]


def first_due(schedule: Schedule, now: datetime) -> datetime | None:
    """When a new or changed schedule is due first; None while it is disabled.

    An interval begins now. Raises `KeyError` when this machine does not know the time zone.
    """
    return next_due(schedule, due_at=now, now=now) if schedule.is_enabled else None


def next_due(schedule: Schedule, *, due_at: datetime, now: datetime) -> datetime | None:
    """When it is due next, after now, having been due at `due_at`; None when never. Raises as `first_due`."""
    if schedule.cron:
        return next_cron(schedule.cron, schedule.timezone, after=now)
    interval = timedelta(seconds=schedule.interval_s)
    # On the grid of the firing before: neither a late firing nor a missed one shifts those to come.
    return due_at + (max(now - due_at, timedelta()) // interval + 1) * interval


def upcoming(schedule: Schedule, count: int) -> list[datetime]:
    """Its next firings, `count` at most. Raises as `first_due`."""
    found: list[datetime] = []
    due_at = schedule.next_at
    while due_at is not None and len(found) < count:
        found.append(due_at)
        due_at = next_due(schedule, due_at=due_at, now=due_at)
    return found
