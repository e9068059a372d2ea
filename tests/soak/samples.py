"""What a node holds at one moment, and whether that grew."""

from __future__ import annotations

import os
import re
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.waiting import wait_until_blocking

if TYPE_CHECKING:
    from tests.support.node import NodeProcess

__all__ = ["MAX_RSS_GROWTH_MIB", "Sample", "take_quiet", "take_settled"]

MAX_RSS_GROWTH_MIB = 3.0
"""What the allocator moves about; a million calls that leak four bytes each would be more."""

MAX_THREADS_MORE = (os.cpu_count() or 1) + 4
"""Python's pool of threads for blocking work grows to this by and by, and not further."""

MAX_SOCKETS_MORE = 16
"""Connections to the engine, one for each of the executor's threads, are kept when they were once needed together."""

MAX_FDS_MORE = MAX_SOCKETS_MORE + 16
"""So are connections to the database, which have three files each. A call in a hundred that leaks one is 200."""

SETTLE_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Counts of what a node can leak."""

    rss_mib: float
    fds: int
    sockets: int
    threads: int
    tasks: int
    containers: int

    def leaks_since(self, before: Sample) -> list[str]:
        """What there is more of than before, beyond what varies by itself; empty when nothing leaked."""
        allowed = {
            "rss_mib": MAX_RSS_GROWTH_MIB,
            "threads": MAX_THREADS_MORE,
            "sockets": MAX_SOCKETS_MORE,
            "fds": MAX_FDS_MORE,
        }
        earlier = asdict(before)
        return [
            f"{name}: {earlier[name]:g} -> {value:g}"
            for name, value in asdict(self).items()
            if value > earlier[name] + allowed.get(name, 0)
        ]


def take(node: NodeProcess) -> Sample:
    """Look at a node."""
    with node.api() as api:
        tasks = re.search(r"^faas_tasks (\S+)$", api.get("/metrics").text, re.MULTILINE)
    assert tasks, "the node does not say how many tasks it has"
    process = Path(f"/proc/{node.pid}")
    files = [_target(path) for path in (process / "fd").iterdir()]
    return Sample(
        rss_mib=node.memory_mib("VmRSS"),
        fds=len(files),
        sockets=sum(file.startswith("socket:") for file in files),
        threads=sum(1 for _ in (process / "task").iterdir()),
        tasks=int(float(tasks[1])),
        containers=len(node.containers()),
    )


def take_quiet(node: NodeProcess) -> Sample:
    """Look at a node when nothing has begun or ended for a moment."""
    latest = take(node)

    def is_quiet() -> bool:
        nonlocal latest
        before, latest = latest, take(node)
        return replace(before, rss_mib=latest.rss_mib) == latest

    wait_until_blocking(is_quiet, timeout_s=SETTLE_TIMEOUT_S)
    return latest


def take_settled(node: NodeProcess, before: Sample) -> Sample:
    """Look at a node when what has just ended is gone: the least of each figure until it holds no more than before.

    A leak does not go away; a file of the database that is open for an instant does.
    """
    least = take(node)
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    while least.leaks_since(before) and time.monotonic() < deadline:
        latest = asdict(take(node))
        least = Sample(**{name: min(value, latest[name]) for name, value in asdict(least).items()})
    return least


def _target(link: Path) -> str:
    """What a file descriptor stands for; it may be closed meanwhile."""
    try:
        return os.readlink(link)
    except FileNotFoundError:
        return ""
