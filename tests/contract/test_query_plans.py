"""What is asked of a million calls is answered by an index: a record, a page of a listing, the purge, the webhooks."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Engine, event

from faas.clock import utc_now
from faas.ids import new_id
from faas.models import CallStatus
from tests.support.samples import a_call, a_request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from faas.store.engine import Store


@contextmanager
def recording(into: list[tuple[str, Any]]) -> Iterator[None]:
    """Notes every statement with its parameters."""

    def note(_c: object, _cursor: object, statement: str, parameters: Any, _context: object, _many: bool) -> None:
        into.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", note)


async def plans_of(store: Store, statements: list[tuple[str, Any]]) -> list[str]:
    """How the database would run what was asked of the table of calls."""

    def work(connection: Connection) -> list[str]:
        is_sqlite = connection.dialect.name == "sqlite"
        if not is_sqlite:
            # A table of one page is best read whole: this is about one of a million rows.
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        explain = "EXPLAIN QUERY PLAN " if is_sqlite else "EXPLAIN "
        return [
            "\n".join(str(row[-1]) for row in connection.exec_driver_sql(explain + statement, parameters))
            for statement, parameters in statements
            if "FROM calls" in statement or "FROM webhook_deliveries" in statement
        ]

    return await store.database.read(work)


def reads_all(plan: str) -> bool:
    """Whether it reads a table of calls from end to end."""
    return any(
        "Seq Scan on" in line or (line.startswith("SCAN ") and "INDEX" not in line) for line in plan.splitlines()
    )


async def test_what_no_index_answers_would_be_seen(store: Store) -> None:
    (plan,) = await plans_of(store, [("SELECT id FROM calls WHERE error = 'x'", ())])
    assert reads_all(plan)


@pytest.mark.parametrize(
    "filters", [{}, {"status": CallStatus.SUCCESS}, {"path": "/hello"}, {"since": utc_now()}, {"until": utc_now()}]
)
async def test_a_page_of_a_listing_is_read_by_an_index(store: Store, filters: dict[str, Any]) -> None:
    await store.calls.insert(a_call(), a_request())
    asked: list[tuple[str, Any]] = []
    with recording(asked):
        await store.calls.list("demo", **filters)
    plans = await plans_of(store, asked)
    assert plans
    assert not [plan for plan in plans if reads_all(plan)]


async def test_a_record_the_purge_and_the_webhooks_are_read_by_an_index(store: Store) -> None:
    asked: list[tuple[str, Any]] = []
    with recording(asked):
        await store.calls.get(new_id())
        await store.calls.purge(before=utc_now(), limit=10)
        await store.deliveries.open_due(now=utc_now(), last_try=1, limit=10)
        await store.deliveries.claim(now=utc_now(), lease_s=1, limit=10)
    plans = await plans_of(store, asked)
    assert len(plans) == 4
    assert not [plan for plan in plans if reads_all(plan)]
    untold, due = plans[2:]
    assert "ix_calls_untold" in untold
    assert "ix_webhook_deliveries_due" in due
