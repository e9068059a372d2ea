"""What the store promises about calls, the same on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from faas.clock import utc_now
from faas.errors import InvalidRequestError
from faas.ids import new_id
from faas.models import Attempt, Call, CallLog, CallResult, CallStatus, CallType, Reason, Usage
from faas.store.tables import IS_EXPIRING
from tests.support.samples import a_call, a_request, a_result, an_attempt

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from faas.store.engine import Store

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


async def accepted(store: Store, **changes: object) -> Call:
    call = a_call(**changes)
    await store.calls.insert(call, a_request())
    return call


async def begun(store: Store, **changes: object) -> Call:
    call = await accepted(store, **changes)
    running = await store.calls.begin_attempt(call.id, node="node-1", started_at=utc_now())
    assert running is not None
    return running


async def ended(store: Store, **changes: object) -> Call:
    call = await begun(store, **changes)
    done = call.ended(CallStatus.SUCCESS, completed_at=utc_now())
    assert await store.calls.finish(done, call.attempts[-1], a_result(), CallLog(data=b"log"))
    return done


# --- accepting


async def test_an_accepted_call_comes_back_with_every_byte_of_its_request(store: Store) -> None:
    call = a_call(
        status=CallStatus.DELAYED, priority=2, not_before=utc_now() + timedelta(hours=1), retry_of=new_id(), error="é\0"
    )
    request = a_request(
        headers=((b"x-a", b"\xff\x80 1"), (b"x-a", b"2"), (b"accept", b"*/*")), body=bytes(range(256)) * 3
    )
    await store.calls.insert(call, request)
    assert await store.calls.get(call.id) == replace(call, error="é\ufffd")
    assert await store.calls.request(call.id) == request
    assert await store.calls.result(call.id) is None
    assert await store.calls.logs(call.id) == {}


async def test_a_hundred_calls_accepted_at_once_are_all_there(store: Store) -> None:
    calls = [a_call() for _ in range(100)]
    await asyncio.gather(*[store.calls.insert(call, a_request(body=call.id.encode())) for call in calls])
    for call in calls:
        request = await store.calls.request(call.id)
        assert request is not None
        assert request.body == call.id.encode()


async def test_one_refused_call_does_not_take_its_neighbours_in_the_commit_along(store: Store) -> None:
    twice = await accepted(store)
    calls = [a_call() for _ in range(10)]
    outcomes = await asyncio.gather(
        *[store.calls.insert(call, a_request()) for call in [*calls[:5], twice, *calls[5:]]], return_exceptions=True
    )
    assert [index for index, outcome in enumerate(outcomes) if outcome is not None] == [5]
    assert len((await store.calls.list("demo"))[0]) == 11


async def test_an_unknown_call_is_none(store: Store) -> None:
    unknown = new_id()
    assert await store.calls.get(unknown) is None
    assert await store.calls.request(unknown) is None
    assert await store.calls.result(unknown) is None
    assert await store.calls.logs(unknown) == {}
    assert await store.calls.begin_attempt(unknown, node="n", started_at=utc_now()) is None
    assert await store.cancelling.end_waiting([unknown], utc_now()) == set()
    assert not await store.calls.requeue(unknown, 1)


async def test_an_accept_can_be_taken_back_until_somebody_began(store: Store) -> None:
    call = await accepted(store)
    await store.calls.delete_unaccepted(call.id)
    assert await store.calls.get(call.id) is None
    assert await store.calls.request(call.id) is None
    running = await begun(store)
    await store.calls.delete_unaccepted(running.id)
    assert await store.calls.requeue(running.id, 1)
    await store.calls.delete_unaccepted(running.id)
    assert await store.calls.get(running.id) is not None


# --- attempts


async def test_an_attempt_makes_a_waiting_call_run(store: Store) -> None:
    for status in (CallStatus.QUEUED, CallStatus.DELAYED):
        call = await accepted(store, status=status)
        at = utc_now()
        running = await store.calls.begin_attempt(call.id, node="node-7", started_at=at)
        assert running == replace(
            call,
            status=CallStatus.RUNNING,
            attempt=1,
            started_at=at,
            attempts=(Attempt(number=1, node="node-7", started_at=at),),
        )
        assert await store.calls.get(call.id) == running


async def test_a_second_attempt_closes_the_lost_first_one(store: Store) -> None:
    first = await begun(store)
    later = utc_now() + timedelta(seconds=9)
    second = await store.calls.begin_attempt(first.id, node="node-2", started_at=later)
    assert second is not None
    assert (second.status, second.attempt, second.started_at) == (CallStatus.RUNNING, 2, first.started_at)
    lost, present = second.attempts
    assert (lost.completed_at, lost.reason, lost.error) == (later, Reason.KILLED, "lost")
    assert (present.number, present.node, present.completed_at) == (2, "node-2", None)
    assert await store.calls.get(first.id) == second


async def test_concurrent_attempts_get_different_numbers(store: Store) -> None:
    call = await accepted(store)
    begun_calls = await asyncio.gather(
        *[store.calls.begin_attempt(call.id, node=f"node-{n}", started_at=utc_now()) for n in range(20)]
    )
    assert sorted(each.attempt for each in begun_calls if each) == list(range(1, 21))
    final = await store.calls.get(call.id)
    assert final is not None
    assert [attempt.number for attempt in final.attempts] == list(range(1, 21))
    assert [attempt.completed_at is None for attempt in final.attempts] == [False] * 19 + [True]


async def test_an_ended_call_gets_no_further_attempt(store: Store) -> None:
    call = await ended(store)
    before = await store.calls.get(call.id)
    assert await store.calls.begin_attempt(call.id, node="late", started_at=utc_now()) is None
    assert await store.calls.get(call.id) == before


async def test_the_end_of_a_call_keeps_result_log_and_evidence(store: Store) -> None:
    running = await begun(store)
    at = utc_now()
    attempt = replace(
        running.attempts[0],
        completed_at=at,
        container_id="c1",
        image_digest="sha256:1",
        exit_code=3,
        reason=Reason.BAD_EXIT,
        error="exit code 3",
        is_cold=True,
        queue_ms=0.25,
        start_ms=1.5,
        exec_ms=2.75,
        usage=Usage(memory_peak_bytes=2**33, cpu_s=0.125),
    )
    result = CallResult(
        status_code=500,
        headers=((b"content-type", b"application/json"), (b"x", b"\xfe")),
        body=b"\0\xff{}",
        is_truncated=True,
    )
    log = CallLog(data=b"oh\0\xff", is_truncated=True)
    done = running.ended(CallStatus.ERROR, completed_at=at, reason=Reason.BAD_EXIT, error="exit code 3")
    assert await store.calls.finish(done, attempt, result, log)
    assert await store.calls.get(running.id) == replace(done, result=result.info, attempts=(attempt,))
    assert await store.calls.result(running.id) == result
    assert await store.calls.logs(running.id) == {1: log}


async def test_only_the_latest_attempt_ends_a_call(store: Store) -> None:
    first = await begun(store)
    second = await store.calls.begin_attempt(first.id, node="node-2", started_at=utc_now())
    assert second is not None
    stale = first.ended(CallStatus.ERROR, completed_at=utc_now(), error="stale")
    assert not await store.calls.finish(stale, first.attempts[0], a_result(body=b"stale"), CallLog(data=b"stale"))
    assert await store.calls.get(first.id) == second
    assert await store.calls.result(first.id) is None
    good = second.ended(CallStatus.SUCCESS, completed_at=utc_now())
    assert await store.calls.finish(good, second.attempts[1], a_result(), None)
    assert not await store.calls.finish(good, second.attempts[1], a_result(body=b"again"), None)
    result = await store.calls.result(first.id)
    assert result is not None
    assert result.body == b"hello"


async def test_of_twenty_ends_of_one_attempt_one_counts(store: Store) -> None:
    running = await begun(store)
    done = running.ended(CallStatus.SUCCESS, completed_at=utc_now())
    outcomes = await asyncio.gather(
        *[store.calls.finish(done, running.attempts[0], a_result(body=b"%d" % n), None) for n in range(20)]
    )
    assert sum(outcomes) == 1
    result = await store.calls.result(running.id)
    assert result is not None
    assert result.body == b"%d" % outcomes.index(True)


async def test_a_call_that_has_not_ended_can_not_be_finished(store: Store) -> None:
    running = await begun(store)
    with pytest.raises(ValueError, match="running"):
        await store.calls.finish(running, running.attempts[0], None, None)


async def test_a_node_that_shuts_down_gives_its_call_back(store: Store) -> None:
    running = await begun(store)
    assert not await store.calls.requeue(running.id, 2)
    assert await store.calls.requeue(running.id, 1)
    assert not await store.calls.requeue(running.id, 1)
    waiting = await store.calls.get(running.id)
    assert waiting is not None
    assert (waiting.status, waiting.attempt) == (CallStatus.QUEUED, 1)
    assert waiting.attempts[0].completed_at is not None
    again = await store.calls.begin_attempt(running.id, node="node-2", started_at=utc_now())
    assert again is not None
    assert (again.status, again.attempt) == (CallStatus.RUNNING, 2)
    assert again.attempts[0].error == "the node shut down"


async def test_a_waiting_call_is_cancelled_and_a_running_one_is_not(store: Store) -> None:
    for status in (CallStatus.QUEUED, CallStatus.DELAYED):
        call = await accepted(store, status=status)
        at = utc_now()
        assert await store.cancelling.end_waiting([call.id], at) == {call.id}
        assert await store.cancelling.end_waiting([call.id], at) == set()
        cancelled = await store.calls.get(call.id)
        assert cancelled is not None
        assert (cancelled.status, cancelled.completed_at) == (CallStatus.CANCELLED, at)
        assert cancelled.reason is Reason.CLIENT_REQUEST
    running = await begun(store)
    assert await store.cancelling.end_waiting([running.id], utc_now()) == set()
    assert await store.calls.get(running.id) == running


async def test_a_call_is_either_cancelled_or_begun(store: Store) -> None:
    for _ in range(20):
        call = await accepted(store)
        is_cancelled, running = await asyncio.gather(
            store.cancelling.end_waiting([call.id], utc_now()),
            store.calls.begin_attempt(call.id, node="n", started_at=utc_now()),
        )
        assert bool(is_cancelled) == (running is None)


# --- sync calls


async def test_ended_sync_calls_are_recorded_in_one_go_and_once(store: Store) -> None:
    records = []
    for number in range(100):
        attempt = an_attempt(completed_at=utc_now(), exec_ms=1.0)
        call = a_call(
            type=CallType.SYNC, status=CallStatus.SUCCESS, completed_at=utc_now(), attempt=1, attempts=(attempt,)
        )
        result = a_result(body=b"%d" % number) if number % 2 else None
        log = CallLog(data=b"%d" % number) if number % 3 else None
        records.append((replace(call, result=result.info if result else None), result, log))
    await store.calls.record_many(records[:60])
    await store.calls.record_many(records)
    await store.calls.record_many([])
    for call, result, log in records:
        assert await store.calls.get(call.id) == call
        assert await store.calls.result(call.id) == result
        assert await store.calls.logs(call.id) == ({1: log} if log else {})


# --- looking


async def test_an_apps_calls_are_listed_newest_first_page_by_page(store: Store) -> None:
    calls = [await accepted(store) for _ in range(7)]
    await accepted(store, app_name="other")
    newest_first = sorted((call.id for call in calls), reverse=True)
    seen: list[str] = []
    cursor = None
    sizes = []
    while True:
        page, cursor = await store.calls.list("demo", cursor=cursor, limit=3)
        seen += [call.id for call in page]
        sizes.append(len(page))
        if cursor is None:
            break
    assert seen == newest_first
    assert sizes == [3, 3, 1]


async def test_the_last_full_page_has_no_cursor(store: Store) -> None:
    for _ in range(4):
        await accepted(store)
    _, cursor = await store.calls.list("demo", limit=2)
    page, cursor = await store.calls.list("demo", limit=2, cursor=cursor)
    assert (len(page), cursor) == (2, None)
    assert await store.calls.list("nobody") == ([], None)


async def test_a_listing_is_filtered(store: Store) -> None:
    old = await accepted(store, created_at=LONG_AGO)
    ended_call = await ended(store, path="/other")
    queued = await accepted(store, path="/other")

    async def ids(**filters: object) -> list[str]:
        page, _ = await store.calls.list("demo", **filters)  # type: ignore[arg-type]
        return [call.id for call in page]

    assert await ids(status=CallStatus.SUCCESS) == [ended_call.id]
    assert await ids(path="/hello") == [old.id]
    assert set(await ids(path="/other")) == {queued.id, ended_call.id}
    assert await ids(until=LONG_AGO) == [old.id]
    assert set(await ids(since=LONG_AGO + timedelta(seconds=1))) == {queued.id, ended_call.id}
    assert await ids(since=LONG_AGO, until=LONG_AGO, status=CallStatus.QUEUED) == [old.id]


async def test_a_listing_shows_each_calls_attempts(store: Store) -> None:
    running = await begun(store)
    again = await store.calls.begin_attempt(running.id, node="node-2", started_at=utc_now())
    waiting = await accepted(store)
    page, _ = await store.calls.list("demo")
    assert {call.id: call for call in page} == {running.id: again, waiting.id: waiting}


@pytest.mark.parametrize("cursor", ["!", "a", "_w", "ÿ"])
async def test_a_cursor_that_is_none_is_refused(store: Store, cursor: str) -> None:
    with pytest.raises(InvalidRequestError, match="cursor"):
        await store.calls.list("demo", cursor=cursor)


async def test_the_sweeper_sees_what_has_not_ended_in_the_order_of_ids(store: Store) -> None:
    at = utc_now() + timedelta(hours=1)
    delayed = await accepted(store, created_at=LONG_AGO, status=CallStatus.DELAYED, not_before=at, priority=2)
    running = await begun(store, created_at=LONG_AGO, app_name="other")
    queued = await accepted(store, created_at=LONG_AGO)
    await ended(store, created_at=LONG_AGO)
    await accepted(store)
    before = LONG_AGO + timedelta(days=1)
    found = await store.calls.unfinished(before=before, limit=10)
    assert found == sorted([(delayed.id, 2, at, "demo"), (running.id, 0, None, "other"), (queued.id, 0, None, "demo")])
    first = await store.calls.unfinished(before=before, limit=1)
    assert first == found[:1]
    assert await store.calls.unfinished(before=before, limit=10, after=first[0].call_id) == found[1:]


async def test_calls_are_counted_in_every_status(store: Store) -> None:
    assert await store.calls.count_by_status() == dict.fromkeys(CallStatus, 0)
    await accepted(store)
    await accepted(store)
    await begun(store)
    await ended(store)
    counted = await store.calls.count_by_status()
    assert {status: count for status, count in counted.items() if count} == {
        CallStatus.QUEUED: 2,
        CallStatus.RUNNING: 1,
        CallStatus.SUCCESS: 1,
    }


async def test_purging_takes_the_oldest_ended_calls_with_all_that_is_theirs(store: Store) -> None:
    old = [await ended(store, created_at=LONG_AGO + timedelta(days=day)) for day in range(3)]
    waiting = await accepted(store, created_at=LONG_AGO)
    young = await ended(store)
    before = LONG_AGO + timedelta(days=30)
    assert await store.calls.purge(before=before, limit=2) == 2
    assert await store.calls.get(old[2].id) is not None
    assert await store.calls.purge(before=before, limit=2) == 1
    assert await store.calls.purge(before=before, limit=2) == 0
    for call in old:
        assert await store.calls.get(call.id) is None
        assert await store.calls.request(call.id) is None
        assert await store.calls.result(call.id) is None
        assert await store.calls.logs(call.id) == {}
    assert await store.calls.get(waiting.id) is not None
    assert await store.calls.get(young.id) is not None


# --- many at once


async def test_attempts_that_begin_at_once_bring_each_its_own_call_and_request(store: Store) -> None:
    calls = [a_call() for _ in range(20)]
    await asyncio.gather(*[store.calls.insert(call, a_request(body=call.id.encode())) for call in calls])
    gone = new_id()
    begun = await asyncio.gather(
        *[store.calls.begin(call_id, node="n", started_at=utc_now()) for call_id in [*(c.id for c in calls), gone]]
    )
    assert begun.pop() is None
    for call, one in zip(calls, begun, strict=True):
        assert one is not None
        assert one.request is not None
        assert (one.call.id, one.call.attempt, one.request.body) == (call.id, 1, call.id.encode())
        assert one.call == await store.calls.get(call.id)


async def test_of_many_ends_at_once_only_those_of_a_latest_attempt_count(store: Store) -> None:
    running = [await begun(store) for _ in range(6)]
    again = await store.calls.begin_attempt(running[0].id, node="other", started_at=utc_now())
    assert again is not None
    twice = [*running, running[5]]
    answers = await asyncio.gather(
        *[
            store.calls.finish(
                call.ended(CallStatus.SUCCESS, completed_at=utc_now()),
                call.attempts[-1],
                a_result(body=str(number).encode()),
                None,
            )
            for number, call in enumerate(twice)
        ]
    )
    assert answers == [False, True, True, True, True, True, False]
    assert await store.calls.get(again.id) == again
    for number, call in enumerate(running[1:], 1):
        result = await store.calls.result(call.id)
        assert result is not None
        assert result.body == str(number).encode()


# --- expiring


async def test_only_calls_that_have_not_begun_in_time_are_ended_and_each_once(store: Store) -> None:
    now = utc_now()
    past, ahead = now - timedelta(seconds=1), now + timedelta(hours=1)
    running = await begun(store, expires_at=ahead)
    await accepted(store, expires_at=ahead)
    await accepted(store)
    late = await accepted(store, status=CallStatus.DELAYED, not_before=past, expires_at=past)
    also_late = await accepted(store, expires_at=past)

    assert await store.calls.begin_attempt(late.id, node="node-1", started_at=now) is None
    both = await asyncio.gather(*(store.expiring.end(now=now, limit=10) for _ in range(2)))
    ended = [call for calls in both for call in calls]
    assert sorted(call.id for call in ended) == sorted([late.id, also_late.id])
    assert await store.calls.get(late.id) in ended
    assert {(call.status, call.reason, call.completed_at) for call in ended} == {
        (CallStatus.ERROR, Reason.EXPIRED, now)
    }
    await store.expiring.end(now=ahead, limit=10)
    assert await store.calls.get(running.id) == running


async def test_a_call_that_began_in_time_runs_again_after_it(store: Store) -> None:
    call = await begun(store, expires_at=utc_now() + timedelta(hours=1))
    again = await store.calls.begin_attempt(call.id, node="node-2", started_at=utc_now() + timedelta(hours=2))
    assert again is not None
    assert again.attempt == 2


async def test_the_look_for_expired_calls_reads_no_others(store: Store) -> None:
    def plan(connection: Connection) -> str:
        statement = f"SELECT id FROM calls WHERE {IS_EXPIRING} AND expires_at <= '2030-01-01' ORDER BY expires_at"
        if store.database.is_sqlite:
            return str(connection.execute(text(f"EXPLAIN QUERY PLAN {statement}")).all())
        # A handful of rows is read faster without an index; the question is whether it can be used.
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        return str(connection.execute(text(f"EXPLAIN {statement}")).all())

    assert "ix_calls_expiring" in await store.database.read(plan)
