"""Transactions: plain functions of a connection, run to their end whatever becomes of who asked for them.

A unit of work is a synchronous function that gets a SQLAlchemy `Connection`. It is the body of exactly one
transaction: committed when it returns, rolled back when it raises. A caller that is cancelled stops waiting, its
transaction does not stop half way, so a connection never goes back dirty.

    PostgreSQL   each work has its connection and its transaction, on asyncpg; rows that are only added share one
    SQLite       reads run on aiosqlite; writes one after the other in a thread of their own. Those that come
                 meanwhile share the next commit, hence one fsync

The thread: aiosqlite crosses over to its own three or four times for each statement, this crosses once for a commit of
up to 64 works. 32 callers had 1,850 accepted and dispatched calls per second by aiosqlite and 8,600 by the thread, and
the event loop's lag was 19 ms and 6 ms (p99).

The async drivers run as SQLAlchemy's own AsyncEngine runs them, by `greenlet_spawn`, but for a whole transaction at
once. `sqlalchemy.ext.asyncio` is not imported for it: it takes the ORM along, 7 MiB.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from sqlalchemy import select
from sqlalchemy.dialects import sqlite
from sqlalchemy.util import greenlet_spawn

from faas.batching import Batcher
from faas.errors import StoreUnavailableError
from faas.store.failures import foreign, translated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sqlalchemy import Connection, Engine, Insert, Table
    from sqlalchemy.dialects import postgresql

    from faas.tasks import TaskSet

__all__ = ["WRITES", "Database"]

T = TypeVar("T")
Item = TypeVar("Item")

Rows: TypeAlias = "Sequence[tuple[Insert, dict[str, object]]]"
"""Rows, each with the INSERT that takes it."""

WRITES = "faas_writes"
"""Execution option of connections that will write."""

MAX_WAITING = 10_000
"""Works that may wait for their turn in a group: some seconds' worth; beyond, the answer is 503."""

MAX_GROUP = 64
"""Works that share one commit: past this the fsync is a small part of the time and the first would wait too long."""


Transact: TypeAlias = "Callable[[Sequence[_Job[Any]]], Awaitable[list[Any]]]"


@dataclass(eq=False, slots=True)
class _Job(Generic[T]):
    work: Callable[[Connection], T] | None
    """None: only its rows are to be inserted."""
    rows: Rows
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
    A work may be run again after a rollback, and in another thread, so it must be a function of its connection and of
    values that do not change.
    """

    def __init__(self, engine: Engine, tasks: TaskSet, *, sqlite_writer: Engine | None = None) -> None:
        """`engine` has an async driver; `sqlite_writer` is the engine of SQLite's one writer, None for PostgreSQL."""
        self.engine = engine
        self.is_sqlite = sqlite_writer is not None
        self._sqlite_writer = sqlite_writer
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        self._tasks = tasks
        self._waiting: deque[_Job[Any]] = deque()
        self._is_draining = False
        self._is_closed = False
        self._insert_new: dict[Table, Insert] = {}

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run a work that changes nothing; all its statements see the same state on SQLite."""
        job = self._job(work)
        self._tasks.spawn(self._settle([job], self._transact), name="read")
        return await job.done

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run a work that changes something; when this returns it is on disk."""
        return await self._put(self._job(work))

    async def add(self, rows: Rows) -> None:
        """Insert rows, all or none; on disk when this returns.

        The rows of concurrent callers that name the very same INSERT object go in with one statement.
        """
        await self._put(self._job(None, rows))

    def batched(self, work: Callable[[Connection, Sequence[Item]], Sequence[T]], *, name: str) -> Batcher[Item, T]:
        """A write that does for many callers at once what each of them wants; `Batcher` says what `work` keeps to."""

        async def flush(items: Sequence[Item]) -> Sequence[T]:
            return await self.write(lambda connection: work(connection, items))

        return Batcher(flush, self._tasks, name=name)

    async def _put(self, job: _Job[T]) -> T:
        if not self.is_sqlite and job.work is not None:
            self._tasks.spawn(self._settle([job], self._transact), name="write")
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

    def insert_new(self, table: Table) -> Insert:
        """An INSERT that leaves rows alone whose key is there already; always the same object for a table."""
        if table not in self._insert_new:
            self._insert_new[table] = self._insert(table).on_conflict_do_nothing()
        return self._insert_new[table]

    def _insert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        if self.is_sqlite:
            return sqlite.insert(table)
        # 2 MiB that a node on SQLite saves.
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)

    async def close(self, *, grace_s: float = 5.0) -> None:
        """Finish what has begun, take nothing new, close every connection."""
        self._is_closed = True
        await self._tasks.wait(grace_s)
        await self._tasks.cancel()
        await asyncio.to_thread(self._thread.shutdown)
        if self._sqlite_writer is not None:
            self._sqlite_writer.dispose()
        await greenlet_spawn(self.engine.dispose)

    def _job(self, work: Callable[[Connection], T] | None, rows: Rows = ()) -> _Job[T]:
        if self._is_closed:
            raise StoreUnavailableError("The database is closed")
        return _Job(work, rows, asyncio.get_running_loop().create_future())

    async def _drain(self) -> None:
        try:
            while self._waiting:
                group = [self._waiting.popleft() for _ in range(min(MAX_GROUP, len(self._waiting)))]
                await self._settle(group, self._transact_in_thread if self.is_sqlite else self._transact)
        finally:
            self._is_draining = False

    async def _settle(self, jobs: Sequence[_Job[Any]], transact: Transact) -> None:
        """Run the works in one transaction; when one of them raises, each in its own."""
        wanted = [job for job in jobs if not job.done.done()]
        if not wanted:
            return
        try:
            values = await transact(wanted)
        except StoreUnavailableError as error:
            for job in wanted:
                job.fail(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to who asked
            if len(wanted) == 1:
                wanted[0].fail(error)
                return
            for job in wanted:
                await self._settle([job], transact)
        except BaseException:
            for job in wanted:
                job.done.cancel()
            raise
        else:
            for job, value in zip(wanted, values, strict=True):
                job.succeed(value)

    async def _transact(self, jobs: Sequence[_Job[Any]]) -> list[Any]:
        try:
            return await greenlet_spawn(_run, self.engine, jobs)
        except foreign() as error:
            raise translated(error) from error

    async def _transact_in_thread(self, jobs: Sequence[_Job[Any]]) -> list[Any]:
        assert self._sqlite_writer is not None
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, _run, self._sqlite_writer, jobs)
        except foreign() as error:
            raise translated(error) from error


def _run(engine: Engine, jobs: Sequence[_Job[Any]]) -> list[Any]:
    """What all of them want in one transaction; their rows first, one statement for each table."""
    together: dict[Insert, list[dict[str, object]]] = {}
    for job in jobs:
        for statement, row in job.rows:
            together.setdefault(statement, []).append(row)
    with engine.begin() as connection:
        for statement, rows in together.items():
            connection.execute(statement, rows)
        return [job.work(connection) if job.work else None for job in jobs]
