"""What the store promises about calls that are retried, the same on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from faas.clock import utc_now
from faas.models import Call, CallFilter, CallLog, CallStatus, Reason, Usage
from faas.store.tables import IS_TO_CANCEL
from tests.support.samples import a_call, a_request

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from faas.store.engine import Store


async def running(store: Store, **changes: Any) -> Call:
    call = a_call(**changes)
    await store.calls.insert(call, a_request())
    begun = await store.calls.begin_attempt(call.id, node="node-1", started_at=utc_now())
    assert begun is not None
    return begun


async def test_an_attempt_that_is_retried_is_kept_with_its_evidence_and_its_log(store: Store) -> None:
    call = await running(store)
    failed = replace(
        call.attempts[-1],
        completed_at=utc_now(),
        reason=Reason.OOM,
        error="too much",
        exit_code=137,
        usage=Usage(memory_peak_bytes=2**20, cpu_s=0.5),
    )
    due = utc_now() + timedelta(seconds=5)
    waiting = replace(call, status=CallStatus.DELAYED, retries=1, not_before=due)
    log = CallLog(data=b"first", is_truncated=True)
    assert await store.retrying.put_back(waiting, failed, log)
    assert await store.calls.get(call.id) == replace(waiting, attempts=(failed,))
    assert await store.calls.logs(call.id) == {1: log}
    assert await store.calls.request(call.id) == a_request()

    again = await store.calls.begin_attempt(call.id, node="node-2", started_at=utc_now())
    assert again is not None
    assert (again.attempt, again.retries, again.attempts[0]) == (2, 1, failed)
    done = again.ended(CallStatus.SUCCESS, completed_at=utc_now())
    assert await store.calls.finish(done, again.attempts[-1], None, CallLog(data=b"second"))
    assert await store.calls.logs(call.id) == {1: log, 2: CallLog(data=b"second")}
    longer = CallLog(data=b"first and late")
    await store.calls.replace_log(call.id, 1, longer)
    assert await store.calls.logs(call.id) == {1: longer, 2: CallLog(data=b"second")}


async def test_an_attempt_that_is_not_the_latest_puts_nothing_back(store: Store) -> None:
    first = await running(store)
    second = await store.calls.begin_attempt(first.id, node="node-2", started_at=utc_now())
    waiting = replace(first, status=CallStatus.QUEUED, retries=1)
    assert not await store.retrying.put_back(waiting, first.attempts[-1], CallLog(data=b"stale"))
    assert await store.calls.get(first.id) == second
    assert await store.calls.logs(first.id) == {}


# --- dead letters


BOX = CallFilter(app_name="demo", is_dead_letter=True)


async def dead(store: Store, **changes: Any) -> Call:
    call = await running(store, **changes)
    ended = call.ended(CallStatus.ERROR, completed_at=utc_now(), reason=Reason.TIMEOUT, error="late")
    ended = replace(ended, is_dead_letter=True)
    assert await store.calls.finish(ended, ended.attempts[-1], None, CallLog(data=b"log"))
    return ended


async def test_dead_letters_are_found_by_what_a_filter_says(store: Store) -> None:
    letters = [await dead(store, path=path) for path in ("/a", "/b", "/b")]
    await dead(store, app_name="other")
    await running(store, path="/b")
    page, cursor = await store.calls.page(BOX, cursor=None, limit=2)
    assert [call.id for call in page] == [letters[2].id, letters[1].id]
    page, cursor = await store.calls.page(BOX, cursor=cursor, limit=2)
    assert ([call.id for call in page], cursor) == ([letters[0].id], None)
    for narrower, count in (
        (replace(BOX, path="/b"), 2),
        (replace(BOX, reason=Reason.TIMEOUT), 3),
        (replace(BOX, reason=Reason.OOM), 0),
        (replace(BOX, since=letters[1].created_at), 2),
        (replace(BOX, until=letters[0].created_at), 1),
        (replace(BOX, statuses=(CallStatus.SUCCESS,)), 0),
    ):
        assert len((await store.calls.page(narrower, cursor=None, limit=9))[0]) == count


async def test_one_of_two_who_retry_the_same_call_is_accepted(store: Store) -> None:
    letter = await dead(store)
    retries = [a_call(retry_of=letter.id) for _ in range(2)]
    accepted = await asyncio.gather(*[store.dead_letters.insert_retry(one, a_request(body=b"x")) for one in retries])
    assert sorted(accepted) == [False, True]
    (retry,) = [one for one, is_accepted in zip(retries, accepted, strict=True) if is_accepted]
    (refused,) = [one for one in retries if one is not retry]
    assert await store.calls.get(retry.id) == retry
    assert await store.calls.request(retry.id) == a_request(body=b"x")
    assert await store.calls.get(refused.id) is None
    old = await store.calls.get(letter.id)
    assert old is not None
    assert (old.retried_by, old.is_dead_letter) == (retry.id, False)


async def test_only_dead_letters_are_purged_with_all_that_is_theirs(store: Store) -> None:
    letter, alive = await dead(store), await running(store)
    assert await store.dead_letters.purge([letter.id, alive.id]) == 1
    assert await store.calls.get(letter.id) is None
    assert await store.calls.logs(letter.id) == {}
    assert await store.calls.get(alive.id) is not None


# --- cancelling from another node


async def test_a_running_call_is_asked_for_until_it_ends_and_a_waiting_one_is_not(store: Store) -> None:
    call, waiting = await running(store), a_call()
    await store.calls.insert(waiting, a_request())
    for one in (call, waiting):
        await store.cancelling.request(one.id, utc_now())
    assert await store.cancelling.requested() == {call.id}
    assert not await store.retrying.put_back(
        replace(call, status=CallStatus.QUEUED, retries=1), call.attempts[-1], None
    )
    done = call.ended(CallStatus.CANCELLED, completed_at=utc_now(), reason=Reason.CLIENT_REQUEST)
    assert await store.calls.finish(done, call.attempts[-1], None, None)
    assert await store.cancelling.requested() == set()


async def test_listings_and_the_look_for_cancelled_calls_read_only_what_they_need(store: Store) -> None:
    """By their partial indexes, however many calls there are."""
    statements = {
        "ix_calls_dead_letters": "SELECT id FROM calls WHERE app_name = 'demo' AND is_dead_letter ORDER BY id DESC",
        "ix_calls_to_cancel": f"SELECT id FROM calls WHERE {IS_TO_CANCEL}",
    }

    def plan(connection: Connection, statement: str) -> str:
        if store.database.is_sqlite:
            return str(connection.execute(text(f"EXPLAIN QUERY PLAN {statement}")).all())
        # A handful of rows is read faster without an index; the question is whether it can be used.
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        return str(connection.execute(text(f"EXPLAIN {statement}")).all())

    for index, statement in statements.items():
        assert index in await store.database.read(partial(plan, statement=statement))
