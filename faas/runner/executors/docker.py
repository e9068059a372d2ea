"""The default executor: containers on a Docker Engine of this machine, through its Unix socket."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from faas.runner.executors.base import ContainerInfo, EngineInfo
from faas.runner.executors.docker_container import DockerContainer
from faas.runner.executors.docker_engine import DockerEngine
from faas.runner.executors.docker_exits import ExitWatcher
from faas.runner.executors.docker_holders import DockerHolders, can_be_held
from faas.runner.executors.docker_images import ImageResolver, RegistryLogin, parse_registry_logins
from faas.runner.executors.docker_networks import NetworkPool
from faas.runner.executors.docker_spec import BOOT_LABEL, INSTALLATION_LABEL, Hardening, container_config
from faas.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from faas.config import Settings
    from faas.models import PullPolicy
    from faas.runner.executors.base import ContainerSpec, Image
    from faas.runner.executors.docker_networks import Namespace

__all__ = ["DockerExecutor", "DockerOptions", "Hardening", "RegistryLogin"]

THREADS = 16
"""Requests to the engine at the same time; most take a few milliseconds, a start some 200."""

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
    network_pool: int = 0
    """Network namespaces to keep ready."""

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
            network_pool=settings.network_pool,
        )


class DockerExecutor:
    """See `Executor`. Made without a word to the engine, which may still be down.

    `async with` opens it: network namespaces are made ready from then on, and nobody waits for them.
    """

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
        network = options.hardening.network
        self._networks = NetworkPool(
            DockerHolders(self._engine, self._exits, network=network, labels=labels),
            target=options.network_pool if can_be_held(network) else 0,
            # In a root that is not read-only a function may be able to write to the name files of its namespace.
            is_reusable=options.hardening.is_read_only,
            tasks=self._tasks,
        )
        self._creating: set[asyncio.Future[str]] = set()
        self._discarding: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._networks.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return (
            f"<DockerExecutor {self._options.docker_host} boot={self._options.boot_id} {self._exits!r}"
            f" {self._networks!r}>"
        )

    async def resolve_image(self, reference: str, *, pull: PullPolicy) -> Image:
        return await self._images.resolve(reference, pull)

    async def create(self, spec: ContainerSpec) -> DockerContainer:
        config = container_config(
            spec,
            hardening=self._options.hardening,
            installation_id=self._options.installation_id,
            boot_id=self._options.boot_id,
        )

        namespace = self._networks.take()
        if namespace is not None:
            config["HostConfig"]["NetworkMode"] = namespace.mode

        def work(client: Any) -> str:
            return str(client.create_container_from_config(config, spec.name or None)["Id"])

        creating = self._engine.submit("create container", work)
        self._creating.add(creating)
        creating.add_done_callback(partial(self._created, namespace))
        try:
            with self._networks.start_under_way():
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
            networks=self._networks,
            namespace=namespace,
            tasks=self._tasks,
            with_stdin=spec.with_stdin,
            timeout_s=self._options.engine_timeout_s,
        )

    async def list_ours(self) -> list[ContainerInfo]:
        filters = {"label": f"{INSTALLATION_LABEL}={self._options.installation_id}"}
        listed = await self._engine.call("list containers", lambda client: client.containers(all=True, filters=filters))
        # What holds our own networks is nobody else's concern; what held another boot's is.
        return [_info_of(entry) for entry in listed if entry["Id"] not in self._networks]

    async def remove(self, container_id: str) -> None:
        await self._engine.remove_container(container_id)
        self._networks.release(container_id)

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
        await self._networks.close()
        await self._tasks.cancel()
        self._exits.close()
        self._images.close()
        self._engine.close()

    def _created(self, namespace: Namespace | None, creating: asyncio.Future[str]) -> None:
        self._creating.discard(creating)
        if namespace is None:
            return
        if creating.cancelled() or creating.exception() is not None:
            self._networks.give_back(namespace)
        else:
            self._networks.used_by(creating.result(), namespace)

    def _discard(self, created: asyncio.Future[str]) -> None:
        if created.cancelled() or created.exception() is not None:
            return
        task = self._tasks.spawn(self.remove(created.result()), name="discard")
        self._discarding.add(task)
        task.add_done_callback(self._discarding.discard)


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
