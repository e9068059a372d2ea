"""The life of a call: accept it for later, run it when its turn comes, tell what became of it, end it.

    submit: record committed -> id dispatched -> 202
    worker: id leased -> attempt begun (the record counts it) -> run by the agent -> attempt finished -> id acked

The database is the truth: an attempt may only finish the call while it is its latest, and the sweeper dispatches
again whatever is unfinished and unknown to the queue. Sync calls go straight from the data plane to the agent; here
they are only looked up and cancelled.
"""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn, Protocol

from faas.clock import monotonic, utc_now
from faas.errors import (
    AppNotFoundError,
    CallCancelledError,
    CallExpiredError,
    CallNotFinishedError,
    CallNotFoundError,
    EngineUnavailableError,
    FaasError,
    InvalidRequestError,
    LostError,
    ResultNotKeptError,
    RouteNotFoundError,
    ShuttingDownError,
    TooManyAttemptsError,
)
from faas.ids import created_at_of, is_call_id, new_id
from faas.models import Call, CallLog, CallResult, CallStatus, CallType, FormatName
from faas.queue.base import Lease, Ticket
from faas.recorder import attempt_of, log_of, outcome_of, running_view
from faas.runner.collector import Collector
from faas.runner.invocation import Invocation, State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from faas.models import CallRequest, Route
    from faas.queue.base import CallQueue
    from faas.recorder import CallView, Recorder
    from faas.runner.agent import Agent
    from faas.runner.functions import Function, FunctionTable
    from faas.store.engine import Store

__all__ = ["Calls", "CallsOptions", "Siblings", "Stats"]

logger = logging.getLogger(__name__)

POLL_S = 1.0
"""How often a waiter looks into the database, for calls that end on another node."""

RETRY_S = 2.0
"""Pause before a call runs again when the platform, not the function, was at fault."""

GIVE_BACK_S = 30.0
"""How long giving a running call back waits for its container's end; the agent goes on trying to kill it."""

CANCEL_S = 30.0
"""How long cancelling a running call waits for its container's end."""

OUTSIDE_LEASE_S = 60.0
"""How long a worker outside may take; IronFunctions' reservation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallsOptions:
    """Settings that concern calls."""

    node: str
    max_attempts: int
    max_result_bytes: int
    retention_s: int


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


class _NoSiblings:
    """Of a node that is one process."""

    async def find(self, call_id: str) -> CallView | None:
        """Nothing."""
        return None

    async def cancel(self, call_id: str) -> bool:
        """Nothing."""
        return False

    async def stats(self) -> Sequence[Stats]:
        """Nothing."""
        return ()


class Calls:
    """All calls, as seen from one node."""

    def __init__(
        self,
        store: Store,
        queue: CallQueue,
        agent: Agent,
        table: FunctionTable,
        recorder: Recorder,
        options: CallsOptions,
        *,
        render_error: Callable[[FaasError, str], CallResult],
        siblings: Siblings | None = None,
    ) -> None:
        self._store = store
        self._siblings: Siblings = siblings or _NoSiblings()
        self._queue = queue
        self._agent = agent
        self._table = table
        self._recorder = recorder
        self._options = options
        self._render_error = render_error
        self._waiters: dict[str, set[asyncio.Future[None]]] = {}
        self._beginning: set[str] = set()
        """Calls whose attempt begins, and which the agent does not know yet."""
        self._outside: dict[str, tuple[Lease, Call]] = {}
        recorder.on_ended = self._wake

    # --- accept

    async def submit(
        self, function: Function, request: CallRequest, *, priority: int = 0, not_before: datetime | None = None
    ) -> Call:
        """Accept a call for later; when this returns it is on disk and will run.

        Raises `StoreUnavailableError`, `QueueUnavailableError`; then nothing was accepted.
        """
        is_delayed = not_before is not None and not_before > utc_now()
        call_id = new_id()
        call = Call(
            id=call_id,
            app_name=function.app_name,
            path=function.path,
            type=CallType.ASYNC,
            status=CallStatus.DELAYED if is_delayed else CallStatus.QUEUED,
            created_at=created_at_of(call_id),
            priority=priority,
            not_before=not_before,
        )
        await self._store.calls.insert(call, request)
        try:
            await self._queue.dispatch(_ticket(call))
        except FaasError:
            await self._store.calls.delete_unaccepted(call.id)
            raise
        return call

    # --- run

    async def run_queued(self, call_id: str) -> float | None:
        """Run a call whose id this node has leased, to its end.

        Returns None when there is nothing left to do, else the seconds after which it should run again. Cancelling
        this kills the call's container and gives the call back.
        """
        self._beginning.add(call_id)
        try:
            call = await self._store.calls.begin_attempt(call_id, node=self._options.node, started_at=utc_now())
            return None if call is None else await self._run(call)
        finally:
            self._beginning.discard(call_id)

    async def _run(self, call: Call) -> float | None:
        sink = Collector(self._options.max_result_bytes)
        invocation: Invocation | None = None
        try:
            request = await self._store.calls.request(call.id)
            if request is None:
                raise CallNotFoundError("The call's request is gone")
            if call.attempt > self._options.max_attempts:
                raise TooManyAttemptsError(
                    f"The node died each of the {self._options.max_attempts} times it ran this call (max_attempts)"
                )
            function = self._table.get(call.app_name, call.path)
            invocation = _invocation(call, function, request, sink)
            self._agent.start(invocation, queue_timeout_s=math.inf)
            self._beginning.discard(call.id)
            await self._until_ended(sink, invocation)
        except asyncio.CancelledError:
            await self._store.calls.requeue(call.id, call.attempt)
            raise
        except FaasError as error:
            sink.error = error
        if isinstance(sink.error, EngineUnavailableError | ShuttingDownError):
            await self._store.calls.requeue(call.id, call.attempt)
            return RETRY_S
        await self._finish(call, invocation, sink)
        return None

    async def _until_ended(self, sink: Collector, invocation: Invocation) -> None:
        try:
            await asyncio.shield(sink.ended)
        except asyncio.CancelledError:
            self._agent.stop(invocation, LostError("The call was given back"))
            await asyncio.wait([sink.ended], timeout=GIVE_BACK_S)
            raise

    async def _finish(self, call: Call, invocation: Invocation | None, sink: Collector) -> None:
        attempt = call.attempts[-1]
        log = None
        if invocation is not None:
            evidence = attempt_of(invocation, number=call.attempt, node=self._options.node)
            attempt = replace(evidence, started_at=attempt.started_at, completed_at=utc_now())
            log = log_of(invocation)
        result = sink.result() if sink.error is None else self._render_error(sink.error, call.id)
        if sink.error is not None and invocation is not None and invocation.running_since:
            # As on the answer of a sync call that ran and failed.
            headers = invocation.function.add_headers(list(result.headers))
            result = replace(result, headers=tuple(headers))
        status, reason, text = outcome_of(sink.error, result.status_code)
        attempt = replace(attempt, reason=reason, error=text)
        final = call.ended(status, completed_at=utc_now(), reason=reason, error=text, result=result.info)
        if not await self._store.calls.finish(final, attempt, result, log):
            logger.warning("attempt_was_superseded", extra={"call_id": call.id, "attempt": attempt.number})
        elif invocation is not None and invocation.function.format is not FormatName.DEFAULT:
            # A hot container's output comes by another way than its answer, and later.
            self._recorder.expect_late_log(invocation, log)
        self._wake(call.id)

    # --- look

    async def get(self, call_id: str, *, wait_s: float = 0) -> Call:
        """The record, after the call's end or `wait_s`.

        Raises `CallNotFoundError`, and `CallExpiredError` for ids older than the retention.
        """
        deadline = monotonic() + wait_s
        while True:
            # Registered before the look, so that an end in between is not missed.
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.setdefault(call_id, set()).add(future)
            try:
                call = await self._look(call_id)
                left_s = deadline - monotonic()
                if call.status.is_final or left_s <= 0:
                    return call
                await asyncio.wait([future], timeout=min(left_s, POLL_S))
            finally:
                self._stop_waiting(call_id, future)

    async def _look(self, call_id: str) -> Call:
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
        if (is_waiting or call_id in self._beginning) and not call.status.is_final:
            # Its attempt has begun, so that nobody else takes the call; no container has.
            return replace(call, status=CallStatus.QUEUED)
        return call

    def _raise_missing(self, call_id: str) -> NoReturn:
        if is_call_id(call_id):
            age = utc_now() - created_at_of(call_id)
            if age > timedelta(seconds=self._options.retention_s):
                raise CallExpiredError(
                    f"The call's record is gone: records are kept for {self._options.retention_s} s (retention_s)"
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
        elif (view := await self._siblings.find(call_id)) is not None:
            result = view.result
        else:
            result = await self._store.calls.result(call_id)
        if result is None and call.status is CallStatus.CANCELLED:
            result = self._render_error(CallCancelledError(), call_id)
        if result is None:
            raise ResultNotKeptError("The answer of a sync call went to its caller and is not kept")
        return result

    async def log(self, call_id: str) -> CallLog:
        """What its function wrote to standard error, so far. Raises as `get`."""
        invocation = self._agent.running.get(call_id)
        if invocation is not None:
            return log_of(invocation) or CallLog(data=b"")
        late = self._recorder.late_log(call_id)
        if late is not None:
            return late
        ended = self._recorder.get(call_id)
        if ended is None and (view := await self._siblings.find(call_id)) is not None:
            return view.log or CallLog(data=b"")
        await self._look(call_id)
        log = log_of(ended) if ended is not None else await self._store.calls.log(call_id)
        return log or CallLog(data=b"")

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

    # --- end

    async def cancel(self, call_id: str) -> Call:
        """End a call: one that waits never runs, one that runs is dead when this returns; an ended one stays so.

        Raises as `get`, and `InvalidRequestError` when it runs on another node.
        """
        for _ in range(3):  # it may begin, or end, while we look
            call = await self._look(call_id)
            if call.status.is_final:
                return call
            invocation = self._agent.running.get(call_id)
            if invocation is not None:
                self._agent.stop(invocation, CallCancelledError())
                return await self.get(call_id, wait_s=CANCEL_S)
            if await self._siblings.cancel(call_id):
                return await self.get(call_id, wait_s=CANCEL_S)
            if await self._store.calls.cancel_waiting(call_id, utc_now()):
                await self._queue.discard(call_id)
                self._wake(call_id)
                return await self._look(call_id)
            await asyncio.sleep(0.05)
        node = call.attempts[-1].node if call.attempts else "another node"
        raise InvalidRequestError(f"The call runs on {node}; cancel it there")

    # --- workers outside, IronFunctions' /tasks

    async def lease_task(self) -> tuple[Call, Route, CallRequest] | None:
        """Give one queued call to a worker outside, for a minute."""
        leases = await self._queue.lease(owner="outside", max_count=1, lease_s=OUTSIDE_LEASE_S, wait_s=0)
        for lease in leases:
            route = await self._route_of(lease.call_id)
            if route is None:
                # Nothing an outside worker could run; here it ends with the error that says so.
                await self.run_queued(lease.call_id)
                await self._queue.ack(lease)
                continue
            call = await self._store.calls.begin_attempt(lease.call_id, node="outside", started_at=utc_now())
            request = await self._store.calls.request(lease.call_id)
            if call is None or request is None:
                await self._queue.ack(lease)
                continue
            self._outside[call.id] = (lease, call)
            return call, route, request
        return None

    async def _route_of(self, call_id: str) -> Route | None:
        call = await self._store.calls.get(call_id)
        if call is None:
            return None
        try:
            return await self._store.routes.get(call.app_name, call.path)
        except (AppNotFoundError, RouteNotFoundError):
            return None

    async def finish_task(self, call_id: str) -> None:
        """A worker outside has run a call it leased here; raises `CallNotFoundError`."""
        if call_id not in self._outside:
            raise CallNotFoundError("No such task is leased; its lease may have run out")
        lease, call = self._outside.pop(call_id)
        done = call.ended(CallStatus.SUCCESS, completed_at=utc_now())
        await self._store.calls.finish(done, call.attempts[-1], None, None)
        await self._queue.ack(lease)
        self._wake(call_id)

    # --- waiting

    def _wake(self, call_id: str) -> None:
        if self._waiters:
            for future in self._waiters.get(call_id, ()):
                if not future.done():
                    future.set_result(None)

    def _stop_waiting(self, call_id: str, future: asyncio.Future[None]) -> None:
        futures = self._waiters[call_id]
        futures.discard(future)
        if not futures:
            del self._waiters[call_id]


def _ticket(call: Call) -> Ticket:
    return Ticket(call_id=call.id, priority=call.priority, not_before=call.not_before, fairness_key=call.app_name)


def _invocation(call: Call, function: Function, request: CallRequest, sink: Collector) -> Invocation:
    invocation = Invocation(
        call.id,
        function,
        sink,
        method=request.method.encode("latin-1"),
        url=request.url.encode("latin-1"),
        headers=list(request.headers),
        body=request.body,
    )
    invocation.attempt = call.attempt
    return invocation
