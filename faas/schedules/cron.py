"""When a cron expression is due: five fields or a name such as `@hourly`, in a time zone.

What the clock on the wall does at the ends of summer time decides two things (the rules are Debian cron's):

    the hour field begins with `*`   by elapsed time: no pause and no burst when clocks change
    any other                        by the wall: a time that is skipped fires once, right after the gap; one that
                                     comes twice fires the first time
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["cron_problem", "next_cron", "zone_problem"]

NAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

FIELDS = 5
HOUR = 1

MAX_CHARS = 200
"""Of an expression: the longest that people write list some dozen minutes."""


def cron_problem(expression: str) -> str:
    """What is wrong with an expression, as a sentence; empty when nothing is."""
    from cronsim import CronSimError  # as in `_occurrences`

    form = f"write five fields (minute hour day month weekday) or one of {', '.join(NAMES)}"
    if len(expression) > MAX_CHARS:
        return f"cron: longer than {MAX_CHARS} characters"
    if len(_fields(expression)) != FIELDS:
        return f"cron: {form}"
    try:
        is_ever = next_cron(expression, "UTC", after=datetime(2000, 1, 1, tzinfo=UTC)) is not None
    except CronSimError as error:
        return f"cron: {str(error).lower()}; {form}"
    return "" if is_ever else "cron: it is never due"


def zone_problem(name: str) -> str:
    """What is wrong with the name of a time zone, as a sentence; empty when nothing is."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, no name at all, a folder of them
        return "timezone: no such zone; write an IANA name such as Europe/Berlin"
    return ""


def next_cron(expression: str, zone_name: str, *, after: datetime) -> datetime | None:
    """The first instant after another at which the expression is due, in UTC; None when it never is again.

    Raises `KeyError` when this machine does not know the zone.
    """
    zone = ZoneInfo(zone_name)
    fields = _fields(expression)
    is_by_wall = not fields[HOUR].startswith("*")
    start = after.astimezone(zone)
    # Two passes of the same hour look the same on the wall: the second is behind what was due in the first.
    for local in _occurrences(fields, start.replace(tzinfo=None) if is_by_wall else start):
        due_at = _instant(local, zone) if is_by_wall else local.astimezone(UTC)
        if due_at > after:
            return due_at
    return None


def _fields(expression: str) -> list[str]:
    return NAMES.get(expression.strip().lower(), expression).split()


def _occurrences(fields: list[str], start: datetime) -> Iterator[datetime]:
    # Here and not above: a node without cron schedules does without it.
    from cronsim import CronSim

    occurrences: Iterator[datetime] = CronSim(" ".join(fields), start)
    return occurrences


def _instant(wall: datetime, zone: ZoneInfo) -> datetime:
    """When the wall's clock first shows a time; when it never does, the end of the gap."""
    while True:
        instant = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
        if instant.astimezone(zone).replace(tzinfo=None, fold=0) == wall:
            return instant
        # Gaps begin and end at whole minutes.
        wall += timedelta(minutes=1)
