"""The contract between the runner and what runs containers.

A container's life, as the executor sees it:

    create -> attach -> start -> (pause <-> resume)* -> kill or its own end -> remove

Foreign exceptions never leave an executor: `EngineUnavailableError` (no answer, worth another try), `EngineError`
(the engine refused, in its own words), `ImageNotAvailableError`, `ImageUnusableError`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from faas.models import PullPolicy, Usage

__all__ = [
    "Container",
    "ContainerExit",
    "ContainerInfo",
    "ContainerSpec",
    "EngineInfo",
    "Executor",
    "Image",
    "Limits",
    "OutputReceiver",
    "Pausable",
    "Stdio",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image that is present on the engine."""

    reference: str
    """As the route names it."""
    digest: str
    """The engine's content id, `sha256:...`; what a container is created from, so that a moved tag can't swap it."""
    user: str = ""
    """The image's own user, empty when it names none (which means root)."""
    size_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one container may use; 0 is no limit, except for memory, which always has one."""

    memory_mib: int
    cpus: float = 0.0
    pids: int = 0
    open_files: int = 0
    tmpfs_mib: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """Everything that decides how a container is made."""

    image: Image
    limits: Limits
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    """On top of the installation's and the boot's label, which the executor sets itself."""
    name: str = ""
    with_stdin: bool = False
    mounts: Mapping[Path, str] = field(default_factory=dict)
    """Folder on the host -> path in the container, writable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerExit:
    """How a container ended."""

    exit_code: int
    is_oom: bool = False

    @property
    def is_killed(self) -> bool:
        """Whether SIGKILL ended it, which nothing catches: 128 + 9, as shells and engines count."""
        return self.exit_code == 137


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerInfo:
    """A container of this installation, as the reaper sees it."""

    id: str
    name: str
    boot_id: str
    state: str
    """The engine's word: created, running, paused, exited, dead ..."""
    created_at: datetime | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """What `faas doctor` and the node's log say about the engine."""

    name: str
    version: str
    api_version: str
    cgroup_version: str
    memory_mib: int
    cpus: int
    details: Mapping[str, str] = field(default_factory=dict)


class OutputReceiver(Protocol):
    """Gets a container's output as it comes; the calls come from the event loop and must not block."""

    def stdout_received(self, data: bytes) -> None:
        """Bytes of standard output, as they came."""

    def stderr_received(self, data: bytes) -> None:
        """Bytes of standard error, as they came."""

    def output_ended(self) -> None:
        """Nothing more will come: the container has ended, the engine hung up, or `Stdio.close` was called.

        Called exactly once, and only if `attach` succeeded.
        """


class Stdio(Protocol):
    """A container's standard input, and the flow control of its output.

    After `output_ended` every method does nothing: a function may end without reading its input.
    """

    def write(self, data: bytes) -> None:
        """Give bytes to standard input; buffered without bound, so `drain` after much."""

    def write_eof(self) -> None:
        """Close standard input; output goes on."""

    async def drain(self) -> None:
        """Wait until standard input's buffer is small again."""

    def pause_reading(self) -> None:
        """Stop the output callbacks (back-pressure); some buffered bytes may still come."""

    def resume_reading(self) -> None:
        """Go on with the output callbacks."""

    def close(self) -> None:
        """Let go of the streams; the container stays as it is."""


@runtime_checkable
class Container(Protocol):
    """One container. Every method but `attach` and `start` may be called at any time, also twice."""

    @property
    def id(self) -> str:
        """The engine's id."""

    async def attach(self, receiver: OutputReceiver) -> Stdio:
        """Connect to the streams; before `start`, so that no byte is missed."""

    async def start(self) -> None:
        """Start its process. A cancelled start goes on in the engine; `kill` and `remove` wait for its end first."""

    async def wait(self) -> ContainerExit:
        """Wait until it has ended; a container that vanished, or was removed unstarted, ends with 137."""

    async def kill(self) -> None:
        """End it at once, also when it is paused; returns when its processes are dead. Nothing when it is gone."""

    async def remove(self) -> None:
        """Kill it if it runs and forget it, with its anonymous volumes. Nothing when it is gone."""

    async def usage(self) -> Usage | None:
        """Peak memory and CPU time, so far or up to its end; `None` when the engine can't tell."""


@runtime_checkable
class Pausable(Protocol):
    """A container that can be frozen; an executor without this power offers containers without it."""

    async def pause(self) -> None:
        """Freeze all its processes."""

    async def resume(self) -> None:
        """Thaw them."""


class Executor(Protocol):
    """An engine that runs containers."""

    async def resolve_image(self, reference: str, *, pull: PullPolicy) -> Image:
        """Find, and pull where the policy says so, an image. One pull however many ask at once.

        Raises `ImageNotAvailableError` with the engine's own words, `ImageUnusableError`.
        """

    async def create(self, spec: ContainerSpec) -> Container:
        """Make a container, not yet running. When this is cancelled, what the engine makes all the same is removed."""

    async def list_ours(self) -> list[ContainerInfo]:
        """All containers that carry this installation's label, in any state and from any boot."""

    async def remove(self, container_id: str) -> None:
        """Kill and remove one by its id, also when it is paused or was never started. Nothing when it is gone."""

    async def info(self) -> EngineInfo:
        """Ask the engine who it is; raises `EngineUnavailableError`."""

    async def close(self) -> None:
        """Let go of connections and threads; containers stay."""
