"""Records of sync calls: on this node at once, in the database within a second, never in the way of a call.

The last calls are remembered in memory; those that fit the write budget (`record_sync_per_s`) are written behind in
batches, the others are dropped there and counted.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING, Protocol

from faas.errors import FaasError, OutOfMemoryError, StoreUnavailableError
from faas.ids import created_at_of
from faas.models import (
    Attempt,
    Call,
    CallLog,
    CallResult,
    CallStatus,
    CallType,
    Reason,
    ResultInfo,
)
from faas.runner.invocation import State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from faas.runner.invocation import Invocation

__all__ = ["CallView", "Recorder", "attempt_of", "log_of", "outcome_of", "running_view"]

logger = logging.getLogger(__name__)

OVERLOAD = 4
SAMPLE = 10
"""When calls come more than `OVERLOAD` times over the budget, one of `SAMPLE` records within it is written.
Writing all of it cost a node at its limit a sixth of its CPU time."""

FLUSH_S = 0.5
"""How long a record waits for its batch; a log line that comes after the answer still finds it."""


class RecordStore(Protocol):
    """Where records go."""

    async def record_many(self, records: Sequence[tuple[Call, CallResult | None, CallLog | None]]) -> None:
        """Keep ended sync calls; raises `StoreUnavailableError`."""

    async def replace_log(self, call_id: str, number: int, log: CallLog) -> None:
        """The log of a queued call's attempt became longer."""


class RecordCounters(Protocol):
    """Counts what concerns no single route."""

    def container_oom(self) -> None:
        """A container passed its memory limit."""

    def records_dropped(self, count: int) -> None:
        """Records were given up under overload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallView:
    """What a process knows of a sync call that it runs, or ran a while ago."""

    call: Call
    result: CallResult | None
    log: CallLog | None


def outcome_of(error: FaasError | None, status: int) -> tuple[CallStatus, Reason | None, str]:
    """Status, reason and error text of a call that ended so."""
    if error is None:
        if status >= 500:
            return CallStatus.ERROR, Reason.BAD_EXIT, f"the function answered with status {status}"
        return CallStatus.SUCCESS, None, ""
    if error.code == "cancelled" or error.code == "client_gone":
        return CallStatus.CANCELLED, Reason.CLIENT_REQUEST, error.message
    return CallStatus.ERROR, Reason(error.reason), error.message


def attempt_of(invocation: Invocation, *, number: int, node: str) -> Attempt:
    """The attempt that an ended invocation was."""
    launch = invocation.launch
    start_s = launch.total_s if launch is not None else 0.0
    started_at = created_at_of(invocation.id) + timedelta(seconds=invocation.queue_s + start_s)
    _, reason, message = outcome_of(invocation.error, invocation.status)
    return Attempt(
        number=number,
        node=node,
        started_at=started_at,
        completed_at=started_at + timedelta(seconds=invocation.exec_s),
        container_id=invocation.container_id,
        image_digest=invocation.function.image_digest,
        exit_code=invocation.exit_code,
        reason=reason,
        error=message,
        is_cold=launch is not None,
        queue_ms=round(invocation.queue_s * 1e3, 3),
        start_ms=round(start_s * 1e3, 3),
        exec_ms=round(invocation.exec_s * 1e3, 3),
        usage=invocation.usage,
    )


def log_of(invocation: Invocation) -> CallLog | None:
    """An invocation's log so far."""
    log = invocation.log
    return CallLog(data=log.getvalue(), is_truncated=log.is_truncated) if log is not None else None


def running_view(invocation: Invocation) -> Call:
    """The record of a sync call that has not ended."""
    is_running = invocation.state is State.RUNNING
    created_at = created_at_of(invocation.id)
    return Call(
        id=invocation.id,
        app_name=invocation.function.app_name,
        path=invocation.function.path,
        type=CallType.SYNC,
        status=CallStatus.RUNNING if is_running else CallStatus.QUEUED,
        created_at=created_at,
        started_at=created_at + timedelta(seconds=invocation.running_since - invocation.accepted_at)
        if is_running
        else None,
        attempt=1 if is_running else 0,
    )


class Recorder:
    """Counts every call that ends, and keeps the sync ones."""

    def __init__(
        self,
        store: RecordStore,
        metrics: RecordCounters,
        *,
        node: str,
        recent_calls: int,
        per_second: int,
        render_error: Callable[[FaasError, str], CallResult],
    ) -> None:
        self._store = store
        self._metrics = metrics
        self.node = node
        self._render_error = render_error
        self._batch_limit = int(per_second * FLUSH_S)
        self._pending: list[Invocation] = []
        self.dropped = 0
        """Records that did not fit the budget since the last batch."""
        # Two generations: forgetting the older one whole costs nothing, dropping the oldest entry each time would.
        self._generation_size = max(1, recent_calls // 2)
        self._recent: dict[str, Invocation] = {}
        self._older: dict[str, Invocation] = {}
        self._late: dict[str, list[tuple[Invocation, int]]] = {}
        """Attempts of queued calls that ended lately, with the size of the log that was written."""
        self.on_ended: Callable[[str], None] = lambda _call_id: None
        """Hears the id of every call that ended."""

    def observe(self, invocation: Invocation) -> None:
        """A call ended; on the hot path."""
        function, error = invocation.function, invocation.error
        is_sync = invocation.attempt == 0
        route = function.sync_metrics if is_sync else function.async_metrics
        if error is None:
            route.observe(
                invocation.status, invocation.ended_at - invocation.running_since, invocation.launch is not None
            )
        else:
            route.failed(error.http_status, error.code)
            if isinstance(error, OutOfMemoryError):
                self._metrics.container_oom()
        if is_sync:
            recent = self._recent
            if len(recent) >= self._generation_size:
                self._older, self._recent = recent, {}
                recent = self._recent
            recent[invocation.id] = invocation
            if len(self._pending) < self._batch_limit:
                self._pending.append(invocation)
            else:
                self.dropped += 1
        self.on_ended(invocation.id)

    def get(self, call_id: str) -> Invocation | None:
        """A sync call that ended on this node lately."""
        return self._recent.get(call_id) or self._older.get(call_id)

    def view(self, invocation: Invocation) -> Call:
        """The record of an ended sync call."""
        attempt = attempt_of(invocation, number=1, node=self.node)
        status, reason, error = outcome_of(invocation.error, invocation.status)
        result = self.result(invocation)
        if result is not None:
            info = result.info
        else:
            info = ResultInfo(
                status_code=invocation.status,
                content_type=invocation.content_type.decode("latin-1"),
                size_bytes=invocation.response_bytes,
            )
        return Call(
            id=invocation.id,
            app_name=invocation.function.app_name,
            path=invocation.function.path,
            type=CallType.SYNC,
            status=status,
            created_at=created_at_of(invocation.id),
            started_at=attempt.started_at,
            completed_at=attempt.completed_at,
            reason=reason,
            error=error,
            attempt=1,
            attempts=(attempt,),
            result=info,
        )

    def result(self, invocation: Invocation) -> CallResult | None:
        """Its answer, when that was an error of the platform's; a function's answer is not kept."""
        error = invocation.error
        return self._render_error(error, invocation.id) if error is not None else None

    def expect_late_log(self, invocation: Invocation, written: CallLog | None) -> None:
        """A queued call's attempt ended with this log; what its container's output still brings is written with the
        next batches."""
        size = len(written.data) if written is not None else 0
        self._late.setdefault(invocation.id, []).append((invocation, size))

    def late_logs(self, call_id: str) -> dict[int, CallLog]:
        """The logs of a queued call's attempts that ended here just now, by attempt."""
        ended = [invocation for invocation, _ in self._late.get(call_id, ())]
        return {one.attempt: log for one in ended if (log := log_of(one)) is not None}

    async def _write_late_logs(self) -> None:
        entries, self._late = self._late, {}
        for invocation, size in chain.from_iterable(entries.values()):
            log = log_of(invocation)
            if log is not None and len(log.data) > size:
                await self._store.replace_log(invocation.id, invocation.attempt, log)

    async def write_forever(self) -> None:
        """Write the batches."""
        while True:
            await asyncio.sleep(FLUSH_S)
            await self.flush()
            try:
                await self._write_late_logs()
            except StoreUnavailableError as error:
                logger.warning("late_logs_dropped", extra={"error": error.message})

    async def flush(self) -> None:
        """Write what is pending."""
        batch, self._pending = self._pending, []
        if self.dropped > OVERLOAD * self._batch_limit:
            # Most records are dropped anyway: a sample, and the failures, say as much and leave the time to the calls.
            kept = [one for index, one in enumerate(batch) if index % SAMPLE == 0 or one.error is not None]
            self.dropped += len(batch) - len(kept)
            batch = kept
        if self.dropped:
            self._metrics.records_dropped(self.dropped)
            self.dropped = 0
        if batch:
            await self.write([(self.view(one), self.result(one), log_of(one)) for one in batch])

    async def write(self, records: Sequence[tuple[Call, CallResult | None, CallLog | None]]) -> None:
        """Write records now; they are dropped when the store does not take them."""
        try:
            await self._store.record_many(records)
        except StoreUnavailableError as error:
            self._metrics.records_dropped(len(records))
            logger.warning("call_records_dropped", extra={"count": len(records), "error": error.message})
