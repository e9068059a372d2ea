"""What gets fired, and how often: schedulers on a real database, their clock in the tests' hands."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from faas.calls.events import CallEvents
from faas.calls.firing import Firings
from faas.calls.waiting import Waiters
from faas.clock import utc_now
from faas.errors import QueueUnavailableError, StoreUnavailableError
from faas.queue.sql import SqlQueue
from faas.schedule import MissedPolicy, OverlapPolicy, Schedule
from faas.schedules import scheduler as scheduler_module
from faas.schedules.scheduler import MISSED_AFTER, Scheduler
from faas.schedules.schedules import SchedulePatch, Schedules
from faas.store.engine import Store, open_store
from faas.sweeper import Sweeper
from faas.tasks import TaskSet
from tests.support.samples import a_route, a_schedule, an_attempt
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from faas.models import Call
    from faas.queue.base import Ticket

NOON = datetime(2026, 5, 15, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


@dataclass(eq=False)
class Node:
    """One node's store, queue and scheduler."""

    store: Store
    queue: SqlQueue
    scheduler: Scheduler

    async def schedule(self, name: str = "tick", **fields: Any) -> Schedule:
        """A schedule that is due at noon and each minute, unless told otherwise."""
        return await self.store.schedules.insert(a_schedule(**{"name": name, "next_at": NOON, **fields}))

    async def now(self, name: str = "tick") -> Schedule:
        return await self.store.schedules.get("demo", name)

    async def calls(self) -> list[Call]:
        """Oldest first."""
        return (await self.store.calls.list("demo", limit=1000))[0][::-1]


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Node]:
    async with open_store(url) as store:
        queue = SqlQueue(store.database)
        firings = Firings(store, queue, CallEvents(Waiters()))
        yield Node(store, queue, Scheduler(store.schedules, firings.fire, firings.has_ended))
        await queue.close()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    return url


@pytest.fixture
async def nodes(database_url: str) -> AsyncIterator[list[Node]]:
    """Two nodes on one database."""
    async with AsyncExitStack() as stack:
        both = [await stack.enter_async_context(opened(database_url)) for _ in range(2)]
        await both[0].store.routes.insert(a_route())
        yield both


@pytest.fixture
def node(nodes: list[Node]) -> Node:
    return nodes[0]


async def test_a_due_schedule_becomes_an_async_call_of_its_route(node: Node) -> None:
    schedule = await node.schedule(method="PUT", body=b"hello", headers=((b"x-a", b"b"),), priority=2)
    assert await node.scheduler.fire_due(NOON - SECOND) == 0
    assert await node.scheduler.fire_due(NOON) == 1
    (call,) = await node.calls()
    assert (call.type, call.status, call.path, call.priority, call.schedule) == ("async", "queued", "/hello", 2, "tick")
    request = await node.store.calls.request(call.id)
    assert request == schedule.request
    assert request is not None
    assert request.url == "http://localhost/r/demo/hello"
    assert await node.queue.known([call.id]) == {call.id}
    now = await node.now()
    assert (now.next_at, now.last_at, now.last_call_id) == (NOON + MINUTE, NOON, call.id)


async def test_two_nodes_fire_each_firing_once(nodes: list[Node]) -> None:
    for number in range(20):
        await nodes[0].schedule(f"s{number}")
    for minute in range(3):
        at = NOON + minute * MINUTE
        # One clock is behind the other's by less than the interval, and each node looks twice.
        looks = [node.scheduler.fire_due(at + lag) for node in nodes for lag in (timedelta(), SECOND)]
        assert sum(await asyncio.gather(*looks)) == 20
    fired = [call.schedule for call in await nodes[0].calls()]
    assert sorted(fired) == sorted(f"s{number}" for number in range(20) for _ in range(3))


async def test_a_clock_that_is_set_back_repeats_nothing(node: Node) -> None:
    await node.schedule()
    assert await node.scheduler.fire_due(NOON) == 1
    assert await node.scheduler.fire_due(NOON - 60 * MINUTE) == 0
    assert await node.scheduler.fire_due(NOON + SECOND) == 0
    assert await node.scheduler.fire_due(NOON + MINUTE) == 1


async def test_a_late_firing_is_made_once_and_shifts_nothing(node: Node) -> None:
    await node.schedule(interval_s=10)
    assert await node.scheduler.fire_due(NOON + 25 * SECOND) == 1
    assert (await node.now()).next_at == NOON + 30 * SECOND


async def test_missed_firings_are_left_out_or_made_up_for_by_one_call(node: Node) -> None:
    await node.schedule("skips", missed=MissedPolicy.SKIP)
    await node.schedule("makes-up", missed=MissedPolicy.ONCE)
    long_after = NOON + 10 * MINUTE + MISSED_AFTER + SECOND
    assert await node.scheduler.fire_due(long_after) == 1
    assert [call.schedule for call in await node.calls()] == ["makes-up"]
    for name in ("skips", "makes-up"):
        assert (await node.now(name)).next_at == NOON + 11 * MINUTE


async def test_a_firing_within_the_grace_is_not_missed(node: Node) -> None:
    await node.schedule(missed=MissedPolicy.SKIP)
    assert await node.scheduler.fire_due(NOON + MISSED_AFTER) == 1


async def test_firings_may_be_left_out_while_the_last_call_has_not_ended(node: Node) -> None:
    await node.schedule("skips", overlap=OverlapPolicy.SKIP)
    await node.schedule("overlaps", overlap=OverlapPolicy.ALLOW)
    assert await node.scheduler.fire_due(NOON) == 2
    assert await node.scheduler.fire_due(NOON + MINUTE) == 1
    last_call_id = (await node.now("skips")).last_call_id
    assert last_call_id is not None
    begun = await node.store.calls.begin_attempt(last_call_id, node="n", started_at=utc_now())
    assert begun is not None
    assert await node.scheduler.fire_due(NOON + 2 * MINUTE) == 1
    ended = begun.ended(begun.status.SUCCESS, completed_at=utc_now())
    assert await node.store.calls.finish(ended, an_attempt(), None, None)
    assert await node.scheduler.fire_due(NOON + 3 * MINUTE) == 2


async def test_a_last_call_whose_record_is_gone_has_ended(node: Node) -> None:
    await node.schedule(overlap=OverlapPolicy.SKIP)
    await node.scheduler.fire_due(NOON)
    (call,) = await node.calls()
    await node.store.calls.delete_unaccepted(call.id)
    assert await node.scheduler.fire_due(NOON + MINUTE) == 1


async def test_a_node_that_dies_before_it_dispatches_loses_no_firing(
    nodes: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    dying, other = nodes
    await dying.schedule()

    async def gone(_: Ticket) -> None:
        raise QueueUnavailableError("gone")

    monkeypatch.setattr(dying.queue, "dispatch", gone)
    assert await dying.scheduler.fire_due(NOON) == 1
    assert await other.scheduler.fire_due(NOON) == 0
    (call,) = await other.calls()
    assert await other.queue.known([call.id]) == set()
    sweeper = Sweeper(other.store.calls, other.queue, retention_s=60, is_running_here=lambda _: False)
    assert await sweeper.sweep(utc_now() + MINUTE) == 1
    assert await other.queue.known([call.id]) == {call.id}


async def test_a_zone_that_this_machine_does_not_know_holds_nobody_up(node: Node) -> None:
    await node.schedule("alien", cron="0 * * * *", interval_s=0, timezone="Mars/Olympus")
    await node.schedule("earthly")
    assert await node.scheduler.fire_due(NOON) == 1
    assert (await node.now("alien")).next_at == NOON


async def test_an_expression_that_is_never_due_again_ends_its_schedule(node: Node, monkeypatch: Any) -> None:
    await node.schedule()
    monkeypatch.setattr(scheduler_module, "next_due", lambda *_, **__: None)
    assert await node.scheduler.fire_due(NOON) == 1
    assert (await node.now()).next_at is None
    assert await node.scheduler.fire_due(NOON + MINUTE) == 0


# --- the loop


async def test_a_sleeping_scheduler_is_woken_by_a_new_schedule(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sleeps for longer than the test may take, and has looked before the schedule is there."""
    monkeypatch.setattr(scheduler_module, "MAX_SLEEP_S", 3600.0)
    looks = 0
    look = node.store.schedules.next_at

    async def counted(after: datetime) -> datetime | None:
        nonlocal looks
        looks += 1
        return await look(after)

    monkeypatch.setattr(node.store.schedules, "next_at", counted)
    schedules = Schedules(node.store.schedules, wake=node.scheduler.wake)
    async with TaskSet("test") as tasks:
        tasks.supervise(node.scheduler.run_forever(), name="scheduler")
        await wait_until(lambda: looks == 1)
        await schedules.create("demo", "tick", SchedulePatch(path="/hello", interval_s=1))
        await wait_until(node.calls)
    assert looks < 20  # it slept in between


async def test_a_database_that_is_away_for_a_while_is_waited_for(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    await node.schedule(next_at=utc_now())
    monkeypatch.setattr(scheduler_module, "RETRY_S", 0.01)
    due = node.store.schedules.due
    failures = iter([StoreUnavailableError("away")] * 3)

    async def unreliable(*args: Any, **kwargs: Any) -> list[Schedule]:
        if (failure := next(failures, None)) is not None:
            raise failure
        return await due(*args, **kwargs)

    monkeypatch.setattr(node.store.schedules, "due", unreliable)
    async with TaskSet("test") as tasks:
        tasks.supervise(node.scheduler.run_forever(), name="scheduler")
        await wait_until(node.calls)
    assert next(failures, None) is None


async def test_what_changes_when_it_is_due_makes_it_due_anew(node: Node) -> None:
    schedules = Schedules(node.store.schedules, wake=lambda: None)
    made = await schedules.create("demo", "tick", SchedulePatch(path="hello", interval_s=3600))
    assert made.path == "/hello"
    same = await schedules.update("demo", "tick", SchedulePatch(body=b"new", priority=1))
    assert same.next_at == made.next_at
    off = await schedules.update("demo", "tick", SchedulePatch(is_enabled=False))
    assert off.next_at is None
    on = await schedules.update("demo", "tick", SchedulePatch(is_enabled=True))
    assert on.next_at is not None
    assert made.next_at is not None
    assert on.next_at > made.next_at
    by_cron = await schedules.update("demo", "tick", SchedulePatch(cron="0 0 1 1 *"))
    assert (by_cron.cron, by_cron.interval_s) == ("0 0 1 1 *", 0)
    assert by_cron.next_at is not None
    assert (by_cron.next_at.month, by_cron.next_at.day, by_cron.next_at.hour) == (1, 1, 0)
