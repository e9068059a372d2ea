"""Fires what is due, each firing once however many nodes look at the same database.

    sleep until the next one is due, or a schedule changes
      -> for each that is due: leave it out (missed, overlap), or accept its call
         either way `next_at` moves on by one conditional UPDATE: of all nodes that see it due, one makes the change

The call is accepted in the transaction that moves `next_at`, so a node that dies has either not fired, and another one
does, or fired, and the call is on disk for the sweeper to dispatch. Which firings there are is the database's to know;
this clock only says which are due: set back, it repeats none, set forward, what it jumped over is late or missed.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from faas.clock import utc_now
from faas.errors import FaasError
from faas.schedule import MissedPolicy, OverlapPolicy
from faas.schedules.timetable import next_due

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from faas.models import Call
    from faas.schedule import Schedule
    from faas.store.schedules import ScheduleRecords

__all__ = ["Scheduler"]

logger = logging.getLogger(__name__)

MAX_SLEEP_S = 5.0
"""Within so long are noticed: a clock that was set, and the schedules that a node made which then died."""

RETRY_S = 2.0
"""Pause when the database does not answer."""

MISSED_AFTER = timedelta(seconds=30)
"""A firing that is later has been missed; less is a restart, or a busy node."""

PAGE = 16
"""Schedules that are fired together: SQLite writes them with one fsync, PostgreSQL has a connection for each."""


class Firing(Protocol):
    """How a firing becomes a call."""

    async def __call__(self, schedule: Schedule, *, next_at: datetime | None) -> Call | None:
        """Accept the call and move the schedule on to `next_at`; None when somebody else has moved it on."""


class Scheduler:
    """One node's part in firing the schedules of all."""

    def __init__(self, records: ScheduleRecords, fire: Firing, has_ended: Callable[[str], Awaitable[bool]]) -> None:
        """`has_ended` tells of a call by its id; it has when it is gone."""
        self._records = records
        self._fire = fire
        self._has_ended = has_ended
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """A schedule was made or changed on this node."""
        self._changed.set()

    async def run_forever(self) -> None:
        """Fire whatever gets due."""
        while True:
            self._changed.clear()
            try:
                sleep_s = await self._run_once()
            except FaasError as error:
                logger.warning("scheduler_paused", extra={"error": error.message})
                sleep_s = RETRY_S
            try:
                async with asyncio.timeout(sleep_s):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _run_once(self) -> float:
        """Fire what is due; returns the seconds to sleep."""
        now = utc_now()
        await self.fire_due(now)
        next_at = await self._records.next_at(now)
        if next_at is None:
            return MAX_SLEEP_S
        return min(max((next_at - utc_now()).total_seconds(), 0.0), MAX_SLEEP_S)

    async def fire_due(self, now: datetime) -> int:
        """Make the firings that are due at an instant; returns how many calls were accepted here."""
        count, last = 0, None
        while page := await self._records.due(now, limit=PAGE, after=last):
            count += sum(await asyncio.gather(*[self._settle(schedule, now) for schedule in page]))
            last = page[-1]
        return count

    async def _settle(self, schedule: Schedule, now: datetime) -> bool:
        """Fire a due schedule or leave the firing out; whether a call was accepted."""
        assert schedule.next_at is not None
        fields = {"app": schedule.app_name, "schedule": schedule.name, "due_at": schedule.next_at.isoformat()}
        try:
            next_at = next_due(schedule, due_at=schedule.next_at, now=now)
        except KeyError:
            # Another node may have newer zones; here it stays due and holds nobody up.
            logger.error("schedule_zone_unknown", extra={**fields, "zone": schedule.timezone})  # noqa: TRY400
            return False
        if reason := await self._reason_to_skip(schedule, schedule.next_at, now):
            if await self._records.advance(schedule, next_at=next_at):
                logger.warning("firing_skipped", extra={**fields, "reason": reason})
            return False
        return await self._fire(schedule, next_at=next_at) is not None

    async def _reason_to_skip(self, schedule: Schedule, due_at: datetime, now: datetime) -> str:
        if schedule.missed is MissedPolicy.SKIP and now - due_at > MISSED_AFTER:
            return "missed"
        if schedule.overlap is OverlapPolicy.SKIP and schedule.last_call_id is not None:
            return "" if await self._has_ended(schedule.last_call_id) else "overlap"
        return ""
