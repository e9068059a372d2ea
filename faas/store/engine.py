"""Opens the store: engine, schema, and one object for each table's queries."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import QueuePool

from faas.clock import monotonic
from faas.errors import StoreUnavailableError
from faas.store.apps import Apps
from faas.store.calls import CallRecords
from faas.store.cancelling import Cancelling
from faas.store.database import WRITES, Database
from faas.store.dead_letters import DeadLetters
from faas.store.deliveries import Deliveries
from faas.store.expiry import ExpiringCalls
from faas.store.failures import is_locked
from faas.store.idempotency import IdempotencyKeys
from faas.store.migrate import bring_up_to_date
from faas.store.retrying import Retrying
from faas.store.routes import Routes
from faas.store.schedules import ScheduleRecords
from faas.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

__all__ = ["Store", "open_store"]

POOL_SIZE = 10
"""Connections to PostgreSQL that stay open."""

POOL_OVERFLOW = 10
POOL_TIMEOUT_S = 10.0
SQLITE_READERS = 4
"""Connections that read beside the one that writes: each is a thread with up to 2 MiB of pages, and reads are short."""

CONNECT_TIMEOUT_S = 5.0
STATEMENT_TIMEOUT_S = 30.0
BUSY_TIMEOUT_MS = 5000
"""How long SQLite waits for another process that writes."""

START_S = 60.0
"""How long a start waits for other nodes that start."""

SQLITE_CONNECT = {"isolation_level": None}
"""The driver must not begin transactions by itself: it would begin them too late and of the wrong kind."""

SQLITE_PRAGMAS = (
    f"busy_timeout = {BUSY_TIMEOUT_MS}",  # first: the next one needs the lock
    "journal_mode = WAL",
    "synchronous = FULL",  # NORMAL would let a power failure take back what was answered with 202
    "foreign_keys = ON",
)


class Store:
    """The open database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.apps = Apps(database)
        self.routes = Routes(database)
        self.schedules = ScheduleRecords(database)
        self.calls = CallRecords(database)
        self.retrying = Retrying(database)
        self.expiring = ExpiringCalls(database)
        self.dead_letters = DeadLetters(database)
        self.cancelling = Cancelling(database)
        self.idempotency_keys = IdempotencyKeys(database)
        self.deliveries = Deliveries(database)

    async def ping(self) -> None:
        """Return when the database answers; `StoreUnavailableError` when it does not."""
        await self.database.ping()


@asynccontextmanager
async def open_store(url: str) -> AsyncIterator[Store]:
    """Connect, bring the schema up to date, close in the end.

    `url` has the async driver in it (`Settings.database_url`). Raises `StoreUnavailableError` when the database can't
    be reached and `SchemaTooNewError` when a newer faas has been at it.
    """
    usable = _usable(url)
    async with TaskSet("store") as tasks:
        database = Database(_engine(usable), tasks, sqlite_writer=_sqlite_writer(usable))
        try:
            await _bring_up_to_date(database)
            yield Store(database)
        finally:
            await database.close()


async def _bring_up_to_date(database: Database) -> None:
    """Nodes that start together have SQLite's file one after the other, and the busy timeout has no order."""
    deadline = monotonic() + START_S
    while True:
        try:
            return await database.write(bring_up_to_date)
        except StoreUnavailableError as error:
            if monotonic() > deadline or not is_locked(error):
                raise


def _usable(text: str) -> URL:
    """The URL as the drivers want it."""
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise StoreUnavailableError("The database's URL can't be read; see `faas config`") from error
    if url.get_backend_name() != "sqlite":
        # libpq's word; asyncpg has its own for the same.
        mode = url.query.get("sslmode")
        return url if mode is None else url.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
    if not url.database or url.database == ":memory:":
        raise StoreUnavailableError("SQLite needs a file: sqlite:///PATH")
    _make_private_file(Path(url.database))
    return url


def _make_private_file(path: Path) -> None:
    """Functions' configuration and keys are in it: only its owner may read the file (and, so, its WAL)."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=True)
    except OSError as error:
        raise StoreUnavailableError(f"The database file can't be written: {error}") from error


def _engine(url: URL) -> Engine:
    common: dict[str, Any] = {
        "hide_parameters": True,
        "pool_timeout": POOL_TIMEOUT_S,
    }
    if url.get_backend_name() != "sqlite":
        connect = {
            "timeout": CONNECT_TIMEOUT_S,
            "command_timeout": STATEMENT_TIMEOUT_S,
            "server_settings": {"application_name": "faas", "timezone": "UTC"},
        }
        return create_engine(url, connect_args=connect, pool_size=POOL_SIZE, max_overflow=POOL_OVERFLOW, **common)
    engine = create_engine(url, connect_args=SQLITE_CONNECT, pool_size=SQLITE_READERS, max_overflow=0, **common)
    _teach_sqlite(engine)
    return engine


def _sqlite_writer(url: URL) -> Engine | None:
    """The one connection that writes, on the standard library's driver: used from one thread, but not this one."""
    if url.get_backend_name() != "sqlite":
        return None
    writer = create_engine(
        url.set(drivername="sqlite"),
        connect_args={**SQLITE_CONNECT, "check_same_thread": False},
        execution_options={WRITES: True},
        hide_parameters=True,
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=0,
    )
    _teach_sqlite(writer)
    return writer


def _teach_sqlite(engine: Engine) -> None:
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)


def _prepare_sqlite(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    for pragma in SQLITE_PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A reader that turns into a writer fails when another wrote in between; IMMEDIATE waits at the start instead.
    is_writer = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writer else "BEGIN")
