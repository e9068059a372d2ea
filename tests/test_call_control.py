"""Ending calls, one or many, here and on another node: a real store and queue on SQLite, functions of this process."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from faas.api.error_answer import render_error
from faas.calls import control as control_module
from faas.calls.control import Control
from faas.calls.events import CallEvents
from faas.calls.lookup import Lookup
from faas.calls.waiting import Waiters
from faas.clock import utc_now
from faas.metrics import Metrics
from faas.models import CallFilter, CallStatus, Reason
from faas.recorder import Recorder
from faas.runner.invocation import State
from tests.support.rig import running_rig
from tests.support.waiting import wait_until
from tests.test_calls import Desk, NoSiblings, desk, empty_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import pytest

__all__ = ["desk", "empty_database"]


@asynccontextmanager
async def elsewhere(desk: Desk, tmp_path: Path) -> AsyncIterator[Control]:
    """The control of another node on the same database, which runs nothing."""
    root = tmp_path / "elsewhere"
    root.mkdir()
    async with running_rig(root, {}) as rig:
        events = CallEvents(Waiters())
        recorder = Recorder(
            desk.store.calls, Metrics(), node="other", recent_calls=10, per_second=1000, render_error=render_error
        )
        lookup = Lookup(
            desk.store,
            rig.agent,
            recorder,
            desk.execution,
            events.waiters,
            NoSiblings(),
            retention_s=3600,
            render_error=render_error,
        )
        yield Control(desk.store, desk.queue, rig.agent, lookup, events, NoSiblings())


async def test_a_call_of_another_node_is_cancelled_there(desk: Desk, tmp_path: Path) -> None:
    call = await desk.submit("hang")
    run = asyncio.create_task(desk.execution.run(call.id))
    await wait_until(lambda: [one.state for one in desk.rig.agent.running.values()] == [State.RUNNING])
    async with elsewhere(desk, tmp_path) as control:
        watch = asyncio.create_task(desk.control.watch_forever())
        cancelled = await control.cancel(call.id)
        watch.cancel()
    assert (cancelled.status, cancelled.reason) == (CallStatus.CANCELLED, Reason.CLIENT_REQUEST)
    assert not desk.rig.executor.running
    await run


async def test_a_call_whose_node_does_not_obey_is_shown_as_it_is_and_never_runs_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_module, "CANCEL_S", 0.1)
    call = await desk.submit()
    await desk.store.calls.begin_attempt(call.id, node="dead", started_at=utc_now())
    assert (await desk.control.cancel(call.id)).status is CallStatus.RUNNING
    assert await desk.execution.run(call.id) is None, "its lease ran out, and it came here"
    assert (await desk.lookup.get(call.id)).status is CallStatus.CANCELLED
    assert desk.rig.executor.made == 0


async def test_a_call_that_is_put_back_while_it_is_to_be_cancelled_ends(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_module, "WATCH_S", 0.01)
    call = await desk.submit()
    begun = await desk.store.calls.begin_attempt(call.id, node="node-2", started_at=utc_now())
    assert begun is not None
    cancelling = asyncio.create_task(desk.control.cancel(call.id))

    async def is_asked() -> bool:
        return bool(await desk.store.cancelling.requested())

    await wait_until(is_asked)
    waiting = replace(begun, status=CallStatus.QUEUED, retries=1)
    assert not await desk.store.retrying.put_back(waiting, begun.attempts[-1], None), "no retry of an unwanted call"
    assert await desk.store.calls.requeue(call.id, begun.attempt)
    assert (await asyncio.wait_for(cancelling, 5)).status is CallStatus.CANCELLED


async def test_all_calls_of_a_filter_are_cancelled_whatever_their_state(desk: Desk) -> None:
    running = await desk.submit("hang")
    run = asyncio.create_task(desk.execution.run(running.id))
    await wait_until(lambda: [one.state for one in desk.rig.agent.running.values()] == [State.RUNNING])
    queued = [await desk.submit() for _ in range(3)]
    delayed = await desk.submit(not_before=utc_now() + timedelta(hours=1))
    other = await desk.submit("upset")
    ended = await desk.submit("cat")
    await desk.execution.run(ended.id)

    done = await desk.control.cancel_many(CallFilter(app_name="demo", path="/echo"), limit=2, cursor=None)
    assert (done.count, done.skipped, done.next_cursor is None) == (2, 0, False)
    rest = await desk.control.cancel_many(CallFilter(app_name="demo", path="/echo"), limit=9, cursor=done.next_cursor)
    assert (rest.count, rest.next_cursor) == (2, None)
    assert (await desk.lookup.get(other.id)).status is CallStatus.QUEUED
    everything = await desk.control.cancel_many(CallFilter(app_name="demo"), limit=9, cursor=None)
    assert (everything.count, everything.skipped) == (2, 0)
    assert not desk.rig.executor.running
    await run
    for call in [running, *queued, delayed, other]:
        assert (await desk.lookup.get(call.id)).status is CallStatus.CANCELLED
        assert not await desk.known(call) or call is running
    assert (await desk.lookup.get(ended.id)).status is CallStatus.SUCCESS
