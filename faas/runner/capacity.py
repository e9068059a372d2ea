"""How much memory functions may have on this node, and the ledger of who has it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Capacity", "Reservation", "node_memory_mib"]

MIB = 1024 * 1024
KIB_PER_MIB = 1024

HEADROOM_SHARE = 10
"""A tenth is left to this process and to the engine ..."""
MIN_HEADROOM_MIB = 256
MAX_HEADROOM_MIB = 5 * 1024
"""... but never less than it needs, and not more than it could use: Fn's numbers."""


class Reservation:
    """Memory that one container may use; `release` gives it back, the second time does nothing."""

    __slots__ = ("_capacity", "memory_mib")

    def __init__(self, capacity: Capacity, memory_mib: int) -> None:
        self._capacity: Capacity | None = capacity
        self.memory_mib = memory_mib

    def __repr__(self) -> str:
        return f"<Reservation {self.memory_mib} MiB{'' if self._capacity else ' released'}>"

    def release(self) -> None:
        capacity, self._capacity = self._capacity, None
        if capacity is not None:
            capacity._give_back(self.memory_mib)


class Capacity:
    """A ledger, not a lock: whoever gets nothing waits by its own means, and `on_freed` tells when to try again."""

    def __init__(self, total_mib: int, *, on_freed: Callable[[], None] | None = None) -> None:
        self.total_mib = total_mib
        self.used_mib = 0
        self.on_freed = on_freed
        """Called after each release, from within it."""

    def __repr__(self) -> str:
        return f"<Capacity {self.used_mib} of {self.total_mib} MiB used>"

    @property
    def free_mib(self) -> int:
        """What can be reserved now."""
        return self.total_mib - self.used_mib

    def can_ever_fit(self, memory_mib: int) -> bool:
        """Whether so much could be had if nothing else ran."""
        return memory_mib <= self.total_mib

    def try_reserve(self, memory_mib: int) -> Reservation | None:
        """Take so much, or nothing at all when it is not free."""
        if memory_mib <= 0:
            raise ValueError(f"a container needs memory, not {memory_mib} MiB")
        if memory_mib > self.free_mib:
            return None
        self.used_mib += memory_mib
        return Reservation(self, memory_mib)

    def _give_back(self, memory_mib: int) -> None:
        self.used_mib -= memory_mib
        if self.on_freed is not None:
            self.on_freed()


def node_memory_mib(configured: int, *, proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Memory for functions, in MiB: what is configured, else what this process could get, less some headroom.

    That is the least of MemAvailable and the limits of our own cgroup and all its ancestors, in version 2
    (`memory.max`) and version 1 (`memory.limit_in_bytes`).
    """
    if configured > 0:
        return configured
    available = min([_available_mib(proc), *_limits_mib(proc, cgroup)])
    headroom = min(max(available // HEADROOM_SHARE, MIN_HEADROOM_MIB), MAX_HEADROOM_MIB)
    return max(available - headroom, 0)


def _available_mib(proc: Path) -> int:
    fields = dict(line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines() if ":" in line)
    # Kernels before 3.14 have no MemAvailable.
    return int((fields.get("MemAvailable") or fields["MemFree"]).split()[0]) // KIB_PER_MIB


def _limits_mib(proc: Path, cgroup: Path) -> Iterator[int]:
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        # "4:memory:/docker/abc" in version 1, "0::/docker/abc" in version 2
        _, controllers, path = line.split(":", 2)
        if not controllers:
            # Beside version 1 controllers, version 2 is mounted one folder deeper.
            yield from _limits_from(cgroup, path, "memory.max")
            yield from _limits_from(cgroup / "unified", path, "memory.max")
        elif "memory" in controllers.split(","):
            yield from _limits_from(cgroup / "memory", path, "memory.limit_in_bytes")


def _limits_from(mount: Path, path: str, file_name: str) -> Iterator[int]:
    """Limits of a cgroup and its ancestors, up to the mount.

    Inside a container the path may be the host's, of which only the mount itself is visible here: folders that do
    not exist are passed over.
    """
    relative = Path(path.lstrip("/"))
    for folder in (relative, *relative.parents):
        try:
            text = (mount / folder / file_name).read_text().strip()
        except OSError:
            continue
        # Version 2 says "max", version 1 a number near 2**63 that no machine has.
        if text.isdigit():
            yield int(text) // MIB
