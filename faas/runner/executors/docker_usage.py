"""What a container has used: from its cgroup's files where they can be seen, else from the engine's statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from faas.models import Usage

__all__ = ["usage_from_cgroup", "usage_from_stats"]

CGROUP_ROOT = Path("/sys/fs/cgroup")
PARENTS = ("docker/{id}", "system.slice/docker-{id}.scope")
"""Where the engine's two cgroup drivers, cgroupfs and systemd, put a container."""

NS_PER_S = 1e9
US_PER_S = 1e6


def usage_from_cgroup(container_id: str, root: Path = CGROUP_ROOT) -> Usage | None:
    """Read version 2 (`memory.peak`, `cpu.stat`) or version 1; `None` when neither shows the container."""
    for parent in PARENTS:
        folder = parent.format(id=container_id)
        memory = _number(root / folder / "memory.peak")
        cpu_us = _cpu_stat(root / folder / "cpu.stat")
        if memory is not None or cpu_us is not None:
            return Usage(memory_peak_bytes=memory, cpu_s=None if cpu_us is None else cpu_us / US_PER_S)
        memory = _number(root / "memory" / folder / "memory.max_usage_in_bytes")
        cpu_ns = _number(root / "cpuacct" / folder / "cpuacct.usage")
        if memory is not None or cpu_ns is not None:
            return Usage(memory_peak_bytes=memory, cpu_s=None if cpu_ns is None else cpu_ns / NS_PER_S)
    return None


def usage_from_stats(stats: dict[str, Any]) -> Usage | None:
    """From the answer of `GET /containers/ID/stats`, whose fields are empty for a container that does not run."""
    cpu_ns = stats.get("cpu_stats", {}).get("cpu_usage", {}).get("total_usage")
    if not cpu_ns:
        return None
    # Only cgroup version 1 knows the peak; the present usage would be a guess at it.
    return Usage(memory_peak_bytes=stats.get("memory_stats", {}).get("max_usage"), cpu_s=cpu_ns / NS_PER_S)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _cpu_stat(path: Path) -> int | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("usage_usec ")), None)
