"""Records of sync calls: here at once, in the database soon, never in the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from faas.errors import (
    CallCancelledError,
    CallTimeoutError,
    ClientGoneError,
    FaasError,
    NoCapacityError,
    OutOfMemoryError,
    StoreUnavailableError,
)
from faas.metrics import Metrics
from faas.models import CallLog, CallResult, CallStatus, CallType, Reason
from faas.recorder import Recorder, outcome_of
from faas.runner.call_log import LogBuffer
from tests.support.rig import a_function, an_invocation

if TYPE_CHECKING:
    from faas.runner.invocation import Invocation


class Store:
    """Keeps what is recorded."""

    def __init__(self) -> None:
        self.records: list[tuple[Any, CallResult | None, CallLog | None]] = []
        self.is_down = False

    async def record_many(self, records: list[Any]) -> None:
        if self.is_down:
            raise StoreUnavailableError("The database does not answer")
        self.records += records

    @property
    def ids(self) -> list[str]:
        return [call.id for call, _, _ in self.records]


def render_error(error: FaasError, call_id: str) -> CallResult:
    return CallResult(status_code=error.http_status, headers=(), body=error.code.encode())


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def a_recorder(store: Store, metrics: Metrics, *, recent_calls: int = 10, per_second: int = 1000) -> Recorder:
    return Recorder(
        store,  # type: ignore[arg-type]
        metrics,
        node="me",
        recent_calls=recent_calls,
        per_second=per_second,
        render_error=render_error,
    )


def ended(error: FaasError | None = None, *, status: int = 200, attempt: int = 0) -> Invocation:
    invocation = an_invocation(a_function(), sink=object())
    invocation.attempt = attempt
    invocation.running_since = invocation.accepted_at + 0.5
    invocation.ended_at = invocation.accepted_at + 0.75
    invocation.error = error
    if error is None:
        invocation.status = status
        invocation.response_headers = [(b"content-type", b"text/x")]
        invocation.response_bytes = 5
    invocation.forget_request()
    return invocation


async def test_a_call_that_ended_is_known_at_once_and_written_with_its_batch(store: Store, metrics: Metrics) -> None:
    recorder = a_recorder(store, metrics)
    heard: list[str] = []
    recorder.on_ended = heard.append
    invocation = ended()
    invocation.log = LogBuffer(100)
    recorder.observe(invocation)
    assert recorder.get(invocation.id) is invocation
    assert heard == [invocation.id]
    assert store.records == []
    invocation.log.append(b"written after the answer")
    await recorder.flush()
    ((call, result, log),) = store.records
    assert (call.type, call.status, call.attempt) == (CallType.SYNC, CallStatus.SUCCESS, 1)
    assert (call.result.status_code, call.result.content_type, call.result.size_bytes) == (200, "text/x", 5)
    (attempt,) = call.attempts
    assert (attempt.node, attempt.queue_ms, attempt.exec_ms, attempt.is_cold) == ("me", 500.0, 250.0, False)
    assert (call.completed_at - call.started_at).total_seconds() == pytest.approx(0.25, abs=0.001)
    assert result is None
    assert log.data == b"written after the answer"
    await recorder.flush()
    assert len(store.records) == 1


async def test_an_error_is_kept_as_its_caller_saw_it(store: Store, metrics: Metrics) -> None:
    recorder = a_recorder(store, metrics)
    recorder.observe(ended(CallTimeoutError()))
    await recorder.flush()
    ((call, result, _),) = store.records
    assert (call.status, call.reason, call.error) == (CallStatus.ERROR, Reason.TIMEOUT, CallTimeoutError().message)
    assert (result.status_code, result.body) == (504, b"timeout")
    assert call.result == result.info


async def test_queued_calls_are_counted_and_not_kept_here(store: Store, metrics: Metrics) -> None:
    recorder = a_recorder(store, metrics)
    invocation = ended(attempt=1)
    recorder.observe(invocation)
    await recorder.flush()
    assert recorder.get(invocation.id) is None
    assert store.records == []


async def test_the_oldest_calls_are_forgotten_and_as_many_as_promised_are_known(store: Store, metrics: Metrics) -> None:
    recorder = a_recorder(store, metrics, recent_calls=10)
    invocations = [ended() for _ in range(100)]
    for invocation in invocations:
        recorder.observe(invocation)
        assert len(recorder._recent) + len(recorder._older) <= 10
    known = [invocation for invocation in invocations if recorder.get(invocation.id)]
    assert known == invocations[-len(known) :]
    assert 5 <= len(known) <= 10


async def test_what_does_not_fit_the_budget_is_dropped_and_counted(store: Store, metrics: Metrics) -> None:
    recorder = a_recorder(store, metrics, per_second=8)
    invocations = [ended() for _ in range(10)]
    for invocation in invocations:
        recorder.observe(invocation)
    await recorder.flush()
    assert store.ids == [invocation.id for invocation in invocations[:4]]
    assert b"faas_call_records_dropped_total 6.0" in await metrics.render()
    recorder.observe(ended())
    await recorder.flush()
    assert len(store.records) == 5


async def test_a_budget_of_nothing_writes_nothing(store: Store, metrics: Metrics) -> None:
    recorder = a_recorder(store, metrics, per_second=0)
    recorder.observe(ended())
    await recorder.flush()
    assert store.records == []


async def test_records_are_dropped_and_counted_while_the_store_is_down(
    store: Store, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = a_recorder(store, metrics)
    store.is_down = True
    for _ in range(3):
        recorder.observe(ended())
    await recorder.flush()
    assert b"faas_call_records_dropped_total 3.0" in await metrics.render()
    assert "call_records_dropped" in caplog.text
    store.is_down = False
    last = ended()
    recorder.observe(last)
    await recorder.flush()
    assert store.ids == [last.id]


@pytest.mark.parametrize(
    ("error", "status", "outcome"),
    [
        (None, 200, (CallStatus.SUCCESS, None)),
        (None, 404, (CallStatus.SUCCESS, None)),
        (None, 500, (CallStatus.ERROR, Reason.BAD_EXIT)),
        (CallCancelledError(), 0, (CallStatus.CANCELLED, Reason.CLIENT_REQUEST)),
        (ClientGoneError("gone"), 0, (CallStatus.CANCELLED, Reason.CLIENT_REQUEST)),
        (CallTimeoutError(), 0, (CallStatus.ERROR, Reason.TIMEOUT)),
        (OutOfMemoryError(128), 0, (CallStatus.ERROR, Reason.OOM)),
        (NoCapacityError("full"), 0, (CallStatus.ERROR, Reason.NO_CAPACITY)),
    ],
)
def test_how_a_call_ended(error: FaasError | None, status: int, outcome: tuple[CallStatus, Reason | None]) -> None:
    assert outcome_of(error, status)[:2] == outcome


def test_every_errors_reason_is_one_that_a_record_can_have() -> None:
    def all_of(kind: type[FaasError]) -> list[type[FaasError]]:
        return [kind, *(below for one in kind.__subclasses__() for below in all_of(one))]

    for kind in all_of(FaasError):
        assert Reason(kind.reason)
