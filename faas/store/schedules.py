"""The table of schedules. `next_at` is the claim: who moves it on makes the firing, in the same transaction."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, insert, select, tuple_, update

from faas.clock import utc_now
from faas.errors import AppNotFoundError, ScheduleExistsError, ScheduleNotFoundError
from faas.schedule import MissedPolicy, OverlapPolicy, Schedule
from faas.store import bodies
from faas.store.apps import has_app
from faas.store.call_rows import values_of
from faas.store.routes import keep_route
from faas.store.tables import calls, schedules

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Row

    from faas.models import Call, CallRequest
    from faas.store.database import Database

__all__ = ["ScheduleRecords"]

_COLUMNS = tuple(item.name for item in fields(Schedule))


class ScheduleRecords:
    """Schedules by app and name; a schedule's route lives at least as long as it does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- firing

    async def due(self, now: datetime, *, limit: int, after: Schedule | None = None) -> list[Schedule]:
        """Those that are due, by app and name, those after one."""
        key = (schedules.c.app_name, schedules.c.name)
        statement = select(schedules).where(schedules.c.next_at <= now).order_by(*key).limit(limit)
        if after is not None:
            statement = statement.where(tuple_(*key) > tuple_(after.app_name, after.name))
        return await self._database.read(lambda connection: [_schedule(row) for row in connection.execute(statement)])

    async def next_at(self, after: datetime) -> datetime | None:
        """When the first one is due, of those that are due after an instant."""
        statement = select(func.min(schedules.c.next_at)).where(schedules.c.next_at > after)
        return await self._database.read(lambda connection: connection.execute(statement).scalar_one())

    async def advance(
        self,
        schedule: Schedule,
        *,
        next_at: datetime | None,
        call: Call | None = None,
        request: CallRequest | None = None,
    ) -> bool:
        """Move a due schedule on; a firing's call is accepted with it, both or neither.

        False and no change when somebody else has moved it on, or it was changed or deleted meanwhile.
        """
        values: dict[str, object] = {"next_at": next_at}
        if call is not None:
            values |= {"last_at": schedule.next_at, "last_call_id": call.id}
        as_seen = (schedules.c.next_at == schedule.next_at) & (schedules.c.updated_at == schedule.updated_at)
        claim = update(schedules).where(_is(schedule.app_name, schedule.name), as_seen).values(values)

        def work(connection: Connection) -> bool:
            if connection.execute(claim).rowcount != 1:
                return False
            if call is not None and request is not None:
                connection.execute(insert(calls), values_of(call))
                connection.execute(*bodies.request_row(call.id, request))
            return True

        return await self._database.write(work)

    # --- making and changing

    async def get(self, app_name: str, name: str) -> Schedule:
        """The schedule; `AppNotFoundError`, `ScheduleNotFoundError`."""
        return await self._database.read(lambda connection: _get(connection, app_name, name))

    async def insert(self, schedule: Schedule) -> Schedule:
        """Add it, with the instants it gets; `AppNotFoundError`, `RouteNotFoundError`, `ScheduleExistsError`."""
        now = utc_now()
        added = replace(schedule, created_at=schedule.created_at or now, updated_at=schedule.updated_at or now)

        def work(connection: Connection) -> Schedule:
            keep_route(connection, added.app_name, added.path)
            if connection.execute(self._database.insert_new(schedules), _values(added)).rowcount != 1:
                raise ScheduleExistsError
            return added

        return await self._database.write(work)

    async def update(self, app_name: str, name: str, change: Callable[[Schedule], Schedule]) -> Schedule:
        """Replace it by `change` of what it is now, nobody else's change in between; errors as `get` and `insert`.

        What `change` raises passes through and leaves the schedule as it was. App, name, creation and what is known of
        the latest firing stay. It may be called more than once.
        """

        def work(connection: Connection) -> Schedule:
            present = _get(connection, app_name, name, is_locking=True)
            changed = replace(
                change(present),
                app_name=app_name,
                name=name,
                last_at=present.last_at,
                last_call_id=present.last_call_id,
                created_at=present.created_at,
                updated_at=utc_now(),
            )
            keep_route(connection, app_name, changed.path)
            connection.execute(update(schedules).where(_is(app_name, name)).values(_values(changed)))
            return changed

        return await self._database.write(work)

    async def delete(self, app_name: str, name: str) -> None:
        """Remove it; errors as `get`. Its calls stay."""

        def work(connection: Connection) -> None:
            _get(connection, app_name, name, is_locking=True)
            connection.execute(delete(schedules).where(_is(app_name, name)))

        await self._database.write(work)

    async def list(self, app_name: str) -> list[Schedule]:
        """An app's, by name; `AppNotFoundError`."""
        statement = select(schedules).where(schedules.c.app_name == app_name).order_by(schedules.c.name)

        def work(connection: Connection) -> list[Schedule]:
            if not has_app(connection, app_name):
                raise AppNotFoundError
            return [_schedule(row) for row in connection.execute(statement)]

        return await self._database.read(work)


def _is(app_name: str, name: str) -> ColumnElement[bool]:
    return (schedules.c.app_name == app_name) & (schedules.c.name == name)


def _get(connection: Connection, app_name: str, name: str, *, is_locking: bool = False) -> Schedule:
    statement = select(schedules).where(_is(app_name, name))
    row = connection.execute(statement.with_for_update() if is_locking else statement).first()
    if row is None:
        raise ScheduleNotFoundError if has_app(connection, app_name) else AppNotFoundError
    return _schedule(row)


def _schedule(row: Row[Any]) -> Schedule:
    values = {name: getattr(row, name) for name in _COLUMNS}
    return Schedule(**{**values, "missed": MissedPolicy(row.missed), "overlap": OverlapPolicy(row.overlap)})


def _values(schedule: Schedule) -> dict[str, object]:
    values = {name: getattr(schedule, name) for name in _COLUMNS}
    return {**values, "missed": schedule.missed.value, "overlap": schedule.overlap.value}
