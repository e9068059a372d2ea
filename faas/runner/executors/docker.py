"""The default executor: containers on a Docker Engine of this machine, through its Unix socket."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from faas.clock import monotonic
from faas.errors import EngineError, FaasError
from faas.runner.executors.base import ContainerInfo, EngineInfo
from faas.runner.executors.docker_engine import DockerEngine, is_conflict, is_gone
from faas.runner.executors.docker_exits import ExitWatcher, Watched
from faas.runner.executors.docker_images import ImageResolver, RegistryLogin, parse_registry_logins
from faas.runner.executors.docker_spec import BOOT_LABEL, INSTALLATION_LABEL, Hardening, container_config
from faas.runner.executors.docker_stdio import AttachedStdio, attach
from faas.runner.executors.docker_usage import Cgroup, usage_from_stats
from faas.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from faas.config import Settings
    from faas.models import PullPolicy, Usage
    from faas.runner.executors.base import ContainerExit, ContainerSpec, Image, OutputReceiver, Stdio

__all__ = ["DockerContainer", "DockerExecutor", "DockerOptions", "Hardening", "RegistryLogin"]

logger = logging.getLogger(__name__)

THREADS = 16
"""Requests to the engine at the same time; most take a few milliseconds, a start some 200."""

EXIT_GRACE_S = 1.0
"""How long the engine's event may lag behind its answer to a kill before we ask ourselves."""

GONE_POLL_INTERVAL_S = 0.05
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerOptions:
    """What the executor needs to know."""

    installation_id: str
    boot_id: str
    docker_host: str = "unix:///var/run/docker.sock"
    hardening: Hardening = field(default_factory=Hardening)
    registry_logins: tuple[RegistryLogin, ...] = ()
    engine_timeout_s: float = 60.0
    pull_timeout_s: float = 600.0

    @classmethod
    def from_settings(cls, settings: Settings, *, installation_id: str, boot_id: str) -> DockerOptions:
        """Raises `ValidationError` when `docker_auth` is not what it must be."""
        return cls(
            installation_id=installation_id,
            boot_id=boot_id,
            docker_host=settings.docker_host,
            hardening=Hardening(
                user="" if settings.container_user == "image" else settings.container_user,
                is_read_only=settings.container_read_only,
                drops_capabilities=settings.container_drop_capabilities,
                forbids_new_privileges=settings.container_no_new_privileges,
                network=settings.container_network,
            ),
            registry_logins=parse_registry_logins(settings.docker_auth.get_secret_value()),
            engine_timeout_s=settings.engine_timeout_s,
            pull_timeout_s=settings.pull_timeout_s,
        )


class DockerExecutor:
    """See `Executor`. Made without a word to the engine, which may still be down; opened by `async with`."""

    def __init__(
        self,
        options: DockerOptions,
        *,
        on_failure: Callable[[BaseException], None] | None = None,
        on_pulled: Callable[[bool], None] = lambda _is_ok: None,
    ) -> None:
        """`on_failure` hears of a defect that ended the watch over the containers, `on_pulled` of every pull's end."""
        self._options = options
        self._engine = DockerEngine(
            docker_host=options.docker_host, timeout_s=options.engine_timeout_s, threads=THREADS
        )
        self._tasks = TaskSet("docker", on_failure=on_failure)
        labels = {INSTALLATION_LABEL: options.installation_id, BOOT_LABEL: options.boot_id}
        self._exits = ExitWatcher(self._engine, labels=labels, tasks=self._tasks)
        self._images = ImageResolver(
            self._engine,
            logins=options.registry_logins,
            pull_timeout_s=options.pull_timeout_s,
            tasks=self._tasks,
            on_pulled=on_pulled,
        )
        self._creating: set[asyncio.Future[str]] = set()
        self._discarding: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<DockerExecutor {self._options.docker_host} boot={self._options.boot_id} {self._exits!r}>"

    async def resolve_image(self, reference: str, *, pull: PullPolicy) -> Image:
        return await self._images.resolve(reference, pull)

    async def create(self, spec: ContainerSpec) -> DockerContainer:
        config = container_config(
            spec,
            hardening=self._options.hardening,
            installation_id=self._options.installation_id,
            boot_id=self._options.boot_id,
        )

        def work(client: Any) -> str:
            return str(client.create_container_from_config(config, spec.name or None)["Id"])

        creating = self._engine.submit("create container", work)
        self._creating.add(creating)
        creating.add_done_callback(self._creating.discard)
        try:
            container_id = await asyncio.shield(creating)
        except asyncio.CancelledError:
            # The engine makes it all the same; nobody else will ever know its id.
            if creating.done():
                self._discard(creating)
            else:
                creating.add_done_callback(self._discard)
            raise
        return DockerContainer(
            container_id,
            engine=self._engine,
            watched=self._exits.watch(container_id),
            exits=self._exits,
            with_stdin=spec.with_stdin,
            timeout_s=self._options.engine_timeout_s,
        )

    async def list_ours(self) -> list[ContainerInfo]:
        filters = {"label": f"{INSTALLATION_LABEL}={self._options.installation_id}"}
        listed = await self._engine.call("list containers", lambda client: client.containers(all=True, filters=filters))
        return [_info_of(entry) for entry in listed]

    async def remove(self, container_id: str) -> None:
        await _remove(self._engine, container_id, self._options.engine_timeout_s)

    async def info(self) -> EngineInfo:
        version = await self._engine.call("version of the engine", lambda client: client.version(api_version=False))
        about = await self._engine.call("ask the engine about itself", lambda client: client.info())
        return EngineInfo(
            name="Docker Engine",
            version=version["Version"],
            api_version=version["ApiVersion"],
            cgroup_version=str(about.get("CgroupVersion") or "1"),
            memory_mib=about["MemTotal"] // MIB,
            cpus=about["NCPU"],
            details={
                "architecture": version["Arch"],
                "cgroup_driver": str(about.get("CgroupDriver", "")),
                "kernel": str(version.get("KernelVersion", "")),
                "os": str(about.get("OperatingSystem", "")),
                "runtime": str(about.get("DefaultRuntime", "")),
                "security": " ".join(about.get("SecurityOptions") or ()),
                "storage_driver": str(about.get("Driver", "")),
                "warnings": "; ".join(about.get("Warnings") or ()),
            },
        )

    async def close(self) -> None:
        # What is being made for callers that are gone is removed before the threads that can do it are.
        while self._creating or self._discarding:
            under_way: list[asyncio.Future[Any]] = [*self._creating, *self._discarding]
            await asyncio.wait(under_way)
        await self._tasks.cancel()
        self._exits.close()
        self._images.close()
        self._engine.close()

    def _discard(self, created: asyncio.Future[str]) -> None:
        if created.cancelled() or created.exception() is not None:
            return
        task = self._tasks.spawn(self.remove(created.result()), name="discard")
        self._discarding.add(task)
        task.add_done_callback(self._discarding.discard)


class DockerContainer:
    """See `Container` and `Pausable`."""

    def __init__(
        self,
        container_id: str,
        *,
        engine: DockerEngine,
        watched: Watched,
        exits: ExitWatcher,
        with_stdin: bool,
        timeout_s: float,
    ) -> None:
        self._id = container_id
        self._engine = engine
        self._watched = watched
        self._exits = exits
        self._with_stdin = with_stdin
        self._timeout_s = timeout_s
        self._starting: asyncio.Future[None] | None = None
        self._stdio: AttachedStdio | None = None

    def __repr__(self) -> str:
        ended = self._watched.exit.result() if self._watched.exit.done() else "not ended"
        return f"<DockerContainer {self._id[:12]} {ended}>"

    @property
    def id(self) -> str:
        return self._id

    async def attach(self, receiver: OutputReceiver) -> Stdio:
        self._stdio = await attach(
            self._engine.socket_path, self._id, receiver, with_stdin=self._with_stdin, timeout_s=self._timeout_s
        )
        return self._stdio

    async def start(self) -> None:
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
        await _remove(self._engine, self._id, self._timeout_s)
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


async def _remove(engine: DockerEngine, container_id: str, timeout_s: float) -> None:
    """Remove by force, with anonymous volumes; returns when it is gone, whoever removed it."""
    what = f"remove container {container_id[:12]}"
    deadline = monotonic() + timeout_s
    while True:
        try:
            await engine.call(what, lambda client: client.remove_container(container_id, v=True, force=True))
        except EngineError as error:
            if is_gone(error):
                return
            # Somebody else's removal is under way: "gone" is what the next round must hear.
            if not is_conflict(error) or monotonic() > deadline:
                raise
            await asyncio.sleep(GONE_POLL_INTERVAL_S)
        else:
            return


def _info_of(entry: dict[str, Any]) -> ContainerInfo:
    labels = entry.get("Labels") or {}
    return ContainerInfo(
        id=entry["Id"],
        name=next((name.lstrip("/") for name in entry.get("Names") or ()), ""),
        boot_id=labels.get(BOOT_LABEL, ""),
        state=entry["State"],
        created_at=datetime.fromtimestamp(entry["Created"], UTC),
        labels=labels,
    )
