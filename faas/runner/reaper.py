"""Nothing is left behind: removes the containers and socket folders that no living node answers for.

At start: every container of this installation from another boot, in whatever state a kill -9 left it.
Then, again and again: containers of this boot that the node does not know any more, and folders without a container.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from faas.clock import utc_now
from faas.errors import FaasError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from pathlib import Path

    from faas.runner.executors.base import ContainerInfo

__all__ = ["Reaper"]

logger = logging.getLogger(__name__)

PARALLEL_REMOVALS = 4
"""More only makes the engine slower for the containers that are being started."""

INTERVAL_S = 60.0
GRACE_S = 120.0
"""Younger ones may just be in the making: their creator has asked the engine and not heard its answer yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaper:
    """Takes functions and not an executor: it asks for nothing else."""

    boot_id: str
    list_ours: Callable[[], Awaitable[list[ContainerInfo]]]
    """All containers with this installation's label; what it does not list is never touched."""
    remove: Callable[[str], Awaitable[None]]
    is_known: Callable[[str], bool]
    """Whether the node holds this container id."""
    sockets_dir: Path | None = None
    """Folder whose subfolders belong to one container each."""
    is_socket_dir_known: Callable[[str], bool] = lambda _name: True
    """Whether the node uses the subfolder of this name."""
    interval_s: float = INTERVAL_S
    grace_s: float = GRACE_S

    async def reap_other_boots(self) -> int:
        """Remove what other boots left, and all socket folders that the node does not use; returns how many containers.

        To be run before the first container is made. Raises nothing: what fails is tried again by `run`.
        """
        removed = await self._remove_containers(is_left=lambda info: info.boot_id != self.boot_id)
        await self._remove_socket_dirs(grace_s=0)
        return removed

    async def reap(self) -> int:
        """One round: other boots' containers and this boot's forgotten ones; returns how many containers."""
        oldest_in_the_making = utc_now() - timedelta(seconds=self.grace_s)

        def is_left(info: ContainerInfo) -> bool:
            if info.boot_id != self.boot_id:
                return True
            is_old = info.created_at is not None and info.created_at < oldest_in_the_making
            return is_old and not self.is_known(info.id)

        removed = await self._remove_containers(is_left=is_left)
        await self._remove_socket_dirs(grace_s=self.grace_s)
        return removed

    async def run(self) -> None:
        """Reap for ever."""
        while True:
            await asyncio.sleep(self.interval_s)
            await self.reap()

    async def _remove_containers(self, *, is_left: Callable[[ContainerInfo], bool]) -> int:
        try:
            left = [info for info in await self.list_ours() if is_left(info)]
        except FaasError as error:
            logger.warning("reap_failed", extra={"error": error.message})
            return 0
        slots = asyncio.Semaphore(PARALLEL_REMOVALS)

        async def remove(info: ContainerInfo) -> bool:
            async with slots:
                # Asked again: it may have been taken up while the others were removed.
                return is_left(info) and await self._remove_one(info)

        removed = sum(await asyncio.gather(*(remove(info) for info in left)))
        if removed:
            logger.info("containers_reaped", extra={"removed": removed, "found": len(left)})
        return removed

    async def _remove_one(self, info: ContainerInfo) -> bool:
        try:
            await self.remove(info.id)
        except FaasError as error:
            logger.warning(
                "container_reap_failed",
                extra={"container": info.id[:12], "state": info.state, "boot": info.boot_id, "error": error.message},
            )
            return False
        return True

    async def _remove_socket_dirs(self, *, grace_s: float) -> None:
        if self.sockets_dir is None:
            return
        youngest = utc_now().timestamp() - grace_s
        stale = await asyncio.to_thread(_subfolders_until, self.sockets_dir, youngest)
        await asyncio.to_thread(_remove_folders, [path for path in stale if not self.is_socket_dir_known(path.name)])


def _subfolders_until(folder: Path, modified_at: float) -> list[Path]:
    found = []
    try:
        for path in folder.iterdir():
            status = path.lstat()
            if path.is_dir() and not path.is_symlink() and status.st_mtime <= modified_at:
                found.append(path)
    except FileNotFoundError:
        pass  # the folder does not exist yet, or one of its own was removed meanwhile: the next round sees the rest
    return found


def _remove_folders(paths: Iterable[Path]) -> None:
    for path in paths:
        try:
            shutil.rmtree(path)
        except OSError as error:
            logger.warning("socket_folder_reap_failed", extra={"path": str(path), "error": str(error)})
