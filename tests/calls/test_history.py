"""A call's history only grows, whatever becomes of it, and a position in it survives being written down."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import timedelta

import pytest

from faas.calls.history import AttemptEnded, Position, StateChange, changes_of
from faas.clock import utc_now
from faas.errors import InvalidRequestError
from faas.models import Call, CallStatus, CallType, Reason
from tests.support.samples import a_call, an_attempt

NOW = utc_now()


def said(call: Call) -> list[str]:
    """The history in words."""
    return [
        one.status.value + (f" {one.attempt}" if one.attempt else "")
        if isinstance(one, StateChange)
        else f"ended {one.attempt.number}"
        for one in changes_of(call)
    ]


def running(call: Call, number: int) -> Call:
    attempts = (*call.attempts, an_attempt(number=number, completed_at=None, reason=None))
    return replace(call, status=CallStatus.RUNNING, attempt=number, attempts=attempts)


def attempt_over(call: Call, reason: Reason | None, status: CallStatus = CallStatus.QUEUED) -> Call:
    latest = replace(call.attempts[-1], completed_at=NOW, reason=reason)
    return replace(call, status=status, attempts=(*call.attempts[:-1], latest))


def test_each_state_adds_to_what_was_there() -> None:
    queued = a_call()
    first = running(queued, 1)
    again = attempt_over(first, Reason.OOM)
    second = running(again, 2)
    done = attempt_over(second, None).ended(CallStatus.SUCCESS, completed_at=NOW)
    life = [queued, first, again, second, done]
    for earlier, later in itertools.pairwise(life):
        assert said(later)[: len(said(earlier))] == said(earlier)
        assert len(said(later)) > len(said(earlier))
    assert said(done) == ["queued", "running 1", "ended 1", "queued", "running 2", "ended 2", "success"]


def test_a_call_that_ends_while_it_waits_for_another_attempt_keeps_what_was_told() -> None:
    waiting = attempt_over(running(a_call(), 1), Reason.OOM)
    cancelled = waiting.ended(CallStatus.CANCELLED, completed_at=NOW, reason=Reason.CLIENT_REQUEST)
    assert said(cancelled) == [*said(waiting), "cancelled"]


def test_a_call_that_is_cancelled_while_it_runs_ends_with_its_attempt() -> None:
    cancelled = attempt_over(running(a_call(), 1), Reason.CLIENT_REQUEST).ended(
        CallStatus.CANCELLED, completed_at=NOW, reason=Reason.CLIENT_REQUEST, error="Cancelled"
    )
    assert said(cancelled) == ["queued", "running 1", "ended 1", "cancelled"]
    end = changes_of(cancelled)[-1]
    assert isinstance(end, StateChange)
    assert (end.at, end.reason, end.error) == (NOW, Reason.CLIENT_REQUEST, "Cancelled")


def test_a_call_for_later_begins_delayed() -> None:
    call = a_call()
    delayed = replace(call, status=CallStatus.DELAYED, not_before=call.created_at + timedelta(hours=1))
    assert said(delayed) == ["delayed"]


def test_an_attempt_that_waits_for_its_container_does_not_run_yet() -> None:
    begun = running(a_call(), 1)
    assert said(replace(begun, status=CallStatus.QUEUED)) == ["queued"]
    assert said(begun) == ["queued", "running 1"]


def test_a_sync_call_runs_before_its_attempt_is_written() -> None:
    call = a_call(type=CallType.SYNC, status=CallStatus.RUNNING, attempt=1, started_at=NOW)
    assert said(call) == ["queued", "running 1"]


def test_an_ended_attempt_comes_with_its_evidence() -> None:
    call = attempt_over(running(a_call(), 1), Reason.OOM)
    (ended,) = [one for one in changes_of(call) if isinstance(one, AttemptEnded)]
    assert ended.attempt == call.attempts[0]


def test_a_position_is_what_it_was_written_as() -> None:
    position = Position(changes=3, attempt=2, log_bytes=65_537)
    assert Position.parse(str(position)) == position


@pytest.mark.parametrize(
    "text", ["", "end", "1.2", "1.2.3.4", "a.b.c", "-1.0.0", "1.2.3\n", "٣.1.1x", "1" * 20 + ".0.0"]
)
def test_an_id_that_is_none_of_ours_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="Last-Event-ID"):
        Position.parse(text)
