"""The hot pool: which container runs which call, when one more is made, and who must go to make room.

Waiting is per function, memory is per node. Every decision here is synchronous: it changes the state and asks the
`ContainerKeeper` to do the slow part. For each function (`FunctionPool`):

    levels   containers with room for a call, by how many they run; level 0 is idle
    frozen   idle containers that are paused
    waiting  a queue: first come, first served
    starting how many containers are on their way; one more is thawed or made while they have too few places for the
             calls that wait

Functions whose next container does not fit into the node's memory are in a `Shortage`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from faas.clock import monotonic
from faas.errors import NoCapacityError
from faas.models import FormatName
from faas.runner.container import ContainerState
from faas.runner.function_pool import FunctionPool
from faas.runner.shortage import Shortage, choose_victims

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from faas.errors import FaasError
    from faas.runner.capacity import Capacity, Reservation
    from faas.runner.container import HotContainer
    from faas.runner.function_pool import PlaceSeeker
    from faas.runner.functions import Function
    from faas.runner.invocation import LaunchTimings

__all__ = ["ContainerKeeper", "Pool", "PoolUser"]

logger = logging.getLogger(__name__)

IN_USE_S = 1.0
"""An idle container whose last call ended less long ago counts as in use."""


class ContainerKeeper(Protocol):
    """What the pool asks of who keeps its containers; none of these may block or fail."""

    def launch(self, pool: FunctionPool, reservation: Reservation) -> HotContainer:
        """Begin to make a hot container; ends in `Pool.launched` or `Pool.launch_failed`."""

    def freeze(self, container: HotContainer) -> None:
        """Pause an idle container; `Pool.freeze_failed` when that is not possible."""

    def thaw(self, container: HotContainer) -> None:
        """Resume a frozen container; ends in `Pool.thawed` or `Pool.thaw_failed`."""

    def dispose(self, container: HotContainer) -> None:
        """End a container; ends in `Pool.disposed`."""


class PoolUser(Protocol):
    """What the pool tells its owner, the agent; neither may block or fail."""

    def run_cold(self, invocation: PlaceSeeker, reservation: Reservation) -> None:
        """Run a call in a container of its own; ends in `Pool.cold_ended`."""

    def refuse(self, invocation: PlaceSeeker, error: FaasError) -> None:
        """There is nothing for a waiting call."""


class Pool:
    """The containers of one node."""

    def __init__(
        self,
        capacity: Capacity,
        keeper: ContainerKeeper,
        user: PoolUser,
        *,
        max_waiting: int,
        on_evicted: Callable[[], None],
    ) -> None:
        self._capacity = capacity
        self._keeper = keeper
        self._user = user
        self._max_waiting = max_waiting
        self._on_evicted = on_evicted
        self._pools: dict[str, FunctionPool] = {}
        self._short = Shortage()
        self._stopping_mib = 0
        """Memory that containers which are being ended still hold."""
        self.is_closed = False
        capacity.on_freed = self._serve_short

    def __repr__(self) -> str:
        return f"<Pool {len(self._pools)} functions, {self._capacity!r}, {len(self._short)} short of memory>"

    def __iter__(self) -> Iterator[FunctionPool]:
        return iter(self._pools.values())

    # --- a call comes

    def submit(self, invocation: PlaceSeeker, deadline: float) -> None:
        """Run a call on a container that has room, or put it in line until `deadline` (monotonic).

        Raises `NoCapacityError` when the line is full or the function can never fit.
        """
        function = invocation.function
        pool = self._pools.get(function.key)
        if pool is None:
            pool = self._pools[function.key] = FunctionPool(function)
        container = pool.take()
        if container is not None:
            invocation.run_in(container)
        else:
            self._enqueue(pool, invocation, deadline)

    def withdraw(self, invocation: PlaceSeeker) -> bool:
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

    def _enqueue(self, pool: FunctionPool, invocation: PlaceSeeker, deadline: float) -> None:
        problem = self._why_never(pool)
        if problem:
            self._forget_if_unused(pool)
            raise NoCapacityError(problem)
        pool.waiting.append((invocation, deadline))
        self.grow(pool)

    # --- one container more

    def grow(self, pool: FunctionPool) -> None:
        """Thaw or make as many containers as the calls need that nobody is on the way for.

        Nobody needs another one while other processes have places that they don't use: those are asked for first.
        """
        if self.is_closed:
            return
        is_cold = pool.function.format is FormatName.DEFAULT
        while not pool.is_served:
            if pool.frozen:
                self._keeper.thaw(pool.thaw())
                continue
            if pool.loans is not None and pool.loans.recall():
                return
            if not pool.has_room:
                break
            reservation = self._reserve(pool)
            if reservation is None:
                return
            if is_cold:
                pool.live += 1
                self._user.run_cold(pool.waiting.popleft()[0], reservation)
            else:
                self._launch(pool, reservation)
        self._short.remove(pool)

    def _launch(self, pool: FunctionPool, reservation: Reservation) -> HotContainer:
        pool.live += 1
        pool.starting += 1
        container = self._keeper.launch(pool, reservation)
        container.generation = pool.generation
        return container

    def _reserve(self, pool: FunctionPool) -> Reservation | None:
        """Memory for one container; without any the function is put on the list of those that lack it."""
        need_mib = pool.function.memory_mib
        reservation = None if self._short.must_wait(pool) else self._capacity.try_reserve(need_mib)
        if reservation is None:
            self._short.add(pool)
            # The room comes when those that are being ended are dead.
            missing_mib = need_mib - self._capacity.free_mib - self._stopping_mib
            for container in choose_victims(self, pool, missing_mib):
                self._on_evicted()
                self.stop(container)
        return reservation

    def _serve_short(self) -> None:
        """Memory was freed: serve who lacks it, in order."""
        for pool in self._short:
            self.grow(pool)
            if self._short.keeps_memory_for(pool):
                return

    def _stop_asking(self, pool: FunctionPool) -> None:
        """Take a function whose calls need no further container off the list; who stood behind it has its chance."""
        if pool.is_served and self._short.remove(pool):
            self._serve_short()

    # --- what becomes of containers

    def launched(self, container: HotContainer) -> None:
        """A new container is ready for calls."""
        pool = container.pool
        pool.started()
        # One that was on its way when the function was retired still serves the calls it was made for.
        self._begin(container, container.timings, is_fit=not container.ended.done())

    def thawed(self, container: HotContainer) -> None:
        """A frozen container can go on."""
        self._begin(container, None, is_fit=not container.pool.is_stale(container))

    def _begin(self, container: HotContainer, launch: LaunchTimings | None, *, is_fit: bool) -> None:
        pool = container.pool
        pool.starting -= 1
        container.idle_since = monotonic()
        while is_fit and pool.waiting and container.running < pool.concurrency:
            invocation = pool.waiting.popleft()[0]
            invocation.launch = launch
            container.running += 1
            invocation.run_in(container)
        self._stop_asking(pool)
        if not self.is_closed and not pool.is_stale(container):
            pool.offer(container)
            if self._short and container.state is ContainerState.IDLE:
                self._serve_short()  # a function that lacks memory can have this one's
        elif container.running:
            container.state = ContainerState.BUSY
        else:
            self.stop(container)
            self.grow(pool)

    def launch_failed(self, container: HotContainer, error: FaasError) -> None:
        """A container never got ready; one call hears of it, if any waits."""
        pool = container.pool
        pool.starting -= 1
        pool.not_started(monotonic())
        invocation = pool.waiting.popleft()[0] if pool.waiting else None
        self.stop(container)
        if invocation is not None:
            invocation.log = container.start_log if container.start_log else None
            invocation.launch = container.timings
            self._user.refuse(invocation, error)

    def release(self, container: HotContainer) -> None:
        """A call has left its place in a container: the next one gets it, or it is kept, or the container ends."""
        pool = container.pool
        container.idle_since = monotonic()
        if pool.is_stale(container):
            self._leave_place(container)
        elif pool.waiting:
            pool.waiting.popleft()[0].run_in(container)
            if self._short:
                self._stop_asking(pool)
        elif self.is_closed:
            self.drain(container)
            self._leave_place(container)
        else:
            pool.put_back(container)
            if self._short and container.state is ContainerState.IDLE:
                # A function that lacks memory can have this one's.
                self._serve_short()

    def _leave_place(self, container: HotContainer) -> None:
        container.running -= 1
        if not container.running:
            self.stop(container)

    def drain(self, container: HotContainer) -> None:
        """A container takes no further call, and ends with those that it runs."""
        container.pool.leave(container)
        container.generation = -1

    def died(self, container: HotContainer) -> None:
        """A container's process has ended; who was to hear of it by other means, as its starter or a call, does."""
        if container.state is ContainerState.BUSY:
            self.drain(container)
        elif container.state in (ContainerState.IDLE, ContainerState.FROZEN):
            self.stop(container)

    def stop(self, container: HotContainer) -> None:
        """End a container, whatever it does."""
        if container.state not in (ContainerState.STOPPING, ContainerState.DEAD):
            container.pool.leave(container)
            container.pool.stopping += 1
            container.state = ContainerState.STOPPING
            self._stopping_mib += container.reservation.memory_mib
            self._keeper.dispose(container)

    def freeze_failed(self, container: HotContainer) -> None:
        """A container could not be paused; nobody knows what state it is in."""
        if container.state is ContainerState.FROZEN:
            self.stop(container)

    def thaw_failed(self, container: HotContainer) -> None:
        """A container could not be resumed: the calls that it was thawed for get another one."""
        pool = container.pool
        pool.starting -= 1
        self.stop(container)
        self.grow(pool)

    def disposed(self, container: HotContainer) -> None:
        """A container is dead; its memory is free."""
        container.state = ContainerState.DEAD
        container.pool.stopping -= 1
        self._stopping_mib -= container.reservation.memory_mib
        self._left(container.pool, container.reservation)

    def cold_ended(self, function: Function, reservation: Reservation) -> None:
        """A call's own container is dead; its memory is free."""
        self._left(self._pools[function.key], reservation)

    def _left(self, pool: FunctionPool, reservation: Reservation) -> None:
        pool.live -= 1
        reservation.release()
        if pool.waiting:
            self.grow(pool)
        self._forget_if_unused(pool)

    def _forget_if_unused(self, pool: FunctionPool) -> None:
        self._stop_asking(pool)
        if pool.is_unused:
            self._pools.pop(pool.function.key, None)

    # --- the function changes

    def adopt(self, function: Function) -> None:
        """A function exists, or its numbers changed in a way that its containers can stay."""
        pool = self._pools.get(function.key)
        if pool is None:
            if not function.min_warm:
                return
            pool = self._pools[function.key] = FunctionPool(function)
        pool.function = function
        pool.min_warm = function.min_warm

    def retire(self, key: str) -> None:
        """A function was replaced or removed: its idle containers end now, the others with their calls."""
        pool = self._pools.get(key)
        if pool is None:
            return
        pool.generation += 1
        pool.min_warm = 0
        for container in pool.leave_all():
            self.stop(container)
        self._forget_if_unused(pool)

    def launch_ahead(self, function: Function, count: int) -> list[HotContainer]:
        """Make containers that nobody waits for yet, as far as there is memory that nobody uses."""
        pool = self.of(function)
        made: list[HotContainer] = []
        while len(made) < count and pool.has_room and not self.is_closed and not self._short:
            reservation = self._capacity.try_reserve(function.memory_mib)
            if reservation is None:
                break
            made.append(self._launch(pool, reservation))
        self._forget_if_unused(pool)
        return made

    def in_use(self, key: str) -> int:
        """How many containers of a function run a call, or did so a moment ago: between short calls all are idle."""
        pool = self._pools.get(key)
        if pool is None:
            return 0
        now = monotonic()
        return pool.busy + sum(now - container.idle_since < IN_USE_S for container in pool.idle)

    def of(self, function: Function) -> FunctionPool:
        """What is known of a function; made when there was nothing yet, to be used at once."""
        pool = self._pools.get(function.key)
        if pool is None:
            pool = self._pools[function.key] = FunctionPool(function)
        return pool

    def find(self, key: str) -> FunctionPool | None:
        """What is known of a function that has containers or calls in line, also when it was retired."""
        return self._pools.get(key)

    def is_used(self, key: str) -> bool:
        """Whether a function has containers, or shall have some."""
        pool = self._pools.get(key)
        return pool is not None and (pool.live > pool.stopping or pool.min_warm > 0)

    # --- from time to time, and at the end

    def sweep(self) -> None:
        """End or pause containers that were idle too long, keep others warm; refuse calls whose deadline has passed."""
        now = monotonic()
        for pool in list(self._pools.values()):
            function = pool.function
            for container in pool.idle_longer_than(function.idle_timeout_s, now):
                if pool.surplus > 0:
                    self.stop(container)
            if function.freeze_s:
                for container in pool.idle_longer_than(function.freeze_s, now):
                    if container.state is ContainerState.IDLE:
                        pool.freeze(container)
                        self._keeper.freeze(container)
            if pool.min_warm:
                self.launch_ahead(function, pool.missing(now))
            self._refuse_late(pool, now)

    def _refuse_late(self, pool: FunctionPool, now: float) -> None:
        # While a container is on its way the first calls in line are as good as served; the launch has its own
        # deadlines.
        served = pool.starting * pool.concurrency
        late = [entry for index, entry in enumerate(pool.waiting) if index >= served and now > entry[1]]
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
            pool.min_warm = 0
            for container in [*pool.frozen, *pool.idle]:
                self.stop(container)
            self._forget_if_unused(pool)
