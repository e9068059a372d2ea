"""The calls that one process runs and that have not ended: their time limits and their ends.

Where the containers come from is the affair of who derives from this: an `Agent` makes them, a process that serves
beside it borrows places in them.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from faas.clock import monotonic
from faas.errors import CallTimeoutError, ShuttingDownError
from faas.runner.invocation import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from faas.errors import FaasError
    from faas.runner.invocation import Invocation
    from faas.runner.slot import Slot, SlotHost

__all__ = ["OPEN_S", "SWEEP_S", "Supervisor", "send_body"]

SWEEP_S = 0.1
"""How often running calls, calls in line and idle containers are looked at; their time limits are that exact."""

OPEN_S = 1.0
"""How long a container may take to accept a connection."""


class Supervisor(ABC):
    """`observe` is called once for every call that ended, before its sink hears of the end."""

    def __init__(self, observe: Callable[[Invocation], None]) -> None:
        self._observe = observe
        self._all_ended = asyncio.Event()
        self._all_ended.set()
        self.running: dict[str, Invocation] = {}
        """Every call that has not ended, waiting ones too, by id."""
        self.completed = 0

    @abstractmethod
    def start(self, invocation: Invocation) -> None:
        """Run a call; its sink hears of the end, also when there is no capacity. Never raises."""

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
        """Take a call out of the line; False when it is not in it."""

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

    def hurry(self) -> None:
        """End all calls, because their process ends."""
        for invocation in list(self.running.values()):
            self.stop(invocation, ShuttingDownError("This node is shutting down; the call was ended"))

    async def all_ended(self) -> None:
        """Return when no call is left."""
        if self.running:
            self._all_ended.clear()
            await self._all_ended.wait()

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


async def send_body(slot: Slot[SlotHost], invocation: Invocation) -> None:
    """Send a body to the function while it arrives, as long as the slot has that call."""
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
