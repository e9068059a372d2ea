"""The rules by which schedules are made and changed."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from faas.clock import utc_now
from faas.errors import ValidationError
from faas.models import clean_path
from faas.queue.base import MAX_PRIORITY
from faas.schedule import MissedPolicy, OverlapPolicy, Schedule
from faas.schedules.cron import cron_problem, zone_problem
from faas.schedules.timetable import first_due
from faas.wire.headers import HOP_BY_HOP

if TYPE_CHECKING:
    from collections.abc import Callable

    from faas.store.schedules import ScheduleRecords

__all__ = ["MAX_INTERVAL_S", "SchedulePatch", "Schedules"]

MAX_INTERVAL_S = 366 * 86_400
"""A year: what is rarer is meant by the calendar, and cron says that."""

MAX_BODY_BYTES = 256 * 1024
"""Of a schedule's request: it is read and stored anew for each firing."""

MAX_HEADER_BYTES = 16 * 1024

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_HEADER_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulePatch:
    """What a client said about a schedule; `None` means "not said"."""

    path: str | None = None
    cron: str | None = None
    interval_s: int | None = None
    timezone: str | None = None
    method: str | None = None
    headers: tuple[tuple[bytes, bytes], ...] | None = None
    body: bytes | None = None
    priority: int | None = None
    is_enabled: bool | None = None
    missed: MissedPolicy | None = None
    overlap: OverlapPolicy | None = None

    def merged_into(self, schedule: Schedule) -> Schedule:
        """The schedule with this patch applied, not yet validated: an expression replaces an interval, and the other
        way round."""
        changes = {item.name: value for item in fields(self) if (value := getattr(self, item.name)) is not None}
        if self.path is not None:
            changes["path"] = clean_path(self.path)
        if self.cron and self.interval_s is None:
            changes["interval_s"] = 0
        if self.interval_s and self.cron is None:
            changes["cron"] = ""
        return replace(schedule, **changes)


class Schedules:
    """Schedules: read from the store, changed by the rules, told to this node's scheduler."""

    def __init__(self, records: ScheduleRecords, *, wake: Callable[[], None]) -> None:
        self._records = records
        self._wake = wake

    async def list(self, app_name: str) -> list[Schedule]:
        """An app's, by name; raises `AppNotFoundError`."""
        return await self._records.list(app_name)

    async def get(self, app_name: str, name: str) -> Schedule:
        """One schedule; raises `AppNotFoundError`, `ScheduleNotFoundError`."""
        return await self._records.get(app_name, name)

    async def create(self, app_name: str, name: str, patch: SchedulePatch) -> Schedule:
        """A new schedule; an interval begins now.

        Raises `ValidationError`, `AppNotFoundError`, `RouteNotFoundError`, `ScheduleExistsError`.
        """
        schedule = patch.merged_into(Schedule(app_name=app_name, name=name))
        _check(schedule)
        stored = await self._records.insert(replace(schedule, next_at=first_due(schedule, utc_now())))
        self._wake()
        return stored

    async def update(self, app_name: str, name: str, patch: SchedulePatch) -> Schedule:
        """Merge a patch into a schedule; it is due anew when that changes when it is due, or enables it.

        Raises as `create` and `get`.
        """

        def change(present: Schedule) -> Schedule:
            changed = patch.merged_into(present)
            _check(changed)
            if _timing(changed) == _timing(present):
                return changed
            return replace(changed, next_at=first_due(changed, utc_now()))

        stored = await self._records.update(app_name, name, change)
        self._wake()
        return stored

    async def delete(self, app_name: str, name: str) -> None:
        """Forget a schedule; calls that it has made stay. Raises as `get`."""
        await self._records.delete(app_name, name)


def _timing(schedule: Schedule) -> tuple[object, ...]:
    return schedule.cron, schedule.interval_s, schedule.timezone, schedule.is_enabled


def _check(schedule: Schedule) -> None:
    problems = [*_timing_problems(schedule), *_request_problems(schedule)]
    if not _NAME.match(schedule.name):
        problems.insert(0, "name: 1 to 64 letters, digits, `_` and `-`")
    if not schedule.path:
        problems.append("path: missing; it is the route's that is to be called")
    if not 0 <= schedule.priority <= MAX_PRIORITY:
        problems.append(f"priority: must be 0 to {MAX_PRIORITY}")
    if problems:
        raise ValidationError(problems)


def _timing_problems(schedule: Schedule) -> list[str]:
    if bool(schedule.cron) == bool(schedule.interval_s):
        return ["say when: either `cron` or `interval_s`"]
    if not schedule.cron and not 1 <= schedule.interval_s <= MAX_INTERVAL_S:
        return [f"interval_s: must be 1 to {MAX_INTERVAL_S}"]
    problems = [zone_problem(schedule.timezone), cron_problem(schedule.cron) if schedule.cron else ""]
    return [problem for problem in problems if problem]


def _request_problems(schedule: Schedule) -> list[str]:
    problems = []
    if not _TOKEN.match(schedule.method.encode()):
        problems.append("request.method: not a method's name")
    if len(schedule.body) > MAX_BODY_BYTES:
        problems.append(f"request.body: larger than {MAX_BODY_BYTES} bytes")
    if sum(len(name) + len(value) for name, value in schedule.headers) > MAX_HEADER_BYTES:
        problems.append(f"request.headers: larger than {MAX_HEADER_BYTES} bytes")
    for name, value in schedule.headers:
        text = name.decode("latin-1")
        if not _TOKEN.match(name):
            problems.append(f"request.headers: {text!r} is no header's name")
        elif name in HOP_BY_HOP or name == b"content-length":
            problems.append(f"request.headers: {text} belongs to a connection")
        elif not _HEADER_VALUE.match(value):
            problems.append(f"request.headers: {text} has a value that no header can have")
    return problems
