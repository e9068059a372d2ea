"""What the pool knows of one function: its containers by how many calls each runs, and the calls in line.

A call goes to the container that runs the fewest, and among equals to the one used last: calls are spread evenly over
what is needed, and surplus containers grow old and go.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from faas.runner.container import ContainerState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from faas.runner.call_log import LogBuffer
    from faas.runner.container import HotContainer
    from faas.runner.functions import Function
    from faas.runner.invocation import LaunchTimings

__all__ = ["FunctionPool", "Loans", "PlaceSeeker"]

FIRST_RETRY_S = 1.0
LAST_RETRY_S = 60.0
"""Pauses between attempts to start containers that nobody waits for, when they fail: doubled each time."""


class PlaceSeeker(Protocol):
    """What wants a place in a container, and waits in line for it: a call, or another process on behalf of its own."""

    launch: LaunchTimings | None
    """Set when a container was made for it."""
    log: LogBuffer | None
    """Set when no container got ready, to what was written meanwhile."""

    @property
    def function(self) -> Function:
        """Whose container it wants."""

    def run_in(self, container: HotContainer) -> None:
        """A place, counted already, is its own until `Pool.release`."""


class Loans(Protocol):
    """The places of one function that other processes have."""

    def recall(self) -> bool:
        """Ask for those back that are not used, because somebody waits; True while an answer is still to come, which
        ends in `Pool.grow`."""


class FunctionPool:
    """The containers of one function key on this node, and who waits for one."""

    __slots__ = (
        "_lowest",
        "_retry_at",
        "_retry_s",
        "concurrency",
        "frozen",
        "function",
        "generation",
        "levels",
        "live",
        "loans",
        "min_warm",
        "starting",
        "stopping",
        "waiting",
    )

    def __init__(self, function: Function) -> None:
        self.function = function
        self.concurrency = function.concurrency
        self.min_warm = 0
        """Containers that are kept ready; 0 again when the function was retired."""
        self.levels: list[dict[HotContainer, None]] = [{} for _ in range(self.concurrency)]
        """`levels[k]`: the containers that run k calls and take more, the one used last at the end."""
        self._lowest = 0
        """No level below it holds a container."""
        self.frozen: dict[HotContainer, None] = {}
        """Idle containers that are paused, the one used last at the end."""
        self.waiting: deque[tuple[PlaceSeeker, float]] = deque()
        """Calls, with the monotonic deadline of each."""
        self.loans: Loans | None = None
        """Set when other processes have, or want, places of its containers."""
        self.starting = 0
        """Containers that are being made or thawed."""
        self.stopping = 0
        self.live = 0
        """Containers of any state that hold memory, cold ones too."""
        self.generation = 0
        """Counts how often the function was retired; a container of an earlier generation takes no further call."""
        self._retry_at = 0.0
        self._retry_s = FIRST_RETRY_S

    def __repr__(self) -> str:
        frozen = f", {len(self.frozen)} frozen" if self.frozen else ""
        return (
            f"<FunctionPool {self.function} [Calls: {len(self.waiting)} waiting | "
            f"Containers: {self.live} live, {len(self.idle)} idle{frozen}, {self.starting} starting]>"
        )

    # --- questions

    @property
    def idle(self) -> dict[HotContainer, None]:
        """Containers that run nothing, the longest idle first."""
        return self.levels[0]

    @property
    def is_unused(self) -> bool:
        """Whether it can be forgotten."""
        return not (self.live or self.waiting or self.starting or self.min_warm)

    @property
    def has_room(self) -> bool:
        """Whether `max_concurrency` allows one container more."""
        limit = self.function.max_concurrency
        return limit == 0 or self.live < limit

    @property
    def is_served(self) -> bool:
        """Whether there is a container on its way for every call in line."""
        return len(self.waiting) <= self.starting * self.concurrency

    @property
    def busy(self) -> int:
        """Containers that run a call."""
        return self.live - self.stopping - self.starting - len(self.idle) - len(self.frozen)

    @property
    def surplus(self) -> int:
        """How many containers could end before fewer than `min_warm` are left."""
        return self.live - self.stopping - self.min_warm

    def spare(self) -> list[HotContainer]:
        """Containers that could end for others' sake, the longest idle first."""
        oldest_first = sorted((*self.frozen, *self.idle), key=lambda one: one.idle_since)
        return oldest_first[: max(0, self.surplus)]

    def is_stale(self, container: HotContainer) -> bool:
        """Whether a container takes no further call: its function was retired, or it is drained, or has ended."""
        return container.generation != self.generation or container.ended.done()

    # --- a place for a call

    def take(self) -> HotContainer | None:
        """A place in the container with the fewest calls; `None` when all are full."""
        levels, running = self.levels, self._lowest
        while running < self.concurrency:
            level = levels[running]
            if level:
                self._lowest = running
                container, _ = level.popitem()
                running += 1
                container.running = running
                container.state = ContainerState.BUSY
                if running < self.concurrency:
                    levels[running][container] = None
                return container
            running += 1
        self._lowest = running
        return None

    def put_back(self, container: HotContainer) -> None:
        """A call has left its place, and nobody waits for it."""
        running = container.running
        if running < self.concurrency:
            del self.levels[running][container]
        container.running = running - 1
        self.offer(container)

    def offer(self, container: HotContainer) -> None:
        """A container that is in no level takes calls from now on, as far as it has room."""
        running = container.running
        container.state = ContainerState.BUSY if running else ContainerState.IDLE
        if running < self.concurrency:
            self.levels[running][container] = None
            if running < self._lowest:
                self._lowest = running

    def leave(self, container: HotContainer) -> None:
        """A container takes no further call, whatever it was doing."""
        self.frozen.pop(container, None)
        if container.running < self.concurrency:
            self.levels[container.running].pop(container, None)

    def leave_all(self) -> list[HotContainer]:
        """No container takes a further call; returns those that run none."""
        unused = [*self.frozen, *self.idle]
        self.frozen.clear()
        for level in self.levels:
            level.clear()
        return unused

    def freeze(self, container: HotContainer) -> None:
        """An idle container is about to be paused."""
        del self.idle[container]
        container.state = ContainerState.FROZEN
        self.frozen[container] = None

    def thaw(self) -> HotContainer:
        """A frozen container is about to be resumed."""
        container, _ = self.frozen.popitem()
        container.state = ContainerState.STARTING
        self.starting += 1
        return container

    # --- starts that nobody waits for

    def missing(self, now: float) -> int:
        """How many containers should be started for `min_warm`'s sake; none for a while after a failure."""
        return -self.surplus if now >= self._retry_at else 0

    def started(self) -> None:
        """A container got ready."""
        self._retry_at, self._retry_s = 0.0, FIRST_RETRY_S

    def not_started(self, now: float) -> None:
        """A container did not."""
        self._retry_at = now + self._retry_s
        self._retry_s = min(self._retry_s * 2, LAST_RETRY_S)

    def idle_longer_than(self, seconds: float, now: float) -> Iterator[HotContainer]:
        """Containers that run nothing, and did not for so long, the longest idle first; may be taken meanwhile."""
        for container in [*self.frozen, *self.idle]:
            if now - container.idle_since > seconds:
                yield container
