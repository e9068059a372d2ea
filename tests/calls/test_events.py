"""What happens to calls reaches who listens on this node, in order, bounded."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from faas.calls import events as events_module
from faas.calls.events import CallEvent, CallEvents, Notice
from faas.calls.waiting import Waiters
from faas.models import CallStatus
from tests.support.samples import a_call

if TYPE_CHECKING:
    from faas.calls.events import Watch

SOON_S = 5.0
IDLE = "<CallEvents 0 calls waited for, 0 apps watched>"


@pytest.fixture
def waiters() -> Waiters:
    return Waiters()


@pytest.fixture
def events(waiters: Waiters) -> CallEvents:
    return CallEvents(waiters)


async def taken(watch: Watch) -> list[object]:
    """What a watcher hears: statuses, notices."""
    return [one.status if isinstance(one, CallEvent) else one for one in await watch.take(timeout_s=SOON_S)]


async def test_a_watcher_hears_its_apps_events_in_order_and_nothing_of_others(events: CallEvents) -> None:
    with events.watching("demo") as watch:
        for status in (CallStatus.QUEUED, CallStatus.RUNNING, CallStatus.SUCCESS):
            events.publish(a_call(status=status))
            events.publish(a_call(app_name="other", status=status))
        assert await taken(watch) == [CallStatus.QUEUED, CallStatus.RUNNING, CallStatus.SUCCESS]
        assert await watch.take(timeout_s=0) == []
    assert repr(events) == IDLE


async def test_a_watcher_that_waits_is_woken(events: CallEvents) -> None:
    with events.watching("demo") as watch:
        async with asyncio.TaskGroup() as group:
            taking = group.create_task(taken(watch))
            await asyncio.sleep(0)
            events.publish(a_call())
        assert taking.result() == [CallStatus.QUEUED]


async def test_who_waits_for_a_call_is_woken_by_its_events_here_and_elsewhere(
    events: CallEvents, waiters: Waiters
) -> None:
    heard: list[CallEvent] = []
    events.relay = heard.append
    call = a_call()
    with waiters.waiting(call.id) as changed, waiters.waiting(a_call().id) as other:
        events.publish(call)
        assert changed.done()
        assert not other.done()
    with waiters.waiting(call.id) as changed:
        events.relay = None
        events.hear(heard[0])
        assert changed.done()
    assert len(heard) == 1, "what comes from another node does not go out again"


async def test_a_watcher_that_falls_behind_is_told_so_and_hears_no_more(
    events: CallEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "MAX_UNREAD", 3)
    with events.watching("demo") as slow, events.watching("demo") as quick:
        for _ in range(3):
            events.publish(a_call())
        assert await taken(quick) == [CallStatus.QUEUED] * 3
        events.publish(a_call())
        events.publish(a_call())
        assert await taken(slow) == [Notice.TOO_SLOW]
        assert await taken(quick) == [CallStatus.QUEUED] * 2
        events.publish(a_call())
        assert await slow.take(timeout_s=0) == []


async def test_all_who_listen_hear_of_a_gap(events: CallEvents, waiters: Waiters) -> None:
    with events.watching("demo") as watch, waiters.waiting("some-call") as changed:
        events.miss()
        assert await taken(watch) == [Notice.GAP]
        assert changed.done()
        events.publish(a_call())
        assert await taken(watch) == [CallStatus.QUEUED]


async def test_a_node_that_shuts_down_lets_all_go(events: CallEvents, waiters: Waiters) -> None:
    with events.watching("demo") as watch, waiters.waiting("some-call") as changed:
        events.close()
        assert changed.done()
        assert await taken(watch) == [Notice.CLOSING]
    with events.watching("demo") as late:
        assert await taken(late) == [Notice.CLOSING]
