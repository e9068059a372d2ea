"""Makes containers, and unmakes them: image -> socket folder -> create -> attach -> start -> ready."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from faas.clock import monotonic
from faas.errors import (
    EngineError,
    FaasError,
    ImageGoneError,
    ImageNotAvailableError,
    StartFailedError,
    StartTimeoutError,
)
from faas.ids import new_id
from faas.models import FormatName, PullPolicy
from faas.runner.executors.base import ContainerSpec, Limits
from faas.runner.formats import default
from faas.runner.formats.base import SOCKET_DIR_IN_CONTAINER
from faas.runner.invocation import LaunchTimings
from faas.runner.spares import Created
from faas.runner.starts import Starts

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from faas.runner.container import HotContainer
    from faas.runner.executors.base import Container, Executor, Image, OutputReceiver, Stdio
    from faas.runner.formats.base import HotFormat
    from faas.runner.functions import Function
    from faas.runner.invocation import Invocation
    from faas.runner.starts import Place

__all__ = ["Launcher", "LauncherOptions"]

logger = logging.getLogger(__name__)

_MAX_IMAGES = 4096
"""Images that are remembered, so that a start asks the engine nothing about them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LauncherOptions:
    """What every container of this node has in common."""

    socket_root: Path
    """Folder in which each container that needs one gets a folder for its socket."""
    start_timeout_s: float
    max_parallel_starts: int
    pids: int
    open_files: int
    tmpfs_mib: int


class Holder(Protocol):
    """Who answers for what was made, so that the reaper leaves it alone."""

    @property
    def containers(self) -> set[str]:
        """Engine ids."""

    @property
    def socket_dirs(self) -> set[str]:
        """Names of socket folders."""


class Launcher:
    """Makes the containers of one node."""

    def __init__(self, executor: Executor, formats: Mapping[FormatName, HotFormat], options: LauncherOptions) -> None:
        self._executor = executor
        self._options = options
        self._images: dict[tuple[str, str], Image] = {}
        # The engine serialises much of a start anyway; more at once only makes each slower.
        self._starts = Starts(options.max_parallel_starts)
        self.formats = formats

    async def open(self, container: HotContainer, holder: Holder, spare: Created | None) -> None:
        """Bring a hot container to the point where it can run a call, from what was created ahead if there is that.

        On `FaasError` or cancellation the container is left for `close`, whatever was made of it.
        """
        if spare is not None and await self._start_spare(container, holder, spare):
            return
        function = container.function
        image = await self._image(function, container.timings)
        async with self._starts.place(function.key) as place:
            created = await self._create_hot(function, image, holder, container.timings)
            await self._start(container, created, place)

    async def create_ahead(self, function: Function, holder: Holder) -> Created:
        """Create a container for a later `open`."""
        timings = LaunchTimings()
        image = await self._image(function, timings)
        async with self._starts.place(function.key):
            return await self._create_hot(function, image, holder, timings)

    async def remove(self, created: Created, holder: Holder) -> None:
        """Remove a container that serves nobody, and its folder."""
        try:
            await created.engine.remove()
        finally:
            holder.containers.discard(created.engine.id)  # what the engine would not remove is the reaper's
        if created.socket_dir is not None:
            await asyncio.to_thread(shutil.rmtree, created.socket_dir, ignore_errors=True)
            holder.socket_dirs.discard(created.socket_dir.name)

    async def _create_hot(self, function: Function, image: Image, holder: Holder, timings: LaunchTimings) -> Created:
        hot_format = self.formats[function.format]
        folder = self._make_socket_dir(holder) if hot_format.needs_socket_dir else None
        spec = self._spec(
            function,
            image,
            env=hot_format.container_env(function),
            with_stdin=hot_format.needs_stdin,
            mounts={folder: SOCKET_DIR_IN_CONTAINER} if folder is not None else {},
        )
        try:
            engine = await self._create(spec, function, timings)
        except BaseException:
            if folder is not None:
                folder.rmdir()
                holder.socket_dirs.discard(folder.name)
            raise
        holder.containers.add(engine.id)
        return Created(engine, folder)

    async def _start_spare(self, container: HotContainer, holder: Holder, spare: Created) -> bool:
        """Start what was created ahead; False when the engine has it no more, or does not let it start."""
        async with self._starts.place(container.function.key) as place:
            try:
                await self._start(container, spare, place)
            except EngineError as error:
                # Somebody may have removed it since; what is made now shows whether it is that.
                logger.info("spare_not_started", extra={"error": error.message})
                await self.remove(spare, holder)
                await container.start_over()
                return False
            return True

    async def _start(self, container: HotContainer, created: Created, place: Place) -> None:
        place.leave_soon()
        container.engine, container.socket_dir_or_none = created.engine, created.socket_dir
        container.stdio_or_none = await created.engine.attach(container)
        began = monotonic()
        try:
            async with asyncio.timeout(self._options.start_timeout_s):
                channel = await container.format.open(container)
        except TimeoutError as error:
            raise StartTimeoutError(
                "Container initialization timed out: it was not ready within"
                f" {self._options.start_timeout_s:g} s (start_timeout_s)"
            ) from error
        container.timings.start_s = monotonic() - began
        slot = container.take_slot()
        slot.opened(channel)
        container.free_slot(slot)
        if container.ended.done():
            # Nobody could run a call on it, so that its call would wait while one after the other is made and ends.
            raise StartFailedError("Container failed to initialize: it ended as soon as it had started; see its log")

    async def kill(self, container: HotContainer) -> None:
        """End a hot container's process; it is dead when this returns."""
        container.close_channels()
        if container.engine is not None:
            await container.engine.kill()

    async def close(self, container: HotContainer) -> None:
        """Remove a dead container and what belonged to it."""
        if container.stdio_or_none is not None:
            container.stdio_or_none.close()
        if container.engine is not None:
            await container.engine.remove()
        if container.socket_dir_or_none is not None:
            await asyncio.to_thread(shutil.rmtree, container.socket_dir_or_none, ignore_errors=True)

    async def open_cold(
        self, invocation: Invocation, timings: LaunchTimings, receiver: OutputReceiver
    ) -> tuple[Container, Stdio]:
        """A started container for one call, attached; removed again when it can't be started."""
        function = invocation.function
        image = await self._image(function, timings)
        # IronFunctions' name; the time tells it from that of an earlier attempt, which may still be there.
        spec = self._spec(
            function,
            image,
            env=default.container_env(invocation),
            with_stdin=True,
            name=f"task-{time.time_ns()}-{invocation.id}",
        )
        async with self._starts.place(function.key):
            container = await self._create(spec, function, timings)
            try:
                stdio = await container.attach(receiver)
                if invocation.stop is not None:
                    raise invocation.stop  # noqa: TRY301 - removed below, as after any failure
                began = monotonic()
                await container.start()
            except BaseException:
                with contextlib.suppress(FaasError):
                    await asyncio.shield(container.remove())
                raise
            timings.start_s = monotonic() - began
        return container, stdio

    # --- steps

    async def _image(self, function: Function, timings: LaunchTimings) -> Image:
        """The image that the route was created with; fetched by its name when this engine has it no more."""
        key = (function.image, function.image_digest)
        image = self._images.get(key)
        if image is not None:
            return image
        began = monotonic()
        try:
            image = await self._find_image(function)
        except ImageNotAvailableError as error:
            raise ImageGoneError(f"Failed to pull image '{function.image}': {error.message}") from error
        finally:
            timings.pull_s = monotonic() - began
        if len(self._images) >= _MAX_IMAGES:
            self._images.clear()
        self._images[key] = image
        return image

    async def _find_image(self, function: Function) -> Image:
        if function.image_digest:
            with contextlib.suppress(ImageNotAvailableError):
                return await self._executor.resolve_image(function.image_digest, pull=PullPolicy.NEVER)
        return await self._executor.resolve_image(function.image, pull=function.pull)

    async def _create(self, spec: ContainerSpec, function: Function, timings: LaunchTimings) -> Container:
        began = monotonic()
        try:
            container = await self._executor.create(spec)
        except ImageNotAvailableError as error:
            # It was removed from the engine behind our back: the next call looks for it again.
            self._images.pop((function.image, function.image_digest), None)
            raise ImageGoneError(f"Failed to pull image '{function.image}': {error.message}") from error
        timings.create_s = monotonic() - began
        return container

    def _spec(
        self,
        function: Function,
        image: Image,
        *,
        env: Mapping[str, str],
        with_stdin: bool,
        mounts: Mapping[Path, str] | None = None,
        name: str = "",
    ) -> ContainerSpec:
        return ContainerSpec(
            image=image,
            limits=Limits(
                memory_mib=function.memory_mib,
                cpus=function.cpus,
                pids=self._options.pids,
                open_files=self._options.open_files,
                tmpfs_mib=self._options.tmpfs_mib,
            ),
            env=env,
            labels={"LogName": function.app_name, "faas.app": function.app_name, "faas.route": function.path},
            name=name or f"hot-{new_id()}",
            with_stdin=with_stdin,
            mounts=mounts or {},
        )

    def _make_socket_dir(self, holder: Holder) -> Path:
        folder = self._options.socket_root / new_id()
        holder.socket_dirs.add(folder.name)
        folder.mkdir()
        # The container's user, whoever that is, makes its socket here; the root folder above is ours alone.
        folder.chmod(0o777)
        return folder
