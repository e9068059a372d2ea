"""What the store promises about calls that are retried, the same on SQLite and PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from faas.clock import utc_now
from faas.models import Call, CallLog, CallStatus, Reason, Usage
from tests.support.samples import a_call, a_request

if TYPE_CHECKING:
    from faas.store.engine import Store


async def running(store: Store) -> Call:
    call = a_call()
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
