"""What only the embedded queue has to show: every step is a look into an index, however long the line is."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Connection, Engine, event, text

from faas.ids import new_id
from faas.queue.base import Ticket
from faas.queue.sql import SqlQueue
from faas.store.engine import open_store
from faas.store.tables import queued_calls

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from faas.store.database import Database


LINE = 10_000


def fill(connection: Connection) -> None:
    """A line of one app, some of another, some that are delayed, some that are held."""
    rows = [
        {
            "call_id": new_id(),
            "rank": 2,
            "fairness_key": "small" if number % 100 == 0 else "flood",
            "available_at": 1.0 if number < LINE else 4e9,
            "owner": "",
            "token": "" if number < LINE + 1000 else "held",
            "turn": number + 1 if number < LINE else None,
        }
        for number in range(LINE + 2000)
    ]
    connection.execute(queued_calls.insert(), rows)
    connection.execute(text("ANALYZE queued_calls"))


@contextmanager
def statements_of(engine: Engine) -> Iterator[list[tuple[str, Any]]]:
    """What is executed meanwhile, with its parameters."""
    seen: list[tuple[str, Any]] = []

    def note(_conn: object, _cursor: object, statement: str, parameters: Any, _context: object, is_many: bool) -> None:
        seen.append((statement, parameters[0] if is_many else parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


async def plans(database: Database, statements: Sequence[tuple[str, Any]]) -> list[str]:
    explain = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "

    def work(connection: Connection) -> list[str]:
        return [
            "\n".join(str(row[-1]) for row in connection.exec_driver_sql(explain + statement, parameters))
            for statement, parameters in statements
            if "queued_calls" in statement
        ]

    return await database.write(work)


async def steps_of_a_call(database: Database) -> list[str]:
    """The plans of a dispatch, of leases that find and that don't find something, of a renewal and of an ack."""
    queue = SqlQueue(database)
    await database.write(fill)
    engine = database._sqlite_writer or database.engine
    with statements_of(engine) as seen:
        await queue.dispatch(Ticket(call_id=new_id(), fairness_key="small"))
        leases = await queue.lease(owner="n", max_count=3, lease_s=9, wait_s=0)
        await queue.renew(leases, lease_s=9)
        assert await queue.ack(leases[0])
        assert await queue.release(leases[1])
        await database.read(queue._line.next_ready_s)
    found = await plans(database, seen)
    assert len(found) >= 6
    return found


async def test_no_step_on_sqlite_goes_through_the_line(sqlite_url: str) -> None:
    async with open_store(sqlite_url) as store:
        for plan in await steps_of_a_call(store.database):
            assert "TEMP B-TREE" not in plan, plan
            for line in plan.splitlines():
                assert "queued_calls" not in line or "USING" in line, plan


@pytest.mark.postgres
async def test_no_step_on_postgresql_goes_through_the_line(postgres_url: str) -> None:
    async with open_store(postgres_url) as store:
        for plan in await steps_of_a_call(store.database):
            assert "Seq Scan" not in plan, plan
            assert "Sort" not in plan, plan
