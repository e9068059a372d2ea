"""What is known of calls: while they run it is here, a while later remembered, and for long in the database."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn, Protocol

from faas.clock import monotonic, utc_now
from faas.errors import (
    CallCancelledError,
    CallExpiredError,
    CallNotBegunError,
    CallNotFinishedError,
    CallNotFoundError,
    InvalidRequestError,
    ResultNotKeptError,
)
from faas.ids import created_at_of, is_call_id
from faas.models import CallLog, CallStatus, Reason
from faas.recorder import log_of, running_view
from faas.runner.invocation import State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from faas.calls.execution import Execution
    from faas.calls.waiting import Waiters
    from faas.errors import FaasError
    from faas.models import Call, CallResult
    from faas.recorder import CallView, Recorder
    from faas.runner.agent import Agent
    from faas.store.engine import Store

__all__ = ["Lookup", "Siblings", "Stats"]

POLL_S = 1.0
"""How often a waiter looks into the database, for calls that end on another node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Calls of this node: waiting for a container, running, ended since it started."""

    queue: int
    running: int
    complete: int


class Siblings(Protocol):
    """Other processes that run sync calls of this node."""

    async def find(self, call_id: str) -> CallView | None:
        """What the one that runs, or lately ran, a call knows of it."""

    async def cancel(self, call_id: str) -> bool:
        """Begin to end a call; whether it runs there."""

    async def stats(self) -> Sequence[Stats]:
        """How much each of them has to do."""


class Lookup:
    """All calls, as seen from one node."""

    def __init__(
        self,
        store: Store,
        agent: Agent,
        recorder: Recorder,
        execution: Execution,
        waiters: Waiters,
        siblings: Siblings,
        *,
        retention_s: int,
        render_error: Callable[[FaasError, str], CallResult],
    ) -> None:
        self._store = store
        self._agent = agent
        self._recorder = recorder
        self._execution = execution
        self._waiters = waiters
        self._siblings = siblings
        self._retention_s = retention_s
        self._render_error = render_error

    async def get(self, call_id: str, *, wait_s: float = 0) -> Call:
        """The record, after the call's end or `wait_s`.

        Raises `CallNotFoundError`, and `CallExpiredError` for ids older than the retention.
        """
        deadline = monotonic() + wait_s
        while True:
            with self._waiters.waiting(call_id) as ended:
                call = await self.now(call_id)
                left_s = deadline - monotonic()
                if call.status.is_final or left_s <= 0:
                    return call
                await asyncio.wait([ended], timeout=min(left_s, POLL_S))

    async def now(self, call_id: str) -> Call:
        """The record as it is. Raises as `get`."""
        invocation = self._agent.running.get(call_id)
        if invocation is not None and invocation.attempt == 0:
            return running_view(invocation)
        ended = self._recorder.get(call_id)
        if ended is not None:
            return self._recorder.view(ended)
        if invocation is None and (view := await self._siblings.find(call_id)) is not None:
            return view.call
        call = await self._store.calls.get(call_id)
        if call is None:
            self._raise_missing(call_id)
        is_waiting = invocation is not None and invocation.state is State.WAITING
        if (is_waiting or call_id in self._execution.beginning) and not call.status.is_final:
            # Its attempt has begun, so that nobody else takes the call; no container has.
            return replace(call, status=CallStatus.QUEUED)
        return call

    def _raise_missing(self, call_id: str) -> NoReturn:
        if is_call_id(call_id):
            age = utc_now() - created_at_of(call_id)
            if age > timedelta(seconds=self._retention_s):
                raise CallExpiredError(
                    f"The call's record is gone: records are kept for {self._retention_s} s (retention_s)"
                )
        raise CallNotFoundError

    async def result(self, call_id: str) -> CallResult:
        """What a caller who waited would have got.

        Raises as `get`, `CallNotFinishedError`, and `ResultNotKeptError` for a sync call's answer.
        """
        call = await self.get(call_id)
        if not call.status.is_final:
            raise CallNotFinishedError(f"The call is {call.status.value}; ask again, or wait with ?wait=")
        ended = self._recorder.get(call_id)
        if ended is not None:
            result = self._recorder.result(ended)
        else:
            view = await self._siblings.find(call_id)
            result = view.result if view is not None else None
        if result is None:  # of a sync call it is there when that had an `Idempotency-Key`
            result = await self._store.calls.result(call_id)
        if result is None and call.status is CallStatus.CANCELLED:
            result = self._render_error(CallCancelledError(), call_id)
        if result is None and call.reason is Reason.EXPIRED:
            result = self._render_error(CallNotBegunError(), call_id)
        if result is None:
            raise ResultNotKeptError("The answer of a sync call went to its caller and is not kept")
        return result

    async def log(self, call_id: str, *, attempt: int | None = None) -> CallLog:
        """What its function wrote to standard error, so far: in all attempts, or in one.

        Raises as `get`, and `InvalidRequestError` for an attempt that there was not.
        """
        logs = await self._logs(call_id)
        if attempt is None:
            parts = [logs[number] for number in sorted(logs)]
            return CallLog(data=b"".join(part.data for part in parts), is_truncated=any(p.is_truncated for p in parts))
        if attempt not in logs:
            count = max(1, (await self.now(call_id)).attempt)
            if attempt > count:
                raise InvalidRequestError(f"The call has no attempt {attempt}: there were {count} so far")
        return logs.get(attempt, CallLog(data=b""))

    async def _logs(self, call_id: str) -> dict[int, CallLog]:
        invocation = self._agent.running.get(call_id)
        is_sync_here = invocation is not None and invocation.attempt == 0
        sync = invocation if is_sync_here else self._recorder.get(call_id)
        if sync is not None:
            return {1: log_of(sync) or CallLog(data=b"")}
        if invocation is None and (view := await self._siblings.find(call_id)) is not None:
            return {1: view.log or CallLog(data=b"")}
        await self.now(call_id)
        logs = await self._store.calls.logs(call_id) | self._recorder.late_logs(call_id)
        if invocation is not None:
            logs[invocation.attempt] = log_of(invocation) or CallLog(data=b"")
        return logs

    async def list_calls(
        self,
        app_name: str,
        *,
        status: CallStatus | None = None,
        path: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        cursor: str | None = None,
        limit: int = 30,
    ) -> tuple[list[Call], str | None]:
        """A page of an app's calls, newest first, and the cursor of the next; sync calls come within a second."""
        return await self._store.calls.list(
            app_name, status=status, path=path, since=since, until=until, cursor=cursor, limit=limit
        )

    async def stats(self) -> Stats:
        """How much there is to do on this node."""
        others = await self._siblings.stats()
        states = [invocation.state for invocation in self._agent.running.values()]
        return Stats(
            queue=states.count(State.WAITING) + sum(one.queue for one in others),
            running=states.count(State.RUNNING) + sum(one.running for one in others),
            complete=self._agent.completed + sum(one.complete for one in others),
        )
