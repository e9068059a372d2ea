"""Network namespaces kept ready, because to make one is most of a container's start, and to join one is not.

A *holder* is a container of ours that does nothing but have a namespace. One other container at a time joins it:

    MAKING --made--> FREE --take--> USED --release--> FREE, as long as few are
                      |              | ^
          holder ends |  holder ends | | another holder takes its place
                      v              v |
                     gone           LOST --release--> gone

Holders are made and removed in the background, one at a time, and only in moments when no container is started: that is
when nobody would wait for it. With none free a container has a namespace made for itself, as without this room.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from faas.errors import FaasError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from faas.tasks import TaskSet

__all__ = ["Holders", "Namespace", "NetworkPool", "State"]

logger = logging.getLogger(__name__)

CALM_S = 0.25
"""No start for so long is a calm moment: the next call of a burst comes sooner, the first call has its answer."""

MOST_FREE = 2
"""Times the target: beyond, holders that nobody uses are removed."""

SURPLUS_INTERVAL_S = 2.0
"""Between two removals of such: the next burst may want them."""

RETRY_DELAYS_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)

CLOSE_TIMEOUT_S = 10.0
"""For what is in the making, and again for the removals; then the rest is left to the next boot's reaper."""


class Holders(Protocol):
    """What can make holders and take them away."""

    def make(self, name: str = "") -> asyncio.Future[str | None]:
        """Begin to make one, running; its id, or `None` when there can be none on this engine. Raises `FaasError`.

        The work goes on when nobody waits for it.
        """

    async def remove(self, holder_id: str) -> None:
        """Remove one; nothing when it is gone."""

    def on_end(self, holder_id: str, callback: Callable[[], None]) -> None:
        """Have the callback called when it ends, whoever ended it."""


class State(enum.Enum):
    """Where a namespace is in its life."""

    MAKING = "making"
    FREE = "free"
    USED = "used"
    LOST = "lost"
    """Its holder has ended, and with it the interfaces in it."""


@dataclass(slots=True, eq=False)
class Namespace:
    """One namespace; the pool's to change, but for `on_lost`."""

    holder_id: str = ""
    state: State = State.MAKING
    on_lost: Callable[[], None] | None = None
    """Hears that the namespace was lost while it was used."""

    @property
    def mode(self) -> str:
        """The engine's word for the network of a container that joins it."""
        return f"container:{self.holder_id}"


class NetworkPool:
    """The namespaces of one executor."""

    def __init__(self, holders: Holders, *, target: int, is_reusable: bool, tasks: TaskSet) -> None:
        """`target` are kept free. What is not reusable serves one container only."""
        self._holders = holders
        self._target = target
        self._is_reusable = is_reusable
        self._tasks = tasks
        self._free: deque[Namespace] = deque()
        """The one that rested longest is next: whatever the last user's peers still send comes to nobody."""
        self._held: dict[str, Namespace] = {}
        """By holder: all that have one."""
        self._used: dict[str, Namespace] = {}
        """By the container that joined."""
        self._making: set[asyncio.Future[str | None]] = set()
        self._removing: set[asyncio.Task[None]] = set()
        self._keeping: asyncio.Task[None] | None = None
        self._failures = 0
        """One after the other: a trouble is logged once."""
        self._starts = 0
        """Under way."""
        self._starts_seen = 0
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<NetworkPool {len(self._free)} of {self._target} free, {len(self._used)} used>"

    def __contains__(self, container_id: str) -> bool:
        """Whether it is a holder of this pool."""
        return container_id in self._held

    def open(self) -> None:
        """Begin to make holders."""
        if self._target > 0:
            self._keeping = self._tasks.supervise(self._keep(), name="networks")

    async def close(self) -> None:
        """Make no more, remove those that nobody uses; a container that is left keeps its network."""
        if self._keeping is not None:
            self._keeping.cancel()
        if self._making:
            await asyncio.wait(self._making, timeout=CLOSE_TIMEOUT_S)
        while self._free:
            self._discard(self._free.popleft().holder_id)
        if self._removing:
            await asyncio.wait(self._removing, timeout=CLOSE_TIMEOUT_S)

    @contextmanager
    def start_under_way(self) -> Iterator[None]:
        """While this is entered, and a moment longer, the engine is left to who starts a container."""
        self._starts += 1
        self._starts_seen += 1
        try:
            yield
        finally:
            self._starts -= 1

    # --- using one

    def take(self) -> Namespace | None:
        """A namespace that nobody else has until it is released or given back; `None` when none is ready."""
        if not self._free:
            return None
        namespace = self._free.popleft()
        namespace.state = State.USED
        self._changed.set()
        return namespace

    def used_by(self, container_id: str, namespace: Namespace) -> None:
        """A container was made in it."""
        self._used[container_id] = namespace

    def release(self, container_id: str) -> None:
        """A container is gone, and its processes are; its namespace, if it had one, is free for the next."""
        namespace = self._used.pop(container_id, None)
        if namespace is None:
            return
        namespace.on_lost = None
        if self._is_reusable or namespace.state is State.LOST:
            self.give_back(namespace)
        else:
            self._discard(namespace.holder_id)

    def give_back(self, namespace: Namespace) -> None:
        """Nobody is in it any more, or ever was."""
        if namespace.state is State.USED:
            self._set_free(namespace)
        else:
            # Lost; should another holder be in the making for it, that one is free then.
            namespace.state = State.MAKING

    async def revive(self, namespace: Namespace) -> None:
        """Give a lost namespace another holder, for a container that was made in it and can't be started any more.

        The container names the old one's id. The engine finds that as an id or as a name, so the new one is named so.
        """
        if namespace.state is not State.LOST:
            return
        lost_id = namespace.holder_id
        await self._holders.remove(lost_id)
        await asyncio.shield(self._make(namespace, name=lost_id))

    # --- keeping as many as wanted

    @property
    def _is_short(self) -> bool:
        return len(self._free) < self._target

    @property
    def _is_surplus(self) -> bool:
        return len(self._free) > MOST_FREE * self._target

    async def _keep(self) -> None:
        while True:
            while not (self._is_short or self._is_surplus):
                self._changed.clear()
                await self._changed.wait()
            await self._until_calm()
            if self._is_surplus:
                self._discard(self._free.popleft().holder_id)
                await asyncio.sleep(SURPLUS_INTERVAL_S)
            elif self._is_short and not await self._make_one():
                logger.info("network_pool_off", extra={"reason": "no holder for this engine's architecture"})
                return

    async def _until_calm(self) -> None:
        while True:
            seen = self._starts_seen
            await asyncio.sleep(CALM_S)
            if not self._starts and self._starts_seen == seen:
                return

    async def _make_one(self) -> bool:
        """Whether another one may be tried."""
        try:
            holder_id = await asyncio.shield(self._make(Namespace()))
        except FaasError as error:
            if not self._failures:
                logger.warning("network_pool_stalled", extra={"error": error.message})
            await asyncio.sleep(RETRY_DELAYS_S[min(self._failures, len(RETRY_DELAYS_S) - 1)])
            self._failures += 1
            return True
        if self._failures:
            self._failures = 0
            logger.info("network_pool_back")
        return holder_id is not None

    def _set_free(self, namespace: Namespace) -> None:
        namespace.state = State.FREE
        self._free.append(namespace)
        self._changed.set()

    # --- holders

    def _make(self, namespace: Namespace, name: str = "") -> asyncio.Future[str | None]:
        making = self._holders.make(name)
        self._making.add(making)
        making.add_done_callback(partial(self._made, namespace))
        return making

    def _made(self, namespace: Namespace, making: asyncio.Future[str | None]) -> None:
        self._making.discard(making)
        if making.cancelled() or making.exception() is not None:
            return
        holder_id = making.result()
        if holder_id is None:
            return
        namespace.holder_id = holder_id
        self._held[holder_id] = namespace
        self._holders.on_end(holder_id, partial(self._ended, holder_id))
        if namespace.state is State.LOST:
            namespace.state = State.USED
        else:
            self._set_free(namespace)

    def _ended(self, holder_id: str) -> None:
        namespace = self._held.get(holder_id)
        if namespace is None:
            return
        logger.warning("network_holder_ended", extra={"holder": holder_id[:12], "state": namespace.state.value})
        if namespace.state is State.FREE:
            self._free.remove(namespace)
        namespace.state = State.LOST
        self._discard(holder_id)
        self._changed.set()
        if namespace.on_lost is not None:
            namespace.on_lost()

    def _discard(self, holder_id: str) -> None:
        del self._held[holder_id]
        removing = self._tasks.spawn(self._remove(holder_id), name="remove-holder")
        self._removing.add(removing)
        removing.add_done_callback(self._removing.discard)

    async def _remove(self, holder_id: str) -> None:
        try:
            await self._holders.remove(holder_id)
        except FaasError as error:
            # It is not ours any more, so that the reaper takes it for forgotten and tries again.
            logger.info("network_holder_not_removed", extra={"holder": holder_id[:12], "error": error.message})
