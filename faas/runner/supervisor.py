"""What all supervisors of calls have in common: which calls run, how long they may, how a call ends.

The `Agent` is the supervisor of a node, with its containers. A process that only borrows places in them has one of
its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

from faas.clock import monotonic
from faas.errors import CallTimeoutError
from faas.runner.invocation import State
from faas.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from faas.errors import FaasError
    from faas.runner.invocation import Invocation
    from faas.runner.slot import Slot

__all__ = ["CallSupervisor", "Supervisor"]


class CallSupervisor(Protocol):
    """Who runs calls, as the data plane sees it."""

    def start(self, invocation: Invocation) -> None:
        """Run a call; its sink hears of the end, also when there is no capacity. Never raises."""

    def stop(self, invocation: Invocation, error: FaasError) -> None:
        """End a call from outside: its container is killed, then its sink gets the error. Idempotent."""


class Supervisor(ABC):
    """The calls of one process.

    `observe` is called once for every call that ended, before its sink hears of the end.
    """

    def __init__(self, observe: Callable[[Invocation], None]) -> None:
        self._observe = observe
        self._tasks = TaskSet("agent")
        self._all_ended = asyncio.Event()
        self.running: dict[str, Invocation] = {}
        """Every call that has not ended, waiting ones too, by id."""
        self.completed = 0

    def stop(self, invocation: Invocation, error: FaasError) -> None:
        """End a call from outside: its container is killed, then its sink gets the error. Idempotent."""
        if invocation.state is State.ENDED or invocation.stop is not None:
            return
        invocation.stop = error
        if invocation.runner is not None:
            invocation.runner.stop_call(error)
        elif self._withdraw(invocation):
            self._end(invocation, error)

    @abstractmethod
    def _withdraw(self, invocation: Invocation) -> bool:
        """Take a call out of the line for a container; False when it is not in it."""

    def stop_late(self) -> None:
        """Stop the calls that run longer than they may.

        Looking at all of them ten times a second costs less than setting and cancelling a timer for each call.
        """
        now = monotonic()
        late = [call for call in self.running.values() if call.deadline and now > call.deadline]
        for invocation in late:
            self.stop(invocation, CallTimeoutError())
        silent = [call for call in self.running.values() if call.function.stream_idle_s and call.is_silent(now)]
        for invocation in silent:
            self.stop(
                invocation,
                CallTimeoutError(
                    f"Timed out: the function sent nothing for {invocation.function.stream_idle_s} s in the middle of"
                    " its answer (stream_idle_s)"
                ),
            )

    async def wait_ended(self, timeout_s: float) -> None:
        """Wait until no call is left, at most so long."""
        if self.running:
            self._all_ended.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._all_ended.wait()

    def body_streams(self, slot: Slot[Any], invocation: Invocation) -> None:
        """A call was sent whose body is still arriving."""
        invocation.body_task = self._tasks.spawn(_send_body(slot, invocation), name=f"body/{invocation.id}")

    def _end(self, invocation: Invocation, error: FaasError | None) -> None:
        if invocation.state is State.ENDED:
            return
        invocation.state = State.ENDED
        invocation.ended_at = monotonic()
        invocation.error = error
        if invocation.body_task is not None:
            invocation.body_task.cancel()  # a body may go on arriving, or not, after the answer
        del self.running[invocation.id]
        self.completed += 1
        if not self.running:
            self._all_ended.set()
        self._observe(invocation)
        sink = invocation.sink
        invocation.forget_request()
        if error is None:
            sink.finish(invocation)
        else:
            sink.fail(invocation, error)


async def _send_body(slot: Slot[Any], invocation: Invocation) -> None:
    if slot.invocation is not invocation:
        return  # it was stopped before this began
    stream, channel = invocation.stream, slot.channel
    assert stream is not None
    assert channel is not None
    async for chunk in stream:
        if slot.invocation is not invocation:
            return
        channel.write_body(chunk)
        await channel.drain()
    if slot.invocation is invocation:
        channel.end_body()
        invocation.stream = None
