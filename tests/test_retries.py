"""Whether a failed call runs again."""

from __future__ import annotations

from datetime import timedelta

import pytest

from faas.calls.retries import judge
from faas.clock import utc_now
from faas.models import Call, CallStatus, Reason, ResultInfo
from faas.retry_policy import RetryPolicy
from tests.support.samples import a_call

NOW = utc_now()


def ended(status: CallStatus, status_code: int, reason: Reason | None = None, **changes: object) -> Call:
    result = ResultInfo(status_code=status_code, content_type="", size_bytes=0)
    return a_call(attempt=1, **changes).ended(status, completed_at=NOW, reason=reason, error="why", result=result)


def timed_out(**changes: object) -> Call:
    return ended(CallStatus.ERROR, 504, Reason.TIMEOUT, **changes)


def test_without_a_policy_a_call_ends_as_it_did() -> None:
    call = timed_out()
    verdict = judge(call, None, now=NOW, draw=0)
    assert (verdict.ended, verdict.waiting) == (call, None)


def test_a_failure_waits_for_its_retry_as_a_call_that_has_not_ended() -> None:
    call = timed_out(retries=1)
    verdict = judge(call, RetryPolicy(max_retries=2, delay_s=3, jitter=0), now=NOW, draw=0)
    assert verdict.retry_after_s == 6
    waiting = verdict.waiting
    assert waiting is not None
    assert (waiting.status, waiting.retries) == (CallStatus.DELAYED, 2)
    assert waiting.not_before == NOW + timedelta(seconds=6)
    assert (waiting.reason, waiting.error, waiting.result, waiting.completed_at) == (None, "", None, None)
    assert verdict.ended == call


def test_a_retry_without_a_delay_is_queued_at_once() -> None:
    verdict = judge(timed_out(), RetryPolicy(max_retries=1, delay_s=0), now=NOW, draw=0)
    assert verdict.retry_after_s == 0
    assert verdict.waiting is not None
    assert (verdict.waiting.status, verdict.waiting.not_before) == (CallStatus.QUEUED, None)


def test_when_the_retries_are_exhausted_the_call_is_a_dead_letter() -> None:
    verdict = judge(timed_out(retries=2), RetryPolicy(max_retries=2), now=NOW, draw=0)
    assert verdict.waiting is None
    assert (verdict.ended.is_dead_letter, verdict.ended.reason) == (True, Reason.TIMEOUT)


@pytest.mark.parametrize(
    ("call", "on", "is_retried"),
    [
        (timed_out(), ("timeout",), True),
        (timed_out(), (504,), True),
        (timed_out(), ("oom", 502), False),
        (ended(CallStatus.ERROR, 503, Reason.BAD_EXIT), ("bad_exit",), True),
        (ended(CallStatus.SUCCESS, 429), (429,), True),
        (ended(CallStatus.SUCCESS, 404), (429,), False),
        (ended(CallStatus.SUCCESS, 200), ("bad_exit",), False),
        (ended(CallStatus.ERROR, 404, Reason.CLIENT_REQUEST), ("bad_exit", 500), False),
        (ended(CallStatus.CANCELLED, 409, Reason.CLIENT_REQUEST), (409,), False),
    ],
)
def test_only_what_the_policy_names_is_retried(call: Call, on: tuple[str | int, ...], is_retried: bool) -> None:
    verdict = judge(call, RetryPolicy(max_retries=1, on=on), now=NOW, draw=0)
    assert (verdict.waiting is not None) is is_retried
    if not is_retried:
        assert verdict.ended == call, "and it is no dead letter either"


def test_a_status_that_the_policy_names_is_a_failure_when_the_retries_are_exhausted() -> None:
    call = ended(CallStatus.SUCCESS, 429, retries=1)
    dead = judge(call, RetryPolicy(max_retries=1, on=(429,)), now=NOW, draw=0).ended
    assert (dead.status, dead.reason, dead.is_dead_letter) == (CallStatus.ERROR, Reason.BAD_EXIT, True)
    assert "429" in dead.error
