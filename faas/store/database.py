"""Transactions: plain functions of a connection, run to their end whatever becomes of who asked for them.

A unit of work is a synchronous function that gets a SQLAlchemy `Connection`; SQLAlchemy runs it on the async driver.
It is the body of exactly one transaction: committed when it returns, rolled back when it raises. A caller that is
cancelled stops waiting, its transaction does not stop half way, so a connection never goes back dirty.

    PostgreSQL   each work has its connection and its transaction
    SQLite       one work writes at a time; those that wait meanwhile share the next commit, hence one fsync
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite

from faas.errors import StoreUnavailableError
from faas.store.failures import FOREIGN, translated

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection, Table
    from sqlalchemy.ext.asyncio import AsyncEngine

    from faas.tasks import TaskSet

__all__ = ["WRITES", "Database"]

T = TypeVar("T")

WRITES = "faas_writes"
"""Execution option of connections that will write."""

MAX_WAITING = 10_000
"""Works that may wait for SQLite's one writer: some seconds' worth; beyond, the answer is 503."""

MAX_GROUP = 64
"""Works that share one commit: past this the fsync is a small part of the time and the first would wait too long."""


@dataclass(eq=False, slots=True)
class _Job(Generic[T]):
    work: Callable[[Connection], T]
    done: asyncio.Future[T]

    def succeed(self, value: T) -> None:
        if not self.done.done():
            self.done.set_result(value)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class Database:
    """Runs units of work on one engine.

    Raises `StoreUnavailableError` when the database does not answer; what the work itself raises passes through.
    A work may be run again after a rollback, so it must not have effects outside its transaction.
    """

    def __init__(self, engine: AsyncEngine, tasks: TaskSet) -> None:
        self.engine = engine
        self.is_sqlite = engine.dialect.name == "sqlite"
        self._writing = engine.execution_options(**{WRITES: True})
        self._tasks = tasks
        self._waiting: deque[_Job[Any]] = deque()
        self._is_draining = False
        self._is_closed = False

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run a work that changes nothing; all its statements see the same state on SQLite."""
        job = self._job(work)
        self._tasks.spawn(self._settle([job], self.engine), name="read")
        return await job.done

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run a work that changes something; when this returns it is on disk."""
        job = self._job(work)
        if not self.is_sqlite:
            self._tasks.spawn(self._settle([job], self._writing), name="write")
        elif len(self._waiting) >= MAX_WAITING:
            raise StoreUnavailableError("The database has too many writes waiting; try again")
        else:
            self._waiting.append(job)
            if not self._is_draining:
                self._is_draining = True
                self._tasks.spawn(self._drain(), name="writer")
        return await job.done

    async def ping(self) -> None:
        """Return when the database answers."""
        await self.read(lambda connection: connection.execute(select(1)).scalar_one())

    def insert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """An INSERT that knows ON CONFLICT, in this database's dialect."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    async def close(self, *, grace_s: float = 5.0) -> None:
        """Finish what has begun, take nothing new, close every connection."""
        self._is_closed = True
        await self._tasks.wait(grace_s)
        await self._tasks.cancel()
        await self.engine.dispose()

    def _job(self, work: Callable[[Connection], T]) -> _Job[T]:
        if self._is_closed:
            raise StoreUnavailableError("The database is closed")
        return _Job(work, asyncio.get_running_loop().create_future())

    async def _drain(self) -> None:
        try:
            while self._waiting:
                group = [self._waiting.popleft() for _ in range(min(MAX_GROUP, len(self._waiting)))]
                await self._settle(group, self._writing)
        finally:
            self._is_draining = False

    async def _settle(self, jobs: Sequence[_Job[Any]], engine: AsyncEngine) -> None:
        """Run the works in one transaction; when one of them raises, each in its own."""
        wanted = [job for job in jobs if not job.done.done()]
        if not wanted:
            return
        try:
            values = await _transact(engine, [job.work for job in wanted])
        except StoreUnavailableError as error:
            for job in wanted:
                job.fail(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to who asked
            if len(wanted) == 1:
                wanted[0].fail(error)
                return
            for job in wanted:
                await self._settle([job], engine)
        except BaseException:
            for job in wanted:
                job.done.cancel()
            raise
        else:
            for job, value in zip(wanted, values, strict=True):
                job.succeed(value)


async def _transact(engine: AsyncEngine, works: Sequence[Callable[[Connection], Any]]) -> list[Any]:
    try:
        async with engine.begin() as connection:
            return await connection.run_sync(lambda plain: [work(plain) for work in works])
    except FOREIGN as error:
        raise translated(error) from error
