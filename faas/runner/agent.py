"""Runs calls: the one way, for sync and async alike, from "here is an invocation" to "its sink has the answer".

A warm call goes `start -> Pool.submit -> HotContainer.run -> Channel.begin` and comes back
`Slot.response_* -> call_answered -> Sink.finish` without a task or an await. Everything that must wait
(making a container, a body that is still arriving, killing) is a task of the agent's, or of its keeper's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from faas.clock import monotonic
from faas.errors import (
    CallTimeoutError,
    ClientGoneError,
    FaasError,
    FunctionFailedError,
    KilledError,
    NoCapacityError,
    ShuttingDownError,
)
from faas.runner.cold import ColdRun
from faas.runner.invocation import Invocation, State
from faas.runner.keeper import Keeper
from faas.runner.pool import Pool
from faas.runner.supervisor import OPEN_S, SWEEP_S, Supervisor, send_body
from faas.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import Callable

    from faas.metrics import Metrics
    from faas.runner.capacity import Capacity, Reservation
    from faas.runner.container import HotContainer
    from faas.runner.function_pool import PlaceSeeker
    from faas.runner.launcher import Launcher
    from faas.runner.slot import Slot

__all__ = ["Agent", "AgentOptions"]

logger = logging.getLogger(__name__)

CLOSE_S = 10.0
"""How long closing waits, at least, for containers to end; what is left then is the next boot's to remove."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentOptions:
    """Limits that hold for every call of this node."""

    queue_timeout_s: float
    max_waiting: int
    max_spares: int
    max_response_bytes: int
    max_log_bytes: int


class Agent(Supervisor):
    """The supervisor of all calls and containers of one node."""

    def __init__(
        self,
        launcher: Launcher,
        capacity: Capacity,
        options: AgentOptions,
        *,
        metrics: Metrics,
        observe: Callable[[Invocation], None],
    ) -> None:
        super().__init__(observe)
        self._launcher = launcher
        self._options = options
        self._tasks = TaskSet("agent")
        self._is_closing = False
        self.refuse_other: Callable[[PlaceSeeker, FaasError], None] = lambda _seeker, _error: None
        """Hears that there is nothing for something in line that is no call of this process."""
        self.keeper = Keeper(
            launcher,
            self,
            max_log_bytes=options.max_log_bytes,
            max_spares=options.max_spares,
            metrics=metrics,
            tasks=self._tasks,
        )
        self.pool = self.keeper.pool = Pool(
            capacity, self.keeper, self, max_waiting=options.max_waiting, on_evicted=metrics.container_evicted
        )

    def __repr__(self) -> str:
        return f"<Agent {len(self.running)} calls, {len(self.keeper.containers)} containers, {self.pool!r}>"

    # --- the calls of others

    def start(self, invocation: Invocation, *, queue_timeout_s: float | None = None) -> None:
        """Run a call; its sink hears of the end, also when there is no capacity. Never raises."""
        self.running[invocation.id] = invocation
        if queue_timeout_s is None:
            queue_timeout_s = self._options.queue_timeout_s
        invocation.queue_timeout_s = queue_timeout_s
        if self._is_closing:
            self._end(invocation, ShuttingDownError())
            return
        try:
            self.pool.submit(invocation, invocation.accepted_at + queue_timeout_s)
        except NoCapacityError as error:
            self._end(invocation, error)

    async def sweep_forever(self) -> None:
        """Look after all time limits: of calls that run, of calls in line, of idle containers."""
        while True:
            await asyncio.sleep(SWEEP_S)
            self.stop_late()
            self.pool.sweep()

    async def close(self, grace_s: float) -> int:
        """Take no more calls, wait for those that run, kill what is left; returns how many were killed."""
        self._is_closing = True
        self.pool.close()
        for invocation in list(self.running.values()):
            if invocation.runner is None and invocation.state is State.WAITING:
                self.stop(invocation, ShuttingDownError())
        self.keeper.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self.all_ended()
        left = list(self.running.values())
        for invocation in left:
            self.stop(invocation, KilledError("This node is shutting down; the call was killed"))
        await self._tasks.wait(timeout_s=max(grace_s, CLOSE_S))
        self.keeper.give_up_on_engine()
        await self._tasks.cancel()
        for invocation in list(self.running.values()):
            self._end(invocation, invocation.stop)
        return len(left)

    # --- SlotOwner: the slots of hot containers tell

    def call_answered(self, slot: Slot[HotContainer], invocation: Invocation, *, is_reusable: bool) -> None:
        """The answer of a call is complete."""
        invocation.runner = None
        if is_reusable and invocation.stream is None:
            self._release(slot)
        elif slot.container.format.needs_socket_dir:
            # It closed its connection, or answered before it had read the request: what is still on the way to it
            # must not reach the next call, which gets a connection of its own.
            slot.drop_channel()
            self._release(slot)
        else:
            self.pool.stop(slot.container)
        self._end(invocation, None)

    def call_broke(self, slot: Slot[HotContainer], invocation: Invocation, error: FaasError) -> None:
        """A call got no complete answer."""
        if isinstance(error, FunctionFailedError | CallTimeoutError):
            # Fn's contract: the function said so itself, with 502 or 504, and may go on.
            invocation.runner = None
            self._release(slot)
            self._end(invocation, error)
            return
        if slot.container.end_reason:
            error = KilledError(slot.container.end_reason)
        self._tasks.spawn(self._fail(slot, invocation, error), name=f"broke/{invocation.id}")

    def needs_opening(self, slot: Slot[HotContainer], invocation: Invocation) -> None:
        """The call can't begin before a channel is opened."""
        self._tasks.spawn(self._open(slot, invocation), name=f"open/{invocation.id}")

    def body_streams(self, slot: Slot[HotContainer], invocation: Invocation) -> None:
        """A call was sent whose body is still arriving."""
        invocation.body_task = self._tasks.spawn(send_body(slot, invocation), name=f"body/{invocation.id}")

    def stop_hot_call(self, slot: Slot[HotContainer], invocation: Invocation, error: FaasError) -> None:
        """A running call must end now."""
        # At once: an answer that comes before the task runs would give the container to another call.
        slot.detach()
        container = slot.container
        if isinstance(error, ClientGoneError) and container.pool.concurrency > 1:
            # Callers hang up all the time, and the calls of others must not end with it; the function sees its
            # connection close.
            invocation.runner = None
            self._leave(slot)
            self._end(invocation, error)
            return
        container.end_reason = f"The container was ended because of another call in it: {error.message}"
        self.pool.drain(container)
        self._tasks.spawn(self._fail(slot, invocation, error), name=f"stop/{invocation.id}")

    def _release(self, slot: Slot[HotContainer]) -> None:
        """A call is through with its slot."""
        slot.container.free_slot(slot)
        self.pool.release(slot.container)

    def _leave(self, slot: Slot[HotContainer]) -> None:
        """A call broke off; its container goes on with the others."""
        slot.container.drop_slot(slot)
        self.pool.release(slot.container)

    # --- PoolUser: the pool tells

    def run_cold(self, invocation: PlaceSeeker, reservation: Reservation) -> None:
        """Run a call in a container of its own."""
        assert isinstance(invocation, Invocation), "other processes run hot functions only"
        self._tasks.spawn(self._run_cold(invocation, reservation), name=f"cold/{invocation.id}")

    def refuse(self, invocation: PlaceSeeker, error: FaasError) -> None:
        """There is nothing for a waiting call."""
        if isinstance(invocation, Invocation):
            self._end(invocation, error)
        else:
            self.refuse_other(invocation, error)

    def _withdraw(self, invocation: Invocation) -> bool:
        """Take a call out of the line; False when it is not in it."""
        return self.pool.withdraw(invocation)

    # --- the end of a call

    async def _fail(self, slot: Slot[HotContainer], invocation: Invocation, error: FaasError) -> None:
        """End a call that has no answer: find out why, be sure that its container does it no more, then tell."""
        error, goes_on = await self.keeper.settle(slot.container, error, is_stopped=invocation.stop is not None)
        invocation.runner = None
        if goes_on:
            self._leave(slot)
        else:
            self.pool.stop(slot.container)
        self._end(invocation, invocation.stop or error)

    # --- tasks

    async def _open(self, slot: Slot[HotContainer], invocation: Invocation) -> None:
        container = slot.container
        slot.drop_channel()
        try:
            async with asyncio.timeout(OPEN_S):
                channel = await container.format.reopen(container)
        except (FaasError, TimeoutError):
            is_fit = False
        else:
            slot.opened(channel)
            is_fit = channel.is_usable and not container.is_doomed
            if is_fit and invocation.stop is None:
                slot.begin(invocation, channel, monotonic())
                return
        # Nothing was sent: the call ends here, or goes to another container because this one is no good any more.
        slot.invocation = invocation.runner = None
        if is_fit:
            self._release(slot)
        else:
            slot.drop_channel()
            self.pool.drain(container)
            self._leave(slot)
        if invocation.stop is not None:
            self._end(invocation, invocation.stop)
        else:
            self.start(invocation, queue_timeout_s=invocation.queue_timeout_s)

    async def _run_cold(self, invocation: Invocation, reservation: Reservation) -> None:
        run = ColdRun(
            invocation,
            self._launcher,
            self.keeper,
            max_response_bytes=self._options.max_response_bytes,
            max_log_bytes=self._options.max_log_bytes,
        )
        invocation.runner = run
        try:
            try:
                error = await run.run()
            finally:
                # Before the answer, which goes at its caller's pace: a slow one must not hold what others wait for.
                self.pool.cold_ended(invocation.function, reservation)
            if error is None:
                error = await run.answer()
        finally:
            run.close()
            invocation.runner = None
        self._end(invocation, error)
