"""Records of sync calls: on this node at once, in the database within a second, never in the way of a call.

The last calls are remembered in memory; those that fit the write budget (`record_sync_per_s`) are written behind in
batches, the others are dropped there and counted.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING

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
from faas.wire.headers import get_header

if TYPE_CHECKING:
    from collections.abc import Callable

    from faas.metrics import Metrics
    from faas.runner.call_log import LogBuffer
    from faas.runner.functions import Function
    from faas.runner.invocation import Invocation
    from faas.store.calls import CallRecords

__all__ = ["EndedCall", "Recorder", "outcome_of"]

logger = logging.getLogger(__name__)

FLUSH_S = 0.5
"""How long a record waits for its batch; a log line that comes after the answer still finds it."""


def outcome_of(error: FaasError | None, status: int) -> tuple[CallStatus, Reason | None, str]:
    """Status, reason and error text of a call that ended so."""
    if error is None:
        if status >= 500:
            return CallStatus.ERROR, Reason.BAD_EXIT, f"the function answered with status {status}"
        return CallStatus.SUCCESS, None, ""
    if error.code == "cancelled" or error.code == "client_gone":
        return CallStatus.CANCELLED, Reason.CLIENT_REQUEST, error.message
    return CallStatus.ERROR, Reason(error.reason), error.message


class EndedCall:
    """What is kept of an invocation that has ended; the invocation itself holds bodies and connections."""

    __slots__ = (
        "container_id",
        "content_type",
        "error",
        "exec_s",
        "exit_code",
        "function",
        "id",
        "is_cold",
        "log",
        "queue_s",
        "response_bytes",
        "start_s",
        "status",
    )

    def __init__(self, invocation: Invocation) -> None:
        self.id = invocation.id
        self.function: Function = invocation.function
        self.container_id = invocation.container_id
        self.status = invocation.status
        self.content_type = get_header(invocation.response_headers, b"content-type") or b""
        self.response_bytes = invocation.response_bytes
        self.error = invocation.error
        self.exit_code = invocation.exit_code
        self.queue_s = invocation.queue_s
        self.exec_s = invocation.exec_s
        launch = invocation.launch
        self.is_cold = launch is not None
        self.start_s = launch.pull_s + launch.create_s + launch.start_s if launch is not None else 0.0
        self.log: LogBuffer | None = invocation.log

    def attempt(self, number: int, node: str) -> Attempt:
        """The attempt that this was."""
        accepted_at = created_at_of(self.id)
        started_at = accepted_at + timedelta(seconds=self.queue_s + self.start_s)
        _, reason, message = outcome_of(self.error, self.status)
        return Attempt(
            number=number,
            node=node,
            started_at=started_at,
            completed_at=started_at + timedelta(seconds=self.exec_s),
            container_id=self.container_id,
            image_digest=self.function.image_digest,
            exit_code=self.exit_code,
            reason=reason,
            error=message,
            is_cold=self.is_cold,
            queue_ms=round(self.queue_s * 1e3, 3),
            start_ms=round(self.start_s * 1e3, 3),
            exec_ms=round(self.exec_s * 1e3, 3),
        )

    def call(self, node: str, result: CallResult | None) -> Call:
        """The record of a sync call."""
        attempt = self.attempt(1, node)
        status, reason, error = outcome_of(self.error, self.status)
        info = result.info if result is not None else None
        if self.error is None:
            info = ResultInfo(
                status_code=self.status,
                content_type=self.content_type.decode("latin-1"),
                size_bytes=self.response_bytes,
            )
        return Call(
            id=self.id,
            app_name=self.function.app_name,
            path=self.function.path,
            type=CallType.SYNC,
            status=status,
            created_at=created_at_of(self.id),
            started_at=attempt.started_at,
            completed_at=attempt.completed_at,
            reason=reason,
            error=error,
            attempt=1,
            attempts=(attempt,),
            result=info,
        )

    def call_log(self) -> CallLog | None:
        """Its log so far."""
        if self.log is None:
            return None
        return CallLog(data=self.log.getvalue(), is_truncated=self.log.is_truncated)


class Recorder:
    """Counts every call that ends, and keeps the sync ones."""

    def __init__(
        self,
        store: CallRecords,
        metrics: Metrics,
        *,
        node: str,
        recent_calls: int,
        per_second: int,
        render_error: Callable[[FaasError, str], CallResult],
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._node = node
        self._render_error = render_error
        self._batch_limit = int(per_second * FLUSH_S)
        self._pending: list[EndedCall] = []
        # Two generations: forgetting the older one whole costs nothing, dropping the oldest entry each time would.
        self._generation_size = max(1, recent_calls // 2)
        self._recent: dict[str, EndedCall] = {}
        self._older: dict[str, EndedCall] = {}
        self.on_ended: Callable[[str], None] = lambda _call_id: None
        """Hears the id of every call that ended."""

    def observe(self, invocation: Invocation) -> None:
        """A call ended; on the hot path."""
        function, error = invocation.function, invocation.error
        is_sync = invocation.attempt == 0
        route = self._metrics.for_route(function.app_name, function.path, CallType.SYNC if is_sync else CallType.ASYNC)
        if error is None:
            route.observe(invocation.status, invocation.exec_s, invocation.launch is not None)
        else:
            route.failed(error.http_status, error.code)
            if isinstance(error, OutOfMemoryError):
                self._metrics.container_oom()
        if is_sync:
            self._keep(EndedCall(invocation))
        self.on_ended(invocation.id)

    def _keep(self, ended: EndedCall) -> None:
        if len(self._recent) >= self._generation_size:
            self._older, self._recent = self._recent, {}
        self._recent[ended.id] = ended
        if len(self._pending) < self._batch_limit:
            self._pending.append(ended)
        else:
            self._metrics.records_dropped()

    def get(self, call_id: str) -> EndedCall | None:
        """A sync call that ended on this node lately."""
        return self._recent.get(call_id) or self._older.get(call_id)

    def view(self, ended: EndedCall) -> Call:
        """Its record."""
        return ended.call(self._node, self.result(ended))

    def result(self, ended: EndedCall) -> CallResult | None:
        """Its answer, when that was an error of the platform's; a function's answer is not kept."""
        return self._render_error(ended.error, ended.id) if ended.error is not None else None

    async def write_forever(self) -> None:
        """Write the batches."""
        while True:
            await asyncio.sleep(FLUSH_S)
            await self.flush()

    async def flush(self) -> None:
        """Write what is pending."""
        batch, self._pending = self._pending, []
        if not batch:
            return
        try:
            await self._store.record_many([(self.view(one), self.result(one), one.call_log()) for one in batch])
        except StoreUnavailableError as error:
            self._metrics.records_dropped(len(batch))
            logger.warning("call_records_dropped", extra={"count": len(batch), "error": error.message})
