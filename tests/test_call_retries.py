"""Failed calls run again, by policy and by hand: a real store and queue on SQLite, functions of this process."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from faas.clock import utc_now
from faas.errors import (
    CallNotEndedError,
    CallNotFinishedError,
    CallNotFoundError,
    CallRetriedError,
    InvalidRequestError,
    QueueUnavailableError,
    RequestNotKeptError,
)
from faas.models import App, Call, CallFilter, CallStatus, FormatName, Reason
from faas.retry_policy import RetryPolicy
from tests.support.samples import a_request, a_route
from tests.support.waiting import wait_until
from tests.test_calls import Desk, desk, empty_database

__all__ = ["desk", "empty_database"]


# --- by policy


def have_retried(desk: Desk, image: str, **policy: Any) -> None:
    """Give a route retries; without a delay, unless the policy says so."""
    values = {"max_retries": 2, "delay_s": 0, **policy}
    image_format = FormatName.DEFAULT if image == "cat" else FormatName.HTTP_STREAM
    route = a_route(image=image, path=f"/{image}", format=image_format, retries=RetryPolicy(**values))
    desk.table.route_changed(App(name="demo"), route)


async def test_a_failed_call_runs_again_until_its_retries_are_exhausted(desk: Desk) -> None:
    have_retried(desk, "upset")
    call = await desk.submit("upset")
    for retries in (1, 2):
        assert await desk.execution.run(call.id) == 0
        waiting = await desk.lookup.get(call.id)
        assert (waiting.status, waiting.retries, waiting.is_dead_letter) == (CallStatus.QUEUED, retries, False)
        with pytest.raises(CallNotFinishedError):
            await desk.lookup.result(call.id)
    assert await desk.execution.run(call.id) is None
    dead = await desk.lookup.get(call.id)
    assert (dead.status, dead.reason, dead.is_dead_letter) == (CallStatus.ERROR, Reason.BAD_EXIT, True)
    assert [(one.number, one.reason) for one in dead.attempts] == [(n, Reason.BAD_EXIT) for n in (1, 2, 3)]
    assert all(one.container_id and one.completed_at and one.exec_ms for one in dead.attempts)
    assert (await desk.lookup.result(call.id)).body == b"oh no"


async def test_a_retry_with_a_delay_is_a_delayed_call(desk: Desk) -> None:
    have_retried(desk, "upset", delay_s=60, jitter=0)
    call = await desk.submit("upset")
    assert await desk.execution.run(call.id) == 60
    waiting = await desk.lookup.get(call.id)
    assert waiting.status is CallStatus.DELAYED
    assert waiting.not_before is not None
    assert waiting.not_before > utc_now() + timedelta(seconds=30)
    cancelled = await desk.control.cancel(call.id)
    assert cancelled.status is CallStatus.CANCELLED


async def test_what_the_policy_does_not_name_ends_the_call_and_leaves_no_dead_letter(desk: Desk) -> None:
    have_retried(desk, "upset", on=("timeout",))
    call = await desk.submit("upset")
    assert await desk.execution.run(call.id) is None
    ended = await desk.lookup.get(call.id)
    assert (ended.status, ended.attempt, ended.is_dead_letter) == (CallStatus.ERROR, 1, False)


async def test_attempts_that_the_platform_lost_take_no_retry_away(desk: Desk) -> None:
    have_retried(desk, "upset", max_retries=1)
    call = await desk.submit("upset")
    for _ in range(2):
        await desk.store.calls.begin_attempt(call.id, node="dead", started_at=utc_now())
    assert await desk.execution.run(call.id) == 0, "the third attempt, and the first that failed by itself"
    assert await desk.execution.run(call.id) is None
    dead = await desk.lookup.get(call.id)
    assert (dead.attempt, dead.retries, dead.is_dead_letter) == (4, 1, True)


async def test_a_call_that_takes_its_node_down_every_time_is_a_dead_letter(desk: Desk) -> None:
    call = await desk.submit()
    for _ in range(3):
        await desk.store.calls.begin_attempt(call.id, node="dead", started_at=utc_now())
    await desk.execution.run(call.id)
    assert (await desk.lookup.get(call.id)).is_dead_letter


async def test_each_attempt_has_its_own_log_and_the_call_has_all(desk: Desk) -> None:
    lines = iter((b"first\n", b"second\n"))

    async def grumble(process: Any) -> int:
        process.write_error(next(lines))
        return 3

    desk.rig.executor.programs["cat"] = grumble
    have_retried(desk, "cat", max_retries=1)
    call = await desk.submit("cat")
    await desk.execution.run(call.id)
    assert (await desk.lookup.log(call.id)).data == b"first\n"
    await desk.execution.run(call.id)
    assert (await desk.lookup.log(call.id, attempt=1)).data == b"first\n"
    assert (await desk.lookup.log(call.id, attempt=2)).data == b"second\n"
    assert (await desk.lookup.log(call.id)).data == b"first\nsecond\n"
    with pytest.raises(InvalidRequestError, match="no attempt 3"):
        await desk.lookup.log(call.id, attempt=3)


async def test_an_attempt_that_is_given_back_is_kept_with_what_it_was_and_wrote(desk: Desk) -> None:
    async def chatty(process: Any) -> None:
        process.write_error(b"begun\n")
        await asyncio.Event().wait()

    desk.rig.executor.programs["cat"] = chatty
    call = await desk.submit("cat")
    run = asyncio.create_task(desk.execution.run(call.id))

    async def has_written() -> bool:
        return (await desk.lookup.log(call.id)).data == b"begun\n"

    await wait_until(has_written)
    run.cancel()
    await asyncio.wait([run])
    (attempt,) = (await desk.lookup.get(call.id)).attempts
    assert (attempt.reason, attempt.error, bool(attempt.container_id)) == (
        Reason.KILLED,
        "The call was given back",
        True,
    )
    assert (await desk.lookup.log(call.id, attempt=1)).data == b"begun\n"


# --- by hand


async def dead_letter(desk: Desk) -> Call:
    have_retried(desk, "upset", max_retries=1)
    call = await desk.submit("upset", priority=2)
    for _ in range(2):
        await desk.execution.run(call.id)
    dead = await desk.lookup.get(call.id)
    assert dead.is_dead_letter
    await desk.queue.discard(call.id)
    return dead


async def test_an_ended_call_is_retried_once_as_a_new_one_with_the_same_request(desk: Desk) -> None:
    dead = await dead_letter(desk)
    retries = await asyncio.gather(*[desk.dead_letters.retry(dead.id) for _ in range(3)], return_exceptions=True)
    (retry,) = [one for one in retries if isinstance(one, Call)]
    assert [one.retried_by for one in retries if isinstance(one, CallRetriedError)] == [retry.id] * 2
    assert (retry.retry_of, retry.priority, retry.status) == (dead.id, 2, CallStatus.QUEUED)
    old = await desk.lookup.get(dead.id)
    assert (old.retried_by, old.is_dead_letter, old.status) == (retry.id, False, CallStatus.ERROR)
    assert await desk.store.calls.request(retry.id) == a_request(body=b"hello")
    assert (await desk.lease()).call_id == retry.id


async def test_a_call_that_has_not_ended_is_not_retried(desk: Desk) -> None:
    call = await desk.submit()
    with pytest.raises(CallNotEndedError, match="queued"):
        await desk.dead_letters.retry(call.id)


async def test_a_sync_call_is_not_retried_because_its_request_is_not_kept(desk: Desk) -> None:
    invocation, sink = desk.rig.call(desk.function())
    await sink.ended.wait()
    with pytest.raises(RequestNotKeptError):
        await desk.dead_letters.retry(invocation.id)


async def test_a_retry_that_the_queue_does_not_take_runs_when_it_is_back(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_ticket: object) -> None:
        raise QueueUnavailableError("The queue does not answer")

    dead = await dead_letter(desk)
    with monkeypatch.context() as away:
        away.setattr(desk.queue, "dispatch", fail)
        retry = await desk.dead_letters.retry(dead.id)
    assert not await desk.known(retry)
    await desk.sweeper.sweep(utc_now() + timedelta(seconds=1))
    assert await desk.known(retry)


async def test_dead_letters_are_retried_a_page_at_a_time_and_stay_when_their_route_is_gone(desk: Desk) -> None:
    dead = [await dead_letter(desk) for _ in range(3)]
    box = CallFilter(app_name="demo", path="/upset", reason=Reason.BAD_EXIT, is_dead_letter=True)
    assert [one.id for one in (await desk.dead_letters.list_calls(box, limit=9, cursor=None))[0]] == [
        one.id for one in reversed(dead)
    ]
    first = await desk.dead_letters.redrive(box, limit=2, cursor=None)
    assert (first.count, first.skipped, first.next_cursor is None) == (2, 0, False)
    desk.table.route_removed("demo", "/upset")
    second = await desk.dead_letters.redrive(box, limit=2, cursor=first.next_cursor)
    assert (second.count, second.skipped, second.next_cursor) == (0, 1, None)
    left, _ = await desk.dead_letters.list_calls(box, limit=9, cursor=None)
    assert [one.id for one in left] == [dead[0].id]


async def test_purged_dead_letters_are_gone_and_other_calls_stay(desk: Desk) -> None:
    dead = [await dead_letter(desk) for _ in range(3)]
    failed = await desk.submit("cat")
    await desk.execution.run(failed.id)
    box = CallFilter(app_name="demo", is_dead_letter=True)
    none = await desk.dead_letters.purge(replace(box, reason=Reason.OOM), limit=9, cursor=None)
    assert (none.count, none.next_cursor) == (0, None)
    done = await desk.dead_letters.purge(box, limit=2, cursor=None)
    assert (done.count, done.next_cursor is None) == (2, False)
    done = await desk.dead_letters.purge(box, limit=2, cursor=done.next_cursor)
    assert (done.count, done.next_cursor) == (1, None)
    for call in dead:
        with pytest.raises(CallNotFoundError):
            await desk.lookup.get(call.id)
    assert (await desk.lookup.get(failed.id)).status is CallStatus.SUCCESS
