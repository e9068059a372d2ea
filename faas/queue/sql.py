"""The embedded queue: one table in the store's database, on SQLite or PostgreSQL.

A row is a call in line, delayed or leased; `sql_line` has the order of the line. One that is not in line gets there
when its `available_at` has come: when it is due, or when the lease runs out. The next lease sees to that, so an expired
one needs nobody to notice it.

Lessees of this process are woken by an event; what other nodes dispatch is found by a look every second.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import Double, case, delete, func, literal, null, select, update

from faas.clock import monotonic
from faas.errors import QueueUnavailableError, StoreUnavailableError
from faas.ids import new_id
from faas.queue.base import Depth, Lease
from faas.queue.sql_line import FREE, RETURNED, Line, due_at
from faas.store.tables import queued_calls

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection

    from faas.queue.base import Ticket
    from faas.store.database import Database, Rows

__all__ = ["SqlQueue"]

T = TypeVar("T")

POLL_S = 1.0
"""How late a call that another node dispatched may be seen."""

_row = queued_calls.c


class SqlQueue:
    """A `CallQueue` in the store's database, and so `BesideRecords`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._woken = asyncio.Event()
        self._line = Line(database)

    async def dispatch(self, ticket: Ticket) -> None:
        try:
            await self._database.add(self.rows(ticket))
        except StoreUnavailableError as error:
            raise QueueUnavailableError(error.message) from error
        self.wake()

    def rows(self, ticket: Ticket) -> Rows:
        """See `BesideRecords`."""
        return self._line.rows(ticket)

    def wake(self) -> None:
        """See `BesideRecords`."""
        self._woken.set()
        self._woken = asyncio.Event()

    async def lease(self, *, owner: str, max_count: int, lease_s: float, wait_s: float) -> list[Lease]:
        deadline = monotonic() + wait_s
        while True:
            # Taken before the look: whatever is dispatched after it sets this very event.
            woken = self._woken
            leases, next_s = await self._take(owner, max_count, lease_s)
            left_s = deadline - monotonic()
            if leases or left_s <= 0:
                return leases
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, POLL_S, next_s)):
                    await woken.wait()

    async def renew(self, leases: Collection[Lease], *, lease_s: float) -> set[str]:
        if not leases:
            return set()
        statement = (
            update(queued_calls)
            # Not the pairs: SQLite goes through the whole table for those.
            .where(_row.call_id.in_([lease.call_id for lease in leases]), _row.token.in_({one.token for one in leases}))
            .values(available_at=self._line.now + lease_s)
            .returning(_row.call_id, _row.token)
        )
        clock = self._line.clock()
        held = await self._write(lambda connection: {tuple(row) for row in connection.execute(statement, clock)})
        return {lease.call_id for lease in leases if (lease.call_id, lease.token) not in held}

    async def ack(self, lease: Lease) -> bool:
        statement = delete(queued_calls).where(_is_held(lease))
        return await self._write(lambda connection: connection.execute(statement).rowcount == 1)

    async def release(self, lease: Lease, *, not_before: datetime | None = None) -> bool:
        now, due = self._line.now, literal(due_at(not_before), Double)
        is_later = due > now
        statement = (
            update(queued_calls)
            .where(_is_held(lease))
            .values(
                available_at=case((is_later, due), else_=now), turn=case((is_later, null()), else_=RETURNED), **FREE
            )
        )
        clock = self._line.clock()
        is_released = await self._write(lambda connection: connection.execute(statement, clock).rowcount == 1)
        self.wake()
        return is_released

    async def discard(self, call_id: str) -> None:
        statement = delete(queued_calls).where(_row.call_id == call_id)
        await self._write(lambda connection: connection.execute(statement).rowcount)

    async def known(self, call_ids: Collection[str]) -> set[str]:
        statement = select(_row.call_id).where(_row.call_id.in_(call_ids))
        return await self._read(lambda connection: set(connection.execute(statement).scalars()))

    async def release_owned(self, owner_prefix: str) -> int:
        # Not LIKE: on SQLite that takes no notice of case.
        is_owned = func.substr(_row.owner, 1, len(owner_prefix)) == owner_prefix
        statement = (
            update(queued_calls)
            .where(is_owned, _row.token != "")
            .values(available_at=self._line.now, turn=RETURNED, **FREE)
        )
        clock = self._line.clock()
        count = await self._write(lambda connection: connection.execute(statement, clock).rowcount)
        self.wake()
        return count

    async def depth(self) -> Depth:
        now, clock = self._line.now, self._line.clock()
        is_waiting = _row.available_at <= now
        is_leased = (_row.available_at > now) & (_row.token != "")
        is_delayed = (_row.available_at > now) & (_row.token == "")
        statement = select(_count(is_waiting), _count(is_delayed), _count(is_leased), now - func.min(_row.available_at))
        counted = await self._read(lambda connection: connection.execute(statement, clock).one())
        waiting, delayed, leased, oldest_s = counted
        return Depth(waiting=waiting, delayed=delayed, leased=leased, oldest_waiting_s=max(oldest_s or 0.0, 0.0))

    async def close(self) -> None:
        """The connections are the store's."""

    # --- inside

    async def _take(self, owner: str, max_count: int, lease_s: float) -> tuple[list[Lease], float]:
        """The calls that can be had now; and in how many seconds the next one may be."""
        token = new_id()

        def work(connection: Connection) -> tuple[list[Lease], float]:
            taken = self._line.take(connection, max_count, owner=owner, token=token, lease_s=lease_s)
            if taken:
                return [Lease(call_id=call_id, token=token) for call_id in taken], 0.0
            next_s = self._line.next_ready_s(connection)
            return [], POLL_S if next_s is None else max(next_s, 0.001)

        return await self._write(work)

    async def _read(self, work: Callable[[Connection], T]) -> T:
        try:
            return await self._database.read(work)
        except StoreUnavailableError as error:
            raise QueueUnavailableError(error.message) from error

    async def _write(self, work: Callable[[Connection], T]) -> T:
        try:
            return await self._database.write(work)
        except StoreUnavailableError as error:
            raise QueueUnavailableError(error.message) from error


def _is_held(lease: Lease) -> ColumnElement[bool]:
    return (_row.call_id == lease.call_id) & (_row.token == lease.token)


def _count(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)
