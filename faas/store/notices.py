"""Words between the nodes on one PostgreSQL, by LISTEN and NOTIFY: who listens now hears them, nobody later.

A notice takes no part in a transaction of ours: NOTIFY makes commits wait for each other, so that it goes over the one
connection that also listens, some times a second, and not with each change of a call.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy.util import greenlet_spawn

from faas.store.failures import foreign, translated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from faas.store.database import Database

__all__ = ["MAX_NOTICE_BYTES", "Notices", "open_notices"]

CHANNEL = "faas_calls"
MAX_NOTICE_BYTES = 7999
"""PostgreSQL's limit."""

CLOSE_S = 2.0


class Notices:
    """An open line; `open_notices` opens one."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def send(self, text: str) -> None:
        """Tell all who listen, this node too. Raises `StoreUnavailableError`."""
        await self._execute("SELECT pg_notify($1, $2)", CHANNEL, text)

    async def check(self) -> None:
        """Return when the line works; raises `StoreUnavailableError`."""
        await self._execute("SELECT 1")

    async def _execute(self, statement: str, *values: str) -> None:
        try:
            await self._connection.execute(statement, *values)
        except foreign() as error:
            raise translated(error) from error


@asynccontextmanager
async def open_notices(
    database: Database, *, hear: Callable[[str], None], on_broken: Callable[[], None]
) -> AsyncIterator[Notices]:
    """A line on a connection of its own; `hear` gets each notice from when this is open.

    Raises `StoreUnavailableError`. PostgreSQL only: no other node can be on a SQLite file.
    """
    try:
        pooled = await greenlet_spawn(database.engine.connect)
        connection: Any = pooled.connection.driver_connection
        # Out of the pool, whose connections are for transactions.
        pooled.detach()
        connection.add_termination_listener(lambda _connection: on_broken())
        await connection.add_listener(CHANNEL, lambda _connection, _pid, _channel, text: hear(text))
        # The commit of a notice need not be on disk.
        await connection.execute("SET synchronous_commit = off")
    except foreign() as error:
        raise translated(error) from error
    try:
        yield Notices(connection)
    finally:
        try:
            async with asyncio.timeout(CLOSE_S):
                await greenlet_spawn(pooled.close)
        except foreign():  # a timeout is one of them
            connection.terminate()
