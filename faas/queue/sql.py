"""The embedded queue: one table in the store's database, on SQLite or PostgreSQL.

A row is a call in line or leased. It can be leased from `available_at` on: that is when it is due, and while somebody
holds it, when the lease runs out. So an expired lease needs nobody to notice it.

Lessees of this process are woken by an event; what other nodes dispatch is found by a look every second.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Double, bindparam, case, delete, extract, func, literal, select, tuple_, update

from faas.clock import monotonic, utc_now
from faas.errors import QueueUnavailableError, StoreUnavailableError
from faas.ids import new_id
from faas.queue.base import MAX_PRIORITY, Depth, Lease, Ticket
from faas.store.tables import queued_calls

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection

    from faas.store.database import Database

__all__ = ["SqlQueue"]

T = TypeVar("T")

POLL_S = 1.0
"""How late a call that another node dispatched may be seen."""

_FREE: dict[str, Any] = {"owner": "", "token": ""}
_row = queued_calls.c
_ACK = delete(queued_calls).where(_row.call_id == bindparam("the_call"), _row.token == bindparam("the_token"))


class SqlQueue:
    """A `CallQueue` in the store's database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._woken = asyncio.Event()
        self._add = database.insert_new(queued_calls)
        if not database.is_sqlite:
            self._add = self._add.values(available_at=func.greatest(bindparam("due_at", type_=Double), self._now()))

    async def dispatch(self, ticket: Ticket) -> None:
        due_at = 0.0 if ticket.not_before is None else ticket.not_before.timestamp()
        is_local = self._database.is_sqlite
        row = {
            "call_id": ticket.call_id,
            "rank": MAX_PRIORITY - ticket.priority,
            "fairness_key": ticket.fairness_key,
            **({"available_at": max(due_at, utc_now().timestamp())} if is_local else {"due_at": due_at}),
            **_FREE,
        }
        try:
            await self._database.add([(self._add, row)])
        except StoreUnavailableError as error:
            raise QueueUnavailableError(error.message) from error
        self._wake()

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
            .where(tuple_(_row.call_id, _row.token).in_([(lease.call_id, lease.token) for lease in leases]))
            .values(available_at=self._now() + lease_s)
            .returning(_row.call_id)
        )
        held = await self._write(lambda connection: set(connection.execute(statement).scalars()))
        return {lease.call_id for lease in leases} - held

    async def ack(self, lease: Lease) -> bool:
        values = {"the_call": lease.call_id, "the_token": lease.token}
        return await self._write(lambda connection: connection.execute(_ACK, values).rowcount == 1)

    async def release(self, lease: Lease, *, not_before: datetime | None = None) -> bool:
        statement = update(queued_calls).where(_is_held(lease)).values(available_at=self._due_at(not_before), **_FREE)
        is_released = await self._write(lambda connection: connection.execute(statement).rowcount == 1)
        self._wake()
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
        statement = update(queued_calls).where(is_owned, _row.token != "").values(available_at=self._now(), **_FREE)
        count = await self._write(lambda connection: connection.execute(statement).rowcount)
        self._wake()
        return count

    async def depth(self) -> Depth:
        now = self._now()
        is_waiting = _row.available_at <= now
        is_leased = (_row.available_at > now) & (_row.token != "")
        is_delayed = (_row.available_at > now) & (_row.token == "")
        statement = select(_count(is_waiting), _count(is_delayed), _count(is_leased), now - func.min(_row.available_at))
        waiting, delayed, leased, oldest_s = await self._read(lambda connection: connection.execute(statement).one())
        return Depth(waiting=waiting, delayed=delayed, leased=leased, oldest_waiting_s=max(oldest_s or 0.0, 0.0))

    async def close(self) -> None:
        """The connections are the store's."""

    # --- inside

    async def _take(self, owner: str, max_count: int, lease_s: float) -> tuple[list[Lease], float]:
        """The calls that can be had now; and in how many seconds the next one becomes due."""
        now = self._now()
        token = new_id()
        # As a CTE: in a plain IN (SELECT ...) PostgreSQL may run the LIMIT more than once and lock too many.
        free = (
            select(_row.place)
            .where(_row.available_at <= now)
            .order_by(_row.rank, _row.place)
            .limit(max_count)
            .with_for_update(skip_locked=True)
            .cte("free")
        )
        statement = (
            update(queued_calls)
            .where(_row.place.in_(select(free.c.place)))
            .values(available_at=now + lease_s, owner=owner, token=token)
            .returning(_row.rank, _row.place, _row.call_id)
        )
        upcoming = select(func.min(_row.available_at) - now)

        def work(connection: Connection) -> tuple[list[Lease], float]:
            taken = sorted(tuple(row) for row in connection.execute(statement))
            if taken:
                return [Lease(call_id=call_id, token=token) for _, _, call_id in taken], 0.0
            next_s = connection.execute(upcoming).scalar()
            return [], POLL_S if next_s is None else max(next_s, 0.001)

        return await self._write(work)

    def _now(self) -> ColumnElement[float]:
        if self._database.is_sqlite:
            return literal(utc_now().timestamp(), Double)
        return extract("epoch", func.statement_timestamp()).cast(Double)

    def _due_at(self, not_before: datetime | None) -> ColumnElement[float]:
        now = self._now()
        if not_before is None:
            return now
        due = literal(not_before.timestamp(), Double)
        return case((due > now, due), else_=now)

    def _wake(self) -> None:
        self._woken.set()
        self._woken = asyncio.Event()

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
