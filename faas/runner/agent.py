"""Runs calls: the one way, for sync and async alike, from "here is an invocation" to "its sink has the answer".

A warm call goes `start -> Pool.submit -> HotContainer.run -> Channel.begin` and comes back
`Slot.response_* -> call_answered -> Sink.finish` without a task or an await. Everything that must wait
(making a container, a body that is still arriving, killing) is a task of the agent's, or of its keeper's.
"""

from __future__ import annotations

import asyncio
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
    ProtocolViolationError,
    ShuttingDownError,
)
from faas.runner.cold import ColdRun
from faas.runner.container import ContainerState, HotContainer
from faas.runner.invocation import Invocation, State
from faas.runner.keeper import Keeper
from faas.runner.lease import Lease
from faas.runner.pool import Pool
from faas.runner.slot import Slot
from faas.runner.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable

    from faas.metrics import Metrics
    from faas.runner.capacity import Capacity, Reservation
    from faas.runner.function_pool import Waiter
    from faas.runner.launcher import Launcher

__all__ = ["Agent", "AgentOptions"]

logger = logging.getLogger(__name__)

SWEEP_S = 0.1
"""How often running calls, calls in line and idle containers are looked at; their time limits are that exact."""

OPEN_S = 1.0
"""How long a container may take to accept a connection."""

CLOSE_S = 10.0
"""How long closing waits, at least, for containers to end; what is left then is the next boot's to remove."""


HotSlot = Slot[HotContainer]


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
        self._is_closing = False
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

    def _withdraw(self, invocation: Invocation) -> bool:
        return self.pool.withdraw(invocation)

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
        await self.wait_ended(grace_s)
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

    def call_answered(self, slot: HotSlot, invocation: Invocation, *, is_reusable: bool) -> None:
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

    def call_broke(self, slot: HotSlot, invocation: Invocation, error: FaasError) -> None:
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

    def needs_opening(self, slot: HotSlot, invocation: Invocation) -> None:
        """The call can't begin before a channel is opened."""
        self._tasks.spawn(self._open(slot, invocation), name=f"open/{invocation.id}")

    def stop_hot_call(self, slot: HotSlot, invocation: Invocation, error: FaasError) -> None:
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
        self._doom(container, error)
        self._tasks.spawn(self._fail(slot, invocation, error), name=f"stop/{invocation.id}")

    def _release(self, slot: HotSlot) -> None:
        """A call is through with its slot."""
        slot.container.free_slot(slot)
        self.pool.release(slot.container)

    def _leave(self, slot: HotSlot) -> None:
        """A call broke off; its container goes on with the others."""
        slot.container.drop_slot(slot)
        self.pool.release(slot.container)

    # --- PoolUser: the pool tells

    def run_cold(self, waiter: Waiter, reservation: Reservation) -> None:
        """Run a call in a container of its own."""
        assert isinstance(waiter, Invocation)  # no lease is asked for where every call has its own container
        self._tasks.spawn(self._run_cold(waiter, reservation), name=f"cold/{waiter.id}")

    def refuse(self, waiter: Waiter, error: FaasError) -> None:
        """There is nothing for who waits."""
        if isinstance(waiter, Lease):
            waiter.holder.refused(waiter, error)
        elif isinstance(waiter, Invocation):
            self._end(waiter, error)

    # --- the leases of other processes: they end as calls do

    def give_back(self, lease: Lease, *, is_fit: bool) -> None:
        """The place is free; unless `is_fit`, its container takes no further call."""
        assert lease.slot is not None
        container = lease.slot.container
        container.end_lease(lease)
        if not is_fit:
            self.pool.drain(container)
        if container.state is ContainerState.BUSY:
            self._release(lease.slot)

    async def break_lease(self, lease: Lease, error: FaasError, *, is_stopped: bool) -> FaasError:
        """A call there has no whole answer, or was stopped, and the lease ends with it; returns what its caller is to
        be told, once the container does it no more."""
        assert lease.slot is not None
        container = lease.slot.container
        if is_stopped:
            self._doom(container, error)
        elif container.end_reason:
            error = KilledError(container.end_reason)
        error = await self._settle(lease.slot, error, is_stopped=is_stopped)
        container.end_lease(lease)
        return error

    def forfeit(self, lease: Lease) -> None:
        """Its holder died, and nobody knows what runs there."""
        assert lease.slot is not None
        container = lease.slot.container
        container.end_reason = "The container was ended because the process that ran another call in it died"
        container.end_lease(lease)
        self.pool.drain(container)
        self.pool.stop(container)

    # --- the end of a call

    def _doom(self, container: HotContainer, error: FaasError) -> None:
        """A call in a container was stopped, and the container will be killed for it."""
        container.end_reason = f"The container was ended because of another call in it: {error.message}"
        self.pool.drain(container)

    async def _fail(self, slot: HotSlot, invocation: Invocation, error: FaasError) -> None:
        """End a call that has no answer: find out why, be sure that its container does it no more, then tell."""
        error = await self._settle(slot, error, is_stopped=invocation.stop is not None)
        invocation.runner = None
        self._end(invocation, invocation.stop or error)

    async def _settle(self, slot: HotSlot, error: FaasError, *, is_stopped: bool) -> FaasError:
        """What becomes of the container of a call that has no answer; returns why it has none."""
        container = slot.container
        if not is_stopped and isinstance(error, ProtocolViolationError):
            self.pool.drain(container)
            error = await self.keeper.diagnose(container, error)
            if container.running > 1 and not container.ended.done():
                # It broke this call's answer, and takes no other call; those that it runs may still end well.
                self._leave(slot)
                return error
        await self.keeper.kill(container)
        self.pool.stop(container)
        return error

    # --- tasks

    async def _open(self, slot: HotSlot, invocation: Invocation) -> None:
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
