"""Running queued calls: one attempt from its beginning to what is written of it."""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import replace
from random import random
from typing import TYPE_CHECKING

from faas.calls.retries import judge
from faas.clock import utc_now
from faas.errors import (
    CallCancelledError,
    CallNotBegunError,
    CallNotFoundError,
    EngineUnavailableError,
    FaasError,
    LostError,
    NoCapacityError,
    ShuttingDownError,
    TooManyAttemptsError,
)
from faas.models import CallStatus, FormatName
from faas.recorder import attempt_of, log_of, outcome_of
from faas.runner.collector import Collector
from faas.runner.invocation import Invocation, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from faas.calls.events import CallEvents
    from faas.calls.memory_share import MemoryShare
    from faas.models import Attempt, Call, CallLog, CallRequest, CallResult
    from faas.recorder import Recorder
    from faas.runner.agent import Agent
    from faas.runner.functions import Function, FunctionTable
    from faas.store.engine import Store

__all__ = ["Execution"]

logger = logging.getLogger(__name__)

RETRY_S = 2.0
"""Pause before a call runs again when the platform, not the function, was at fault."""

GIVE_BACK_S = 30.0
"""How long giving a running call back waits for its container's end; the agent goes on trying to kill it."""


class Execution:
    """Runs calls whose ids this node has leased."""

    def __init__(
        self,
        store: Store,
        agent: Agent,
        table: FunctionTable,
        recorder: Recorder,
        events: CallEvents,
        *,
        node: str,
        max_attempts: int,
        max_result_bytes: int,
        render_error: Callable[[FaasError, str], CallResult],
        share: MemoryShare,
    ) -> None:
        self._store = store
        self._agent = agent
        self._table = table
        self._recorder = recorder
        self._events = events
        self._node = node
        self._max_attempts = max_attempts
        self._max_result_bytes = max_result_bytes
        self._render_error = render_error
        self._share = share
        self.beginning: set[str] = set()
        """Calls whose attempt begins, and which the agent does not know yet."""

    async def run(self, call_id: str) -> float | None:
        """Run a call whose id this node has leased, to its end.

        Returns None when there is nothing left to do, else the seconds after which it should run again. Cancelling
        this kills the call's container and gives the call back.
        """
        self.beginning.add(call_id)
        try:
            begun = await self._store.calls.begin(call_id, node=self._node, started_at=utc_now())
            if begun is None:
                return None
            self._events.publish(begun.call)
            return await self._run(begun.call, begun.request)
        finally:
            self.beginning.discard(call_id)

    async def _run(self, call: Call, request: CallRequest | None) -> float | None:
        sink = Collector(self._max_result_bytes)
        invocation: Invocation | None = None
        try:
            if request is None:
                raise CallNotFoundError("The call's request is gone")
            if call.cancel_requested_at is not None:
                raise CallCancelledError
            if call.attempt - call.retries > self._max_attempts:
                raise TooManyAttemptsError(
                    f"The node died each of the {self._max_attempts} times it ran this call (max_attempts)"
                )
            function = self._table.get(call.app_name, call.path)
            invocation = _invocation(call, function, request, sink)
            async with self._share.taken(function.memory_mib / function.concurrency):
                self._agent.start(invocation, queue_timeout_s=_patience_s(call))
                self.beginning.discard(call.id)
                # Who follows the call finds it at the agent from now on, and hears the rest from there.
                self._events.waiters.wake(call.id)
                await self._until_ended(sink, invocation)
        except asyncio.CancelledError:
            await self._give_back(call, invocation)
            raise
        except FaasError as error:
            sink.error = error
        if isinstance(sink.error, NoCapacityError) and _patience_s(call) == 0:
            sink.error = CallNotBegunError()
        if isinstance(sink.error, EngineUnavailableError | ShuttingDownError):
            await self._give_back(call, invocation)
            return RETRY_S
        return await self._finish(call, invocation, sink)

    async def _until_ended(self, sink: Collector, invocation: Invocation) -> None:
        try:
            await asyncio.shield(sink.ended)
        except asyncio.CancelledError:
            self._agent.stop(invocation, LostError("The call was given back"))
            await asyncio.wait([sink.ended], timeout=GIVE_BACK_S)
            raise

    async def _give_back(self, call: Call, invocation: Invocation | None) -> None:
        evidence, log = self._evidence(call, invocation)
        if await self._store.calls.requeue(call.id, call.attempt, evidence=evidence, log=log):
            self._events.publish(replace(call, status=CallStatus.QUEUED))

    def _evidence(self, call: Call, invocation: Invocation | None) -> tuple[Attempt | None, CallLog | None]:
        """What is known of the attempt, and what it wrote; nothing while its container may still run."""
        if invocation is None or invocation.state is not State.ENDED:
            return None, None
        evidence = attempt_of(invocation, number=call.attempt, node=self._node)
        attempt = replace(evidence, started_at=call.attempts[-1].started_at, completed_at=utc_now())
        return attempt, log_of(invocation)

    async def _finish(self, call: Call, invocation: Invocation | None, sink: Collector) -> float | None:
        evidence, log = self._evidence(call, invocation)
        attempt = evidence or call.attempts[-1]
        result = sink.result() if sink.error is None else self._render_error(sink.error, call.id)
        if sink.error is not None and invocation is not None and invocation.running_since:
            # As on the answer of a sync call that ran and failed.
            headers = invocation.function.add_headers(list(result.headers))
            result = replace(result, headers=tuple(headers))
        status, reason, text = outcome_of(sink.error, result.status_code)
        final = call.ended(status, completed_at=utc_now(), reason=reason, error=text, result=result.info)
        if isinstance(sink.error, TooManyAttemptsError):
            final = replace(final, is_dead_letter=True)
        policy = invocation.function.retries if invocation is not None else None
        verdict = judge(final, policy, now=utc_now(), draw=random())  # noqa: S311 - spread, not secret
        final = verdict.ended
        attempt = replace(attempt, reason=final.reason, error=final.error)
        written: Call | None = None
        if verdict.waiting is not None and await self._store.retrying.put_back(verdict.waiting, attempt, log):
            written = verdict.waiting
        elif await self._store.calls.finish(final, attempt, result, log):
            written = final
        if written is None:
            logger.warning("attempt_was_superseded", extra={"call_id": call.id, "attempt": attempt.number})
        elif invocation is not None and invocation.function.format is not FormatName.DEFAULT:
            # A hot container's output comes by another way than its answer, and later.
            self._recorder.expect_late_log(invocation, log)
        self._events.publish(written or final)
        return verdict.retry_after_s if written is verdict.waiting else None


def _patience_s(call: Call) -> float:
    """How long a call may wait for a container: in its first attempt no longer than until it expires."""
    if call.expires_at is None or call.attempt > 1:
        return math.inf
    return max(0.0, (call.expires_at - utc_now()).total_seconds())


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
