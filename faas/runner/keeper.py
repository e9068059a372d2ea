"""Keeps the containers of one node: makes, pauses, resumes and ends them as the pool says, and knows which are ours.

Everything here is about the engine and takes its time: each is a task. What must not be left undone (killing,
removing) is repeated while the engine does not answer.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from faas.errors import (
    ChangeNotStartedError,
    EngineUnavailableError,
    FaasError,
    InternalError,
    KilledError,
    OutOfMemoryError,
    ProtocolViolationError,
    ShuttingDownError,
    StartFailedError,
)
from faas.models import FormatName
from faas.runner.container import ContainerState, HotContainer
from faas.runner.spares import Spares

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from faas.metrics import Metrics
    from faas.runner.capacity import Reservation
    from faas.runner.executors.base import Container
    from faas.runner.function_pool import FunctionPool
    from faas.runner.functions import Function
    from faas.runner.launcher import Launcher
    from faas.runner.pool import Pool
    from faas.runner.slot import SlotOwner
    from faas.tasks import TaskSet

__all__ = ["Keeper"]

logger = logging.getLogger(__name__)

PREPARE_S = 10.0
"""How long a change of a function waits for all containers that shall be ready for it; for the first, longer."""

DIAGNOSIS_S = 1.0
"""How long a container that hung up may take to turn out dead, so that the error can say why."""

KILL_RETRY_S = 1.0
"""Pause between attempts to end a container while the engine does not answer."""


class Keeper:
    """See above. `slot_owner` hears of the calls in the containers that are made here."""

    pool: Pool
    """Set by the agent, since each needs the other."""

    def __init__(
        self,
        launcher: Launcher,
        slot_owner: SlotOwner[HotContainer],
        *,
        max_log_bytes: int,
        max_spares: int,
        metrics: Metrics,
        tasks: TaskSet,
    ) -> None:
        self._launcher = launcher
        self._slot_owner = slot_owner
        self._max_log_bytes = max_log_bytes
        self._metrics = metrics
        self._tasks = tasks
        self._is_closing = False
        self._is_giving_up = False
        self._launches: set[asyncio.Task[None]] = set()
        self.spares = Spares(
            lambda function: launcher.create_ahead(function, self),
            lambda created: self._until_done(lambda: launcher.remove(created, self)),
            limit=max_spares,
        )
        self.containers: set[str] = set()
        """Engine ids of all containers that are answered for."""
        self.socket_dirs: set[str] = set()
        """Names of the socket folders of hot containers."""

    def __repr__(self) -> str:
        return f"<Keeper {len(self.containers)} containers, {self.spares!r}>"

    # --- a function changes

    async def prepare(self, function: Function, replaced_key: str) -> None:
        """Have containers of a function ready before it takes the place of another that is in use.

        As many as are in use of that one, at least one, as far as there is free memory; returns after `PREPARE_S` with
        what is ready then. Raises `ChangeNotStartedError` when none got ready.
        """
        is_hot = function.format is not FormatName.DEFAULT
        if not is_hot or function.key == replaced_key or not self.pool.is_used(replaced_key):
            return
        count = max(1, function.min_warm, self.pool.in_use(replaced_key))
        openings = [container.opened for container in self.pool.launch_ahead(function, count)]
        if not openings:
            return
        await asyncio.wait(openings, timeout=PREPARE_S)
        if not any(opening.done() for opening in openings):
            await asyncio.wait(openings, return_when=asyncio.FIRST_COMPLETED)
        errors = [opening.result() if opening.done() else None for opening in openings]
        if None not in errors and not isinstance(errors[0], EngineUnavailableError):
            raise ChangeNotStartedError(
                f"The change was not made, {function} goes on as it was: no container started with it. {errors[0]}"
            )

    def retire(self, key: str) -> None:
        """A function was replaced or removed."""
        self.pool.retire(key)
        self._tasks.spawn(self.spares.discard(key), name="discard spare")

    # --- ContainerKeeper: the pool asks

    def launch(self, pool: FunctionPool, reservation: Reservation) -> HotContainer:
        """Begin to make a hot container."""
        container = HotContainer(
            pool,
            reservation,
            self,
            self._slot_owner,
            hot_format=self._launcher.formats[pool.function.format],
            max_log_bytes=self._max_log_bytes,
        )
        launch = self._tasks.spawn(self._launch(container), name=f"launch/{pool.function}")
        self._launches.add(launch)
        launch.add_done_callback(self._launches.discard)
        return container

    def freeze(self, container: HotContainer) -> None:
        """Pause an idle container."""
        self._tasks.spawn(self._freeze(container), name=f"freeze/{container.function}")

    def thaw(self, container: HotContainer) -> None:
        """Resume a frozen container."""
        self._tasks.spawn(self._thaw(container), name=f"thaw/{container.function}")

    def dispose(self, container: HotContainer) -> None:
        """End a container."""
        self._tasks.spawn(self._dispose(container), name=f"dispose/{container.function}")

    # --- ContainerOwner: a container tells

    def container_died(self, container: HotContainer) -> None:
        """A container ended by itself, or because we said so."""
        self.pool.died(container)

    # --- ColdKeeper: a cold call asks

    def kill_soon(self, container: Container) -> None:
        """A running cold call must end now."""
        self._tasks.spawn(self._until_done(container.kill), name=f"kill/{container.id[:12]}")

    async def give_up(self, container: Container, *, is_dead: bool) -> None:
        """A cold call is done with its container: be sure it is dead, forget it when the engine has time."""
        if not is_dead:
            await self._until_done(container.kill)
        self._tasks.spawn(self._forget(container), name=f"remove/{container.id[:12]}")

    # --- a call that has no answer

    async def kill(self, container: HotContainer) -> None:
        """End a container's process; it is dead when this returns, or the engine refuses."""
        await self._until_done(lambda: self._launcher.kill(container))

    async def settle(self, container: HotContainer, error: FaasError, *, is_stopped: bool) -> tuple[FaasError, bool]:
        """Find out why a call got no answer, unless it was stopped, and be sure that its container does it no more.

        Returns the error to tell, and whether the container goes on with the other calls that it runs: then only the
        place is to be left. Until `pool.release` or `pool.stop` the place stays taken.
        """
        if not is_stopped and isinstance(error, ProtocolViolationError):
            self.pool.drain(container)
            error = await self.diagnose(container, error)
            if container.running > 1 and not container.ended.done():
                # It broke this call's answer, and takes no other call; those that it runs may still end well.
                return error, True
        await self.kill(container)
        return error, False

    async def diagnose(self, container: HotContainer, error: FaasError) -> FaasError:
        """A better error when the container turns out to have ended."""
        await asyncio.wait([container.ended], timeout=DIAGNOSIS_S)
        if not container.ended.done() or container.engine is None:
            return error
        ended = await container.engine.wait()
        if ended.is_oom:
            return OutOfMemoryError(container.function.memory_mib)
        if ended.is_killed:
            return KilledError(container.end_reason) if container.end_reason else KilledError()
        return ProtocolViolationError(f"{error.message}; the function ended with exit code {ended.exit_code}")

    # --- the end

    def close(self) -> None:
        """Break off what is being made, which no call waits for any more; remove the spares."""
        self._is_closing = True
        for launch in self._launches:
            launch.cancel()
        self._tasks.spawn(self.spares.close(), name="close spares")

    def give_up_on_engine(self) -> None:
        """Wait no more for an engine that does not answer."""
        self._is_giving_up = True

    # --- tasks

    async def _launch(self, container: HotContainer) -> None:
        error: FaasError
        try:
            await self._launcher.open(container, self, self.spares.take(container.function.key))
        except FaasError as failure:
            error = failure
        except Exception:
            logger.exception("launch_failed", extra={"function": str(container.function)})
            error = InternalError()
        except asyncio.CancelledError:
            error = ShuttingDownError()
        else:
            self._metrics.container_started(container.timings.create_s + container.timings.start_s)
            container.opened.set_result(None)
            self.pool.launched(container)
            if not self._is_closing and not container.pool.is_stale(container):
                self._tasks.spawn(self.spares.refill(container.function), name=f"spare/{container.function}")
            return
        self._metrics.container_start_failed()
        if isinstance(error, StartFailedError):
            error = await self._why_not_started(container, error)
        logger.warning("container_not_started", extra={"function": str(container.function), "error": error.message})
        container.opened.set_result(error)
        self.pool.launch_failed(container, error)

    async def _why_not_started(self, container: HotContainer, error: FaasError) -> FaasError:
        if not container.ended.done() or container.engine is None:
            return error
        ended = await container.engine.wait()
        if ended.is_oom:
            return OutOfMemoryError(container.function.memory_mib)
        return StartFailedError(f"{error.message} (exit code {ended.exit_code})")

    async def _freeze(self, container: HotContainer) -> None:
        try:
            async with container.turns:
                if container.state is ContainerState.FROZEN:  # and not wanted again already
                    await container.pause()
        except FaasError as error:
            logger.warning("container_not_paused", extra={"function": str(container.function), "error": error.message})
            self.pool.freeze_failed(container)

    async def _thaw(self, container: HotContainer) -> None:
        try:
            async with container.turns:
                await container.resume()
        except FaasError as error:
            logger.warning("container_not_resumed", extra={"function": str(container.function), "error": error.message})
            self.pool.thaw_failed(container)
        else:
            self.pool.thawed(container)

    async def _dispose(self, container: HotContainer) -> None:
        await self.kill(container)
        self.pool.disposed(container)
        await self._until_done(lambda: self._launcher.close(container))
        if container.engine is not None:
            self.containers.discard(container.engine.id)
        if container.socket_dir_or_none is not None:
            self.socket_dirs.discard(container.socket_dir_or_none.name)

    async def _forget(self, container: Container) -> None:
        await self._until_done(container.remove)
        self.containers.discard(container.id)

    async def _until_done(self, operation: Callable[[], Awaitable[None]]) -> None:
        """Repeat what must not be left undone while the engine does not answer; give up when it refuses."""
        while True:
            try:
                await operation()
            except EngineUnavailableError as error:
                logger.warning("engine_unavailable", extra={"error": error.message})
                if self._is_giving_up:
                    return
                await asyncio.sleep(KILL_RETRY_S)
            except FaasError:
                logger.exception("container_not_ended")
                return
            else:
                return
