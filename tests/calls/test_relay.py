"""Two nodes on one PostgreSQL: what happens to a call on one is known on the other at once."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from faas.calls import relay as relay_module
from faas.calls.events import CallEvent, CallEvents, Notice
from faas.calls.relay import Relay
from faas.calls.waiting import Waiters
from faas.models import CallStatus, Reason
from faas.store.engine import open_store
from faas.store.notices import CHANNEL, MAX_NOTICE_BYTES
from faas.tasks import TaskSet
from tests.support.samples import a_call
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from faas.calls.events import Watch
    from faas.models import Call
    from tests.support.services import PostgresServer

pytestmark = pytest.mark.postgres

SOON_S = 10.0


@dataclass
class Node:
    events: CallEvents
    relay: Relay


@asynccontextmanager
async def running_node(url: str) -> AsyncIterator[Node]:
    async with TaskSet("node") as tasks, open_store(url) as store:
        events = CallEvents(Waiters())
        relay = Relay(store.database, events)
        tasks.supervise(relay.run_forever(), name="relay")
        async with asyncio.timeout(SOON_S):
            await relay.is_up.wait()
        yield Node(events, relay)
        await tasks.cancel()


async def taken(watch: Watch, count: int) -> list[CallEvent | Notice]:
    """So many events, in the order they came."""
    news: list[CallEvent | Notice] = []
    async with asyncio.timeout(SOON_S):
        while len(news) < count:
            news += await watch.take(timeout_s=SOON_S)
    return news


def a_failure() -> Call:
    return a_call(status=CallStatus.ERROR, attempt=2, reason=Reason.OOM, error="é\0" * 300, path="/ü")


async def test_events_reach_the_watchers_of_the_other_node_whole_and_come_back_to_nobody(postgres_url: str) -> None:
    async with running_node(postgres_url) as here, running_node(postgres_url) as there:
        with here.events.watching("demo") as own, there.events.watching("demo") as watch:
            call = a_failure()
            here.events.publish(call)
            here.events.publish(a_call())
            first, second = await taken(watch, 2)
            assert isinstance(first, CallEvent)
            assert isinstance(second, CallEvent)
            assert (first.call_id, first.path, first.status) == (call.id, "/ü", CallStatus.ERROR)
            assert (first.attempt, first.reason) == (2, Reason.OOM)
            assert call.error.startswith(first.error)
            assert first.error
            assert second.status is CallStatus.QUEUED
            there.events.publish(a_call(status=CallStatus.RUNNING))
            statuses = [one.status for one in await taken(own, 3) if isinstance(one, CallEvent)]
            assert statuses == [CallStatus.ERROR, CallStatus.QUEUED, CallStatus.RUNNING], "its own came once"


async def test_who_waits_for_a_call_that_runs_elsewhere_is_woken(postgres_url: str) -> None:
    async with running_node(postgres_url) as here, running_node(postgres_url) as there:
        call = a_call()
        with there.events.waiters.waiting(call.id) as changed:
            here.events.publish(call)
            await asyncio.wait_for(changed, SOON_S)


async def test_a_flood_arrives_in_order_in_notices_that_the_database_takes(postgres_url: str) -> None:
    async with running_node(postgres_url) as here, running_node(postgres_url) as there:
        with there.events.watching("demo") as watch:
            calls = [a_failure() for _ in range(300)]
            for call in calls:
                here.events.publish(call)
            heard = await taken(watch, len(calls))
            assert [one.call_id for one in heard if isinstance(one, CallEvent)] == [call.id for call in calls]


async def test_the_largest_event_fits_into_a_notice(postgres_url: str) -> None:
    async with running_node(postgres_url) as here, running_node(postgres_url) as there:
        app = "a" * 30
        with there.events.watching(app) as watch:
            here.events.publish(a_call(app_name=app, path="/" + "\U0001f600" * 511, error="\U0001f600" * 1000))
            (event,) = await taken(watch, 1)
            assert isinstance(event, CallEvent)
            assert len(event.path) == 512


async def test_a_line_that_breaks_is_opened_again_and_the_gap_is_told(
    postgres_url: str, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "RETRY_S", 0.01)
    async with running_node(postgres_url) as here, running_node(postgres_url) as there:
        with there.events.watching("demo") as watch:
            database = postgres_url.rpartition("/")[2]
            for statement in (
                f"ALTER DATABASE {database} ALLOW_CONNECTIONS false",
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'",
            ):
                await asyncio.to_thread(postgres_server.sql, statement)
            await wait_until(lambda: not (here.relay.is_up.is_set() or there.relay.is_up.is_set()))
            here.events.publish(a_call())
            await asyncio.to_thread(postgres_server.sql, f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")
            assert await taken(watch, 1) == [Notice.GAP]
            async with asyncio.timeout(SOON_S):
                await here.relay.is_up.wait()
            here.events.publish(a_call())
            assert isinstance((await taken(watch, 1))[-1], CallEvent)


async def test_a_notice_that_is_not_understood_is_a_gap(postgres_url: str, postgres_server: PostgresServer) -> None:
    async with running_node(postgres_url) as node, open_store(postgres_url) as store:
        with node.events.watching("demo") as watch:
            notice = json.dumps(["another", ["some", "thing", "new"]])
            await store.database.write(
                lambda connection: connection.exec_driver_sql(f"SELECT pg_notify('{CHANNEL}', '{notice}')").all()
            )
            assert await taken(watch, 1) == [Notice.GAP]


def test_a_batch_never_exceeds_a_notice() -> None:
    events = CallEvents(Waiters())
    relay = Relay(None, events)  # type: ignore[arg-type]  # nothing is sent
    for _ in range(200):
        events.publish(a_failure())
    sizes = []
    while relay._outbox:
        sizes.append(len(relay._take_batch()[1]))
    assert len(sizes) > 1
    assert max(sizes) <= MAX_NOTICE_BYTES
