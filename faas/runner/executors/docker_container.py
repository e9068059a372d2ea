"""One container on a Docker Engine."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from faas.errors import EngineError, FaasError
from faas.runner.executors.docker_engine import is_conflict, is_gone
from faas.runner.executors.docker_stdio import AttachedStdio, attach
from faas.runner.executors.docker_usage import Cgroup, usage_from_stats

if TYPE_CHECKING:
    from collections.abc import Callable

    from faas.models import Usage
    from faas.runner.executors.base import ContainerExit, OutputReceiver, Stdio
    from faas.runner.executors.docker_engine import DockerEngine
    from faas.runner.executors.docker_exits import ExitWatcher, Watched
    from faas.runner.executors.docker_networks import Namespace, NetworkPool
    from faas.tasks import TaskSet

__all__ = ["DockerContainer"]

logger = logging.getLogger(__name__)

EXIT_GRACE_S = 1.0
"""How long the engine's event may lag behind its answer to a kill before we ask ourselves."""


class DockerContainer:
    """See `Container` and `Pausable`."""

    def __init__(
        self,
        container_id: str,
        *,
        engine: DockerEngine,
        watched: Watched,
        exits: ExitWatcher,
        networks: NetworkPool,
        namespace: Namespace | None,
        tasks: TaskSet,
        with_stdin: bool,
        timeout_s: float,
    ) -> None:
        """`namespace` is the one it was made in; without, the engine makes it one of its own when it starts."""
        self._id = container_id
        self._engine = engine
        self._watched = watched
        self._exits = exits
        self._networks = networks
        self._namespace = namespace
        self._tasks = tasks
        if namespace is not None:
            namespace.on_lost = self._network_lost
        self._with_stdin = with_stdin
        self._timeout_s = timeout_s
        self._starting: asyncio.Future[None] | None = None
        self._stdio: AttachedStdio | None = None

    def __repr__(self) -> str:
        ended = self._watched.exit.result() if self._watched.exit.done() else "not ended"
        network = "" if self._namespace is None else f" network {self._namespace.state.value}"
        return f"<DockerContainer {self._id[:12]} {ended}{network}>"

    @property
    def id(self) -> str:
        return self._id

    async def attach(self, receiver: OutputReceiver) -> Stdio:
        self._stdio = await attach(
            self._engine.socket_path, self._id, receiver, with_stdin=self._with_stdin, timeout_s=self._timeout_s
        )
        return self._stdio

    async def start(self) -> None:
        with self._networks.start_under_way():
            if self._namespace is not None:
                # Before and not after a failure: the engine closes the attached streams of what it can't start.
                await self._networks.revive(self._namespace)
            self._starting = self._engine.submit("start container", lambda client: client.start(self._id))
            # Shielded: a start can't be called back; who kills or removes waits for its end first.
            await asyncio.shield(self._starting)
        self._exits.started(self._id)

    async def wait(self) -> ContainerExit:
        return await asyncio.shield(self._watched.exit)

    async def kill(self) -> None:
        await self._until_started()
        if self._watched.exit.done():
            return
        self._watched.killed_by_us = True
        try:
            # The engine sends the signal, thaws what is paused, and answers when the process is gone.
            await self._call("kill container", lambda client: client.kill(self._id, "SIGKILL"))
        except EngineError as error:
            if is_gone(error) or is_conflict(error):
                self._watched.killed_by_us = False  # it never ran, or ended by itself
                return
            raise
        await self._until_ended()

    async def remove(self) -> None:
        await self._until_started()
        self._watched.killed_by_us = True
        await self._engine.remove_container(self._id)
        self._networks.release(self._id)
        if self._stdio is not None:
            # The engine keeps the streams of a container that was never started open for ever.
            self._stdio.close()

    async def usage(self) -> Usage | None:
        if self._watched.last is not None:
            return self._watched.last.usage
        cgroup = Cgroup.find(self._id)
        if cgroup is not None and (reading := cgroup.read()) is not None:
            return reading.usage
        try:
            stats = await self._call(
                "statistics of container", lambda client: client.stats(self._id, stream=False, one_shot=True)
            )
        except FaasError:
            return None
        return usage_from_stats(stats)

    async def pause(self) -> None:
        await self._call("pause container", lambda client: client.pause(self._id))

    async def resume(self) -> None:
        await self._call("resume container", lambda client: client.unpause(self._id))

    async def _call(self, what: str, work: Callable[[Any], Any]) -> Any:
        return await self._engine.call(f"{what} {self._id[:12]}", work)

    def _network_lost(self) -> None:
        if self._starting is not None:
            # It would live on and reach nobody; once it has ended, another takes its place.
            self._tasks.spawn(self._end_without_network(), name="network-lost")

    async def _end_without_network(self) -> None:
        try:
            await self.kill()
        except FaasError as error:
            logger.warning("container_not_killed", extra={"container": self._id[:12], "error": error.message})

    async def _until_started(self) -> None:
        if self._starting is not None and not self._starting.done():
            with suppress(FaasError):
                await asyncio.shield(self._starting)

    async def _until_ended(self) -> None:
        try:
            async with asyncio.timeout(EXIT_GRACE_S):
                await self.wait()
        except TimeoutError:
            await self._exits.check(self._id)
        if not self._watched.exit.done():
            raise EngineError(f"kill container {self._id[:12]}: the engine still shows it running after SIGKILL")
