"""The life of a call: a real store and queue on SQLite, functions of this process."""

from __future__ import annotations

import asyncio
import json
import shutil
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from faas import sweeper as sweeper_module
from faas.api.error_answer import render_error
from faas.calls import execution as execution_module
from faas.calls import lookup as lookup_module
from faas.calls.acceptance import Acceptance
from faas.calls.control import Control
from faas.calls.dead_letters import DeadLetterBox
from faas.calls.events import CallEvents
from faas.calls.execution import Execution
from faas.calls.expiry import Expiry
from faas.calls.lookup import Lookup
from faas.calls.memory_share import MemoryShare
from faas.calls.submission import Submission
from faas.calls.waiting import Waiters
from faas.clock import utc_now
from faas.errors import (
    CallCancelledError,
    CallExpiredError,
    CallNotFinishedError,
    CallNotFoundError,
    EngineError,
    EngineUnavailableError,
    ResultNotKeptError,
)
from faas.metrics import Metrics
from faas.models import App, Call, CallStatus, FormatName, Reason
from faas.queue.sql import SqlQueue
from faas.recorder import Recorder
from faas.runner.functions import FunctionTable
from faas.runner.invocation import State
from faas.store.engine import Store, open_store
from faas.sweeper import Sweeper
from faas.tasks import TaskSet
from tests.support.programs import FunctionRequest, answer, hang, http_stream
from tests.support.rig import Rig, running_rig
from tests.support.samples import a_call, a_request, a_route, an_attempt
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from faas.queue.base import Lease
    from faas.runner.functions import Function


async def echo(request: FunctionRequest) -> bytes:
    return answer(request.body, 200, "Content-Type: text/echo")


async def upset(request: FunctionRequest) -> bytes:
    return answer(b"oh no", 200, "Fn-Http-Status: 500")


async def cat(process: Any) -> None:
    process.write(await process.stdin.read())


class NoSiblings:
    """Of a node that is one process."""

    async def find(self, call_id: str) -> None:
        pass

    async def cancel(self, call_id: str) -> bool:
        return False

    async def stats(self) -> tuple[()]:
        return ()


@dataclass(eq=False)
class Desk:
    """One node's calls with all that they stand on."""

    store: Store
    queue: SqlQueue
    rig: Rig
    table: FunctionTable
    submission: Submission
    execution: Execution
    lookup: Lookup
    control: Control
    dead_letters: DeadLetterBox
    waiters: Waiters
    events: CallEvents
    sweeper: Sweeper
    recorder: Recorder

    def function(self, image: str = "echo") -> Function:
        return self.table.get("demo", f"/{image}")

    async def submit(self, image: str = "echo", **changes: Any) -> Call:
        return await self.submission.submit(self.function(image), a_request(body=b"hello"), **changes)

    async def lease(self) -> Lease:
        (lease,) = await self.queue.lease(owner="test", max_count=1, lease_s=60, wait_s=0)
        return lease

    async def known(self, call: Call) -> bool:
        return call.id in await self.queue.known([call.id])


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("database") / "empty.db"

    async def make() -> None:
        async with open_store(f"sqlite+aiosqlite:///{path}"):
            pass

    asyncio.run(make())
    return path


@pytest.fixture
async def desk(empty_database: Path, tmp_path: Path) -> AsyncIterator[Desk]:
    path = shutil.copy(empty_database, tmp_path / "faas.db")
    root = tmp_path / "sockets"
    root.mkdir()
    programs = {name: http_stream(handler) for name, handler in (("echo", echo), ("hang", hang), ("upset", upset))}
    programs["cat"] = cat
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(f"sqlite+aiosqlite:///{path}"))
        rig = await stack.enter_async_context(running_rig(root, programs))
        metrics = Metrics()
        table = FunctionTable(metrics)
        for name in programs:
            route = a_route(image=name, path=f"/{name}", format=FormatName.HTTP_STREAM)
            table.route_changed(App(name="demo"), route)
        table.route_changed(App(name="demo"), a_route(image="cat", path="/cat"))
        recorder = Recorder(
            store.calls, metrics, node="me", recent_calls=10, per_second=1000, render_error=render_error
        )
        rig.agent._observe = recorder.observe
        queue = SqlQueue(store.database)
        waiters = Waiters()
        events = CallEvents(waiters)
        recorder.on_ended = waiters.wake
        execution = Execution(
            store,
            rig.agent,
            table,
            recorder,
            events,
            node="me",
            max_attempts=3,
            max_result_bytes=8,
            render_error=render_error,
            share=MemoryShare(rig.capacity.total_mib),
        )
        siblings = NoSiblings()
        lookup = Lookup(
            store,
            rig.agent,
            recorder,
            execution,
            waiters,
            siblings,
            retention_s=3600,
            render_error=render_error,
        )
        control = Control(store, queue, rig.agent, lookup, events, siblings)
        sweeper = Sweeper(store.calls, queue, retention_s=3600, is_running_here=rig.agent.running.__contains__)
        submission = Submission(Acceptance(store.calls, queue, without_queue=False), events)
        dead_letters = DeadLetterBox(store, queue, table, lookup, events)
        yield Desk(
            store,
            queue,
            rig,
            table,
            submission,
            execution,
            lookup,
            control,
            dead_letters,
            waiters,
            events,
            sweeper,
            recorder,
        )


def an_old_id(age: timedelta) -> str:
    millis = int((utc_now() - age).timestamp() * 1000)
    return f"{millis >> 16:08x}-{millis & 0xFFFF:04x}-7000-8000-000000000000"


# --- accepting


async def test_an_accepted_call_is_on_disk_and_in_line(desk: Desk) -> None:
    call = await desk.submit()
    assert (await desk.lookup.get(call.id)).status is CallStatus.QUEUED
    assert await desk.store.calls.request(call.id) == a_request(body=b"hello")
    assert (await desk.lease()).call_id == call.id


async def test_a_call_for_later_is_delayed(desk: Desk) -> None:
    call = await desk.submit(not_before=utc_now() + timedelta(hours=1))
    assert call.status is CallStatus.DELAYED
    assert await desk.queue.lease(owner="test", max_count=1, lease_s=60, wait_s=0) == []


async def test_a_call_that_expires_in_line_ends_and_never_runs(desk: Desk) -> None:
    call = await desk.submit(expires_at=utc_now())
    later = await desk.submit(expires_at=utc_now() + timedelta(hours=1))
    assert await desk.execution.run(call.id) is None
    assert (await desk.lookup.get(call.id)).attempt == 0

    with desk.waiters.waiting(call.id) as told:
        assert await Expiry(desk.store.expiring, desk.queue, CallEvents(desk.waiters)).end_due() == 1
        assert told.done()
    ended = await desk.lookup.get(call.id)
    assert (ended.status, ended.reason, ended.error) == (
        CallStatus.ERROR,
        Reason.EXPIRED,
        "The call expired before it began",
    )
    result = await desk.lookup.result(call.id)
    assert (result.status_code, json.loads(result.body)["error"]["code"]) == (504, "expired")
    assert (await desk.known(call), await desk.known(later)) == (False, True)
    assert (await desk.lookup.get(later.id)).status is CallStatus.QUEUED


async def test_a_call_that_expires_while_it_waits_for_a_container_ends_and_never_runs(desk: Desk) -> None:
    route = a_route(image="hang", path="/hang", format=FormatName.HTTP_STREAM, max_concurrency=1)
    desk.table.route_changed(App(name="demo"), route)
    busy, _ = desk.rig.call(desk.function("hang"))
    await wait_until(lambda: busy.state is State.RUNNING)
    call = await desk.submit("hang", expires_at=utc_now() + timedelta(milliseconds=50))
    assert await desk.execution.run(call.id) is None
    ended = await desk.lookup.get(call.id)
    assert (ended.status, ended.reason) == (CallStatus.ERROR, Reason.EXPIRED)
    assert (await desk.lookup.result(call.id)).status_code == 504
    desk.rig.agent.stop(busy, CallCancelledError())


# --- running


async def test_a_queued_call_runs_and_keeps_result_evidence_and_log(desk: Desk) -> None:
    call = await desk.submit()
    assert await desk.execution.run(call.id) is None
    ended = await desk.lookup.get(call.id)
    assert (ended.status, ended.reason, ended.attempt) == (CallStatus.SUCCESS, None, 1)
    (attempt,) = ended.attempts
    assert (attempt.number, attempt.node, attempt.is_cold) == (1, "me", True)
    assert attempt.container_id
    result = await desk.lookup.result(call.id)
    assert (result.status_code, result.body, result.is_truncated) == (200, b"hello", False)
    assert result.headers == ((b"content-type", b"text/echo"),)
    assert await desk.execution.run(call.id) is None, "an ended call is not run again"
    assert desk.rig.agent.completed == 1


async def test_a_result_beyond_the_limit_is_cut_and_says_so(desk: Desk) -> None:
    call = await desk.submission.submit(desk.function(), a_request(body=b"0123456789"))
    await desk.execution.run(call.id)
    result = await desk.lookup.result(call.id)
    assert (result.body, result.is_truncated) == (b"01234567", True)


async def test_a_functions_own_500_is_an_error_with_its_answer_kept(desk: Desk) -> None:
    call = await desk.submit("upset")
    await desk.execution.run(call.id)
    ended = await desk.lookup.get(call.id)
    assert (ended.status, ended.reason) == (CallStatus.ERROR, Reason.BAD_EXIT)
    assert (await desk.lookup.result(call.id)).body == b"oh no"


async def test_a_container_that_cannot_be_made_ends_the_call_in_error(desk: Desk) -> None:
    desk.rig.executor.fail("create", EngineError("no space left on device"))
    call = await desk.submit()
    assert await desk.execution.run(call.id) is None
    ended = await desk.lookup.get(call.id)
    assert (ended.status, ended.reason, ended.error) == (
        CallStatus.ERROR,
        Reason.START_FAILED,
        "no space left on device",
    )
    result = await desk.lookup.result(call.id)
    assert (result.status_code, dict(result.headers)[b"faas-error"]) == (502, b"engine_error")


async def test_a_call_that_the_platform_could_not_run_is_tried_again_later(desk: Desk) -> None:
    desk.rig.executor.fail("create", EngineUnavailableError("the engine is away"))
    call = await desk.submit()
    assert await desk.execution.run(call.id) == execution_module.RETRY_S
    assert (await desk.lookup.get(call.id)).status is CallStatus.QUEUED
    assert await desk.execution.run(call.id) is None
    ended = await desk.lookup.get(call.id)
    assert (ended.status, ended.attempt) == (CallStatus.SUCCESS, 2)


async def test_a_call_whose_route_is_gone_ends_in_error(desk: Desk) -> None:
    call = await desk.submit()
    desk.table.route_removed("demo", "/echo")
    assert await desk.execution.run(call.id) is None
    ended = await desk.lookup.get(call.id)
    assert (ended.status, ended.reason) == (CallStatus.ERROR, Reason.CLIENT_REQUEST)


async def test_a_call_that_takes_its_node_down_every_time_ends_in_error(desk: Desk) -> None:
    call = await desk.submit()
    for _ in range(3):
        await desk.store.calls.begin_attempt(call.id, node="dead", started_at=utc_now())
    assert await desk.execution.run(call.id) is None
    ended = await desk.lookup.get(call.id)
    assert (ended.status, ended.attempt) == (CallStatus.ERROR, 4)
    assert "max_attempts" in ended.error
    assert desk.rig.executor.made == 0


async def test_a_run_that_is_cancelled_kills_the_container_and_gives_the_call_back(desk: Desk) -> None:
    call = await desk.submit("hang")
    run = asyncio.create_task(desk.execution.run(call.id))
    await wait_until(lambda: [one.state for one in desk.rig.agent.running.values()] == [State.RUNNING])
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert not desk.rig.executor.running
    assert (await desk.lookup.get(call.id)).status is CallStatus.QUEUED


async def test_a_run_is_given_back_while_the_engine_is_away(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution_module, "GIVE_BACK_S", 0.02)
    call = await desk.submit("hang")
    run = asyncio.create_task(desk.execution.run(call.id))
    await wait_until(lambda: [one.state for one in desk.rig.agent.running.values()] == [State.RUNNING])
    with desk.rig.executor.hold("kill"):
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(run, 5)
        assert (await desk.lookup.get(call.id)).status is CallStatus.QUEUED
    await desk.rig.settled()


async def test_an_attempt_that_was_superseded_changes_nothing(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    call = await desk.submit("hang")
    run = asyncio.create_task(desk.execution.run(call.id))
    await wait_until(lambda: [one.state for one in desk.rig.agent.running.values()] == [State.RUNNING])
    second = await desk.store.calls.begin_attempt(call.id, node="other", started_at=utc_now())
    assert second is not None
    desk.rig.executor.running[0].end(1)
    await run
    assert "attempt_was_superseded" in caplog.text
    seen = await desk.lookup.get(call.id)
    assert (seen.status, seen.attempt) == (CallStatus.RUNNING, 2)


# --- looking


async def test_waiting_ends_the_moment_the_call_does(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup_module, "POLL_S", 60.0)
    call = await desk.submit()
    waiting = asyncio.create_task(desk.lookup.get(call.id, wait_s=60))
    await asyncio.sleep(0.01)
    await desk.execution.run(call.id)
    ended = await asyncio.wait_for(waiting, 2)
    assert ended.status is CallStatus.SUCCESS
    assert not len(desk.waiters)


async def test_waiting_sees_calls_that_end_elsewhere(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup_module, "POLL_S", 0.01)
    call = await desk.submit()
    waiting = asyncio.create_task(desk.lookup.get(call.id, wait_s=60))
    begun = await desk.store.calls.begin_attempt(call.id, node="other", started_at=utc_now())
    assert begun is not None
    await desk.store.calls.finish(
        begun.ended(CallStatus.SUCCESS, completed_at=utc_now()), begun.attempts[-1], None, None
    )
    assert (await asyncio.wait_for(waiting, 2)).status is CallStatus.SUCCESS


async def test_waiting_has_an_end_and_leaves_nothing(desk: Desk) -> None:
    call = await desk.submit()
    assert (await desk.lookup.get(call.id, wait_s=0.02)).status is CallStatus.QUEUED
    waiting = asyncio.create_task(desk.lookup.get(call.id, wait_s=60))
    await asyncio.sleep(0.005)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not len(desk.waiters)


async def test_a_call_that_nobody_knows_is_not_found_and_an_old_one_is_gone(desk: Desk) -> None:
    for unknown in ("no id at all", "00000000-0000-4000-8000-000000000000", an_old_id(timedelta(minutes=1))):
        with pytest.raises(CallNotFoundError):
            await desk.lookup.get(unknown)
    with pytest.raises(CallExpiredError, match="3600 s"):
        await desk.lookup.get(an_old_id(timedelta(hours=2)))


async def test_a_sync_call_is_seen_while_it_runs_and_right_after(desk: Desk) -> None:
    invocation, sink = desk.rig.call(desk.function("hang"))
    assert (await desk.lookup.get(invocation.id)).status is CallStatus.QUEUED
    await wait_until(lambda: invocation.state is State.RUNNING)
    running = await desk.lookup.get(invocation.id)
    assert (running.status, running.attempt) == (CallStatus.RUNNING, 1)
    assert (await desk.lookup.stats()).running == 1
    with pytest.raises(CallNotFinishedError, match="running"):
        await desk.lookup.result(invocation.id)
    cancelled = await desk.control.cancel(invocation.id)
    assert cancelled.status is CallStatus.CANCELLED
    assert sink.outcome == "cancelled"
    assert (await desk.lookup.result(invocation.id)).status_code == 409


async def test_the_answer_of_a_sync_call_is_not_kept(desk: Desk) -> None:
    invocation, sink = desk.rig.call(desk.function())
    await sink.ended.wait()
    ended = await desk.lookup.get(invocation.id)
    assert (ended.status, ended.result.size_bytes if ended.result else None) == (CallStatus.SUCCESS, 5)
    with pytest.raises(ResultNotKeptError):
        await desk.lookup.result(invocation.id)


async def test_the_log_of_a_cold_call_is_kept(desk: Desk) -> None:
    async def chatty(process: Any) -> int:
        process.write_error(b"why it failed\n")
        return 3

    desk.rig.executor.programs["cat"] = chatty
    call = await desk.submit("cat")
    await desk.execution.run(call.id)
    assert (await desk.lookup.log(call.id)).data == b"why it failed\n"
    ended = await desk.lookup.get(call.id)
    assert (ended.reason, ended.attempts[0].exit_code) == (Reason.BAD_EXIT, 3)
    with pytest.raises(CallNotFoundError):
        await desk.lookup.log(an_old_id(timedelta(0)))


# --- cancelling


async def test_a_cancelled_call_in_line_never_runs(desk: Desk) -> None:
    call = await desk.submit()
    waiting = asyncio.create_task(desk.lookup.get(call.id, wait_s=60))
    await asyncio.sleep(0.005)
    cancelled = await desk.control.cancel(call.id)
    assert (cancelled.status, cancelled.reason) == (CallStatus.CANCELLED, Reason.CLIENT_REQUEST)
    assert (await asyncio.wait_for(waiting, 2)).status is CallStatus.CANCELLED
    assert not await desk.known(call)
    assert await desk.execution.run(call.id) is None
    assert desk.rig.executor.made == 0
    assert (await desk.lookup.result(call.id)).status_code == CallCancelledError.http_status


async def test_a_cancelled_running_call_is_dead_when_cancel_returns(desk: Desk) -> None:
    call = await desk.submit("hang")
    run = asyncio.create_task(desk.execution.run(call.id))
    await wait_until(lambda: [one.state for one in desk.rig.agent.running.values()] == [State.RUNNING])
    cancelled = await desk.control.cancel(call.id)
    assert cancelled.status is CallStatus.CANCELLED
    assert not desk.rig.executor.running
    await run


async def test_an_ended_call_stays_as_it_was(desk: Desk) -> None:
    call = await desk.submit()
    await desk.execution.run(call.id)
    assert (await desk.control.cancel(call.id)).status is CallStatus.SUCCESS


# --- housekeeping


async def test_what_the_queue_has_lost_is_dispatched_again_and_nothing_else(desk: Desk) -> None:
    leased = await desk.submit()
    await desk.lease()
    lost, in_line, ended = [await desk.submit() for _ in range(3)]
    running = await desk.submit("hang")
    run = asyncio.create_task(desk.execution.run(running.id))
    await desk.execution.run(ended.id)
    for call in (lost, ended, running):
        await desk.queue.discard(call.id)
    await wait_until(lambda: running.id in desk.rig.agent.running)
    assert await desk.sweeper.sweep(utc_now() + timedelta(seconds=1)) == 1
    assert [await desk.known(one) for one in (lost, in_line, leased, ended, running)] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert await desk.sweeper.sweep(utc_now() + timedelta(seconds=1)) == 0
    await desk.control.cancel(running.id)
    await run


async def test_a_sweep_goes_through_all_pages_and_leaves_young_calls_alone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper_module, "PAGE", 2)
    for _ in range(5):
        call = a_call(path="/echo")
        await desk.store.calls.insert(call, a_request())
    assert await desk.sweeper.sweep(utc_now() - timedelta(seconds=10)) == 0
    assert await desk.sweeper.sweep(utc_now() + timedelta(seconds=1)) == 5


async def test_only_ended_calls_past_their_retention_are_purged(desk: Desk) -> None:
    old = utc_now() - timedelta(hours=2)
    kept = a_call(created_at=old)
    purged = a_call(created_at=old, status=CallStatus.SUCCESS, completed_at=old, attempts=(an_attempt(),))
    await desk.store.calls.insert(kept, a_request())
    await desk.store.calls.record_many([(purged, None, None)])
    async with TaskSet("test") as tasks:
        tasks.supervise(desk.sweeper.purge_forever(), name="purge")

        async def is_gone() -> bool:
            return await desk.store.calls.get(purged.id) is None

        await wait_until(is_gone)
    assert await desk.store.calls.get(kept.id) is not None
