"""The hot pool: which container runs which call, when one more is made, and who must go to make room.

Waiting is per function, memory is per node. Every decision here is synchronous: it changes the state and asks the
`Launcher`'s functions to do the slow part. For each function:

    idle    a stack: the container used last is used first, so that surplus ones grow old and go
    waiting a queue: first come, first served
    starting how many containers are on their way; one more is made while fewer are than calls wait

Containers that don't fit into the node's memory wait in `_short`, in order of arrival; idle containers of other
functions are evicted, the longest idle first, when that makes enough room.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Protocol

from faas.clock import monotonic
from faas.errors import NoCapacityError
from faas.models import FormatName
from faas.runner.container import ContainerState, HotContainer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from faas.runner.capacity import Capacity, Reservation
    from faas.runner.functions import Function
    from faas.runner.invocation import Invocation

__all__ = ["FunctionPool", "Pool", "PoolUser"]

logger = logging.getLogger(__name__)

BYPASS_S = 1.0
"""How long a function that is short of memory lets smaller ones pass; then freed memory is kept for it."""


class PoolUser(Protocol):
    """What the pool asks of its owner, the agent; none of these may block or fail."""

    def launch(self, function: Function, reservation: Reservation) -> HotContainer:
        """Begin to make a hot container; ends in `Pool.launched` or `Pool.launch_failed`."""

    def run_cold(self, invocation: Invocation, reservation: Reservation) -> None:
        """Run a call in a container of its own; ends in `Pool.cold_ended`."""

    def dispose(self, container: HotContainer) -> None:
        """End a container; ends in `Pool.disposed`."""

    def refuse(self, invocation: Invocation, error: NoCapacityError) -> None:
        """Tell a waiting call that there is nothing for it."""


class FunctionPool:
    """What the pool knows of one function key."""

    __slots__ = ("function", "generation", "idle", "live", "short_since", "starting", "waiting")

    def __init__(self, function: Function) -> None:
        self.function = function
        self.idle: list[HotContainer] = []
        self.waiting: deque[tuple[Invocation, float]] = deque()
        """Calls, with the monotonic deadline of each."""
        self.starting = 0
        self.live = 0
        """Containers of any state that hold memory, cold ones too."""
        self.short_since = 0.0
        """Since when it lacks memory; 0 when it does not."""
        self.generation = 0
        """Counts how often the function was retired; a container of an earlier generation takes no further call."""

    def __repr__(self) -> str:
        return (
            f"<FunctionPool {self.function} [Calls: {len(self.waiting)} waiting | "
            f"Containers: {self.live} live, {len(self.idle)} idle, {self.starting} starting]>"
        )

    @property
    def is_unused(self) -> bool:
        """Whether it can be forgotten."""
        return not self.live and not self.waiting and not self.starting

    @property
    def has_room(self) -> bool:
        """Whether `max_concurrency` allows one container more."""
        limit = self.function.max_concurrency
        return limit == 0 or self.live < limit


class Pool:
    """The containers of one node."""

    def __init__(self, capacity: Capacity, user: PoolUser, *, max_waiting: int, on_evicted: Callable[[], None]) -> None:
        self._capacity = capacity
        self._user = user
        self._max_waiting = max_waiting
        self._on_evicted = on_evicted
        self._pools: dict[str, FunctionPool] = {}
        self._short: dict[str, FunctionPool] = {}
        """Functions that lack memory, in order of arrival."""
        self._stopping_mib = 0
        """Memory that containers which are being ended still hold."""
        self.is_closed = False
        capacity.on_freed = self._serve_short

    def __repr__(self) -> str:
        return f"<Pool {len(self._pools)} functions, {self._capacity!r}, {len(self._short)} short of memory>"

    def __iter__(self) -> Iterator[FunctionPool]:
        return iter(self._pools.values())

    # --- a call comes

    def submit(self, invocation: Invocation, deadline: float) -> None:
        """Run a call on an idle container, or put it in line until `deadline` (monotonic).

        Raises `NoCapacityError` when the line is full or the function can never fit.
        """
        function = invocation.function
        pool = self._pools.get(function.key)
        if pool is None:
            pool = self._pools[function.key] = FunctionPool(function)
        if pool.idle:
            pool.idle.pop().run(invocation)
            return
        self._enqueue(pool, invocation, deadline)

    def withdraw(self, invocation: Invocation) -> bool:
        """Take a call out of the line; False when it is not in it."""
        pool = self._pools.get(invocation.function.key)
        if pool is None:
            return False
        for entry in pool.waiting:
            if entry[0] is invocation:
                pool.waiting.remove(entry)
                self._forget_if_unused(pool)
                return True
        return False

    def _enqueue(self, pool: FunctionPool, invocation: Invocation, deadline: float) -> None:
        problem = self._why_never(pool)
        if problem:
            self._forget_if_unused(pool)
            raise NoCapacityError(problem)
        pool.waiting.append((invocation, deadline))
        self._grow(pool)

    # --- one container more

    def _grow(self, pool: FunctionPool) -> None:
        """Make as many containers as there are calls that nobody is on the way for."""
        if self.is_closed:
            return
        is_cold = pool.function.format is FormatName.DEFAULT
        while len(pool.waiting) > pool.starting and pool.has_room:
            reservation = self._reserve(pool)
            if reservation is None:
                return
            pool.live += 1
            if is_cold:
                self._user.run_cold(pool.waiting.popleft()[0], reservation)
            else:
                pool.starting += 1
                container = self._user.launch(pool.function, reservation)
                container.generation = pool.generation
        self._no_longer_short(pool)

    def _reserve(self, pool: FunctionPool) -> Reservation | None:
        """Memory for one container; without any the function is put on the list of those that lack it."""
        need_mib = pool.function.memory_mib
        head = next(iter(self._short.values()), None)
        is_blocked = head is not None and head is not pool and monotonic() - head.short_since > BYPASS_S
        reservation = None if is_blocked else self._capacity.try_reserve(need_mib)
        if reservation is None:
            if pool.function.key not in self._short:
                pool.short_since = monotonic()
                self._short[pool.function.key] = pool
            self._evict_for(pool, need_mib)
        return reservation

    def _evict_for(self, pool: FunctionPool, need_mib: int) -> None:
        """End idle containers of other functions, if that makes enough room; the room comes when they are dead."""
        missing_mib = need_mib - self._capacity.free_mib - self._stopping_mib
        if missing_mib <= 0:
            return
        idle = [container for other in self._pools.values() if other is not pool for container in other.idle]
        if sum(container.reservation.memory_mib for container in idle) < missing_mib:
            return
        for container in sorted(idle, key=lambda one: one.idle_since):
            self._pools[container.function.key].idle.remove(container)
            self._on_evicted()
            self.stop(container)
            missing_mib -= container.reservation.memory_mib
            if missing_mib <= 0:
                return

    def _serve_short(self) -> None:
        """Memory was freed: serve who lacks it, in order."""
        for pool in list(self._short.values()):
            self._grow(pool)
            if pool.function.key in self._short and monotonic() - pool.short_since > BYPASS_S:
                return

    def _no_longer_short(self, pool: FunctionPool) -> bool:
        was_short = self._short.pop(pool.function.key, None) is not None
        pool.short_since = 0.0
        return was_short

    def _stop_asking(self, pool: FunctionPool) -> None:
        """Take a function whose calls need no further container off the list; who stood behind it has its chance."""
        if len(pool.waiting) <= pool.starting and self._no_longer_short(pool):
            self._serve_short()

    # --- what becomes of containers

    def launched(self, container: HotContainer) -> None:
        """A container is ready for its first call."""
        pool = self._pools[container.function.key]
        pool.starting -= 1
        self.release(container)

    def launch_failed(self, container: HotContainer) -> Invocation | None:
        """A container never got ready; returns the call that hears of it, if one still waits."""
        pool = self._pools[container.function.key]
        pool.starting -= 1
        invocation = pool.waiting.popleft()[0] if pool.waiting else None
        self.stop(container)
        return invocation

    def release(self, container: HotContainer) -> None:
        """A container has nothing to do: give it the next call, or keep it idle, or end it."""
        pool = self._pools[container.function.key]
        container.idle_since = monotonic()  # also for the next call: its connection was used until now
        is_stale = container.generation != pool.generation or container.ended.done()
        # A container that was on its way when the function was retired still serves the call it was made for.
        if pool.waiting and (not is_stale or (container.calls == 0 and not container.ended.done())):
            container.run(pool.waiting.popleft()[0])
            if self._short:
                self._stop_asking(pool)
        elif is_stale or self.is_closed:
            self.stop(container)
        else:
            container.state = ContainerState.IDLE
            pool.idle.append(container)
            if self._short:
                # A function that lacks memory can have this one's.
                self._serve_short()

    def stop(self, container: HotContainer) -> None:
        """End a container that is not among the idle ones (any more)."""
        if container.state not in (ContainerState.STOPPING, ContainerState.DEAD):
            container.state = ContainerState.STOPPING
            self._stopping_mib += container.reservation.memory_mib
            self._user.dispose(container)

    def died(self, container: HotContainer) -> None:
        """An idle container ended by itself."""
        pool = self._pools[container.function.key]
        pool.idle.remove(container)
        self.stop(container)

    def disposed(self, container: HotContainer) -> None:
        """A container is dead; its memory is free."""
        container.state = ContainerState.DEAD
        self._stopping_mib -= container.reservation.memory_mib
        self._left(container.function, container.reservation)

    def cold_ended(self, function: Function, reservation: Reservation) -> None:
        """A call's own container is dead; its memory is free."""
        self._left(function, reservation)

    def _left(self, function: Function, reservation: Reservation) -> None:
        pool = self._pools[function.key]
        pool.live -= 1
        reservation.release()
        if pool.waiting:
            self._grow(pool)
        self._forget_if_unused(pool)

    def _forget_if_unused(self, pool: FunctionPool) -> None:
        self._stop_asking(pool)
        if pool.is_unused:
            self._pools.pop(pool.function.key, None)

    # --- from time to time, and at the end

    def retire(self, key: str) -> None:
        """A function was changed or removed: its idle containers end now, the others with their call."""
        pool = self._pools.get(key)
        if pool is None:
            return
        pool.generation += 1
        self._stop_idle(pool)
        self._forget_if_unused(pool)

    def sweep(self) -> None:
        """End containers that were idle too long; refuse calls whose deadline has passed."""
        now = monotonic()
        for pool in list(self._pools.values()):
            idle = pool.idle
            while idle and now - idle[0].idle_since > pool.function.idle_timeout_s:
                self.stop(idle.pop(0))
            self._refuse_late(pool, now)

    def _refuse_late(self, pool: FunctionPool, now: float) -> None:
        # While a container is on its way the first calls in line are as good as served; the launch has its own
        # deadlines.
        late = [entry for index, entry in enumerate(pool.waiting) if index >= pool.starting and now > entry[1]]
        for entry in late:
            pool.waiting.remove(entry)
            self._user.refuse(entry[0], NoCapacityError(self._why_none(pool)))
        if late:
            self._forget_if_unused(pool)

    def _why_never(self, pool: FunctionPool) -> str:
        need_mib = pool.function.memory_mib
        if not self._capacity.can_ever_fit(need_mib):
            return (
                f"The function needs {need_mib} MiB, this node has {self._capacity.total_mib} MiB for all functions;"
                " lower its `memory` or use a larger node"
            )
        if len(pool.waiting) >= self._max_waiting:
            return f"{self._max_waiting} calls wait for this function already; try again later"
        return ""

    def _why_none(self, pool: FunctionPool) -> str:
        if not pool.has_room:
            return f"Timed out - server too busy: {pool.live} of `max_concurrency` {pool.live} containers are in use"
        return (
            f"Timed out - server too busy: {self._capacity.used_mib} of {self._capacity.total_mib} MiB are in use,"
            f" the function needs {pool.function.memory_mib} MiB"
        )

    def close(self) -> None:
        """Take no more calls, end what is idle; containers that run a call end with it."""
        self.is_closed = True
        for pool in list(self._pools.values()):
            self._stop_idle(pool)

    def _stop_idle(self, pool: FunctionPool) -> None:
        idle, pool.idle = pool.idle, []
        for container in idle:
            self.stop(container)
