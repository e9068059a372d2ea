"""What a container has used, and whether the kernel killed in it: from its cgroup's files, where they can be seen.

The engine's own word on out-of-memory is late or missing on a busy machine, and its cgroup is gone when it tells of
the end. So the last reading is taken at the moment the first process dies, some 20 ms before that.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faas.models import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Cgroup", "DeathWatch", "Reading", "usage_from_stats"]

CGROUP_ROOT = Path("/sys/fs/cgroup")
PROC = Path("/proc")
PARENTS = ("docker/{id}", "system.slice/docker-{id}.scope")
"""Where the engine's two cgroup drivers, cgroupfs and systemd, put a container."""

NS_PER_S = 1e9
US_PER_S = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The counters of one moment."""

    usage: Usage
    oom_kills: int | None = None
    """Processes that the kernel killed for memory; `None` when it does not say."""


@dataclass(frozen=True, slots=True)
class Cgroup:
    """The folders of one container: the same twice in version 2, one for each controller in version 1."""

    memory: Path
    cpu: Path
    is_version_2: bool

    @classmethod
    def find(cls, container_id: str, root: Path = CGROUP_ROOT) -> Cgroup | None:
        """`None` when the container does not run, or not where we can see it."""
        for parent in PARENTS:
            name = parent.format(id=container_id)
            if (root / name / "cpu.stat").exists():
                return cls(root / name, root / name, is_version_2=True)
            if (root / "memory" / name).exists():
                return cls(root / "memory" / name, root / "cpuacct" / name, is_version_2=False)
        return None

    def read(self) -> Reading | None:
        """`None` when the container is gone."""
        if self.is_version_2:
            peak_bytes = _number(self.memory / "memory.peak")  # from Linux 5.19 on
            cpu_us = _field(self.cpu / "cpu.stat", "usage_usec")
            cpu_s = None if cpu_us is None else cpu_us / US_PER_S
            oom_kills = _field(self.memory / "memory.events", "oom_kill")
        else:
            peak_bytes = _number(self.memory / "memory.max_usage_in_bytes")
            cpu_ns = _number(self.cpu / "cpuacct.usage")
            cpu_s = None if cpu_ns is None else cpu_ns / NS_PER_S
            oom_kills = _field(self.memory / "memory.oom_control", "oom_kill")
        if peak_bytes is None and cpu_s is None:
            return None
        return Reading(usage=Usage(memory_peak_bytes=peak_bytes, cpu_s=cpu_s), oom_kills=oom_kills)

    def first_process(self, proc: Path = PROC) -> int | None:
        """The process that is number 1 inside the container, by its number out here."""
        for pid in self._pids():
            if _is_first(proc / str(pid) / "status"):
                return pid
        return None

    def _pids(self) -> Iterator[int]:
        try:
            yield from map(int, (self.memory / "cgroup.procs").read_text().split())
        except OSError:
            return


class DeathWatch:
    """Calls back once with the last reading when a container's first process dies; never, when it can't be seen."""

    def __init__(self, container_id: str, on_reading: Callable[[Reading], None], root: Path = CGROUP_ROOT) -> None:
        """Begin; the container has been started."""
        self._on_reading = on_reading
        self._pidfd: int | None = None
        self._cgroup = Cgroup.find(container_id, root)
        if self._cgroup is None:
            return
        pid = self._cgroup.first_process()
        with suppress(OSError):  # dead already, or a kernel that has no such thing
            self._pidfd = os.pidfd_open(pid) if pid else None
        if self._pidfd is None:
            self.finish()
        else:
            asyncio.get_running_loop().add_reader(self._pidfd, self.finish)

    def finish(self) -> None:
        """Take the reading if it is still to be had, and let go."""
        cgroup, self._cgroup = self._cgroup, None
        self.close()
        if cgroup is not None and (reading := cgroup.read()) is not None:
            self._on_reading(reading)

    def close(self) -> None:
        """Let go without a reading."""
        self._cgroup = None
        pidfd, self._pidfd = self._pidfd, None
        if pidfd is not None:
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)


def usage_from_stats(stats: dict[str, Any]) -> Usage | None:
    """From the answer of `GET /containers/ID/stats`, whose fields are empty for a container that does not run."""
    cpu_ns = stats.get("cpu_stats", {}).get("cpu_usage", {}).get("total_usage")
    if not cpu_ns:
        return None
    # Only cgroup version 1 knows the peak; the present usage would be a guess at it.
    return Usage(memory_peak_bytes=stats.get("memory_stats", {}).get("max_usage"), cpu_s=cpu_ns / NS_PER_S)


def _is_first(status: Path) -> bool:
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return False
    # "NSpid: 4711 1": its number in each namespace, from ours to its own
    numbers = next((line.split()[1:] for line in lines if line.startswith("NSpid:")), [])
    return len(numbers) > 1 and numbers[-1] == "1"


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _field(path: Path, name: str) -> int | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.split()[0] == name), None)
