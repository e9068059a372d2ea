"""When the node's memory is all in use: which functions wait for some, who is served first, and who must make room."""

from __future__ import annotations

from typing import TYPE_CHECKING

from faas.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from faas.runner.container import HotContainer
    from faas.runner.function_pool import FunctionPool

__all__ = ["Shortage", "choose_victims"]

BYPASS_S = 1.0
"""How long a function that is short of memory lets smaller ones pass; then freed memory is kept for it."""


class Shortage:
    """Functions that lack memory for a container, in order of arrival."""

    def __init__(self) -> None:
        self._since: dict[FunctionPool, float] = {}
        """Monotonic."""

    def __len__(self) -> int:
        return len(self._since)

    def __iter__(self) -> Iterator[FunctionPool]:
        """In order; those that change meanwhile do no harm."""
        return iter(list(self._since))

    def add(self, pool: FunctionPool) -> None:
        """A function lacks memory; it keeps its place if it was here before."""
        self._since.setdefault(pool, monotonic())

    def remove(self, pool: FunctionPool) -> bool:
        """A function lacks nothing more; whether it did."""
        return self._since.pop(pool, None) is not None

    def keeps_memory_for(self, pool: FunctionPool) -> bool:
        """Whether a function has lacked memory so long that others get none before it."""
        since = self._since.get(pool)
        return since is not None and monotonic() - since > BYPASS_S

    def must_wait(self, pool: FunctionPool) -> bool:
        """Whether another function is first."""
        head = next(iter(self._since), None)
        return head is not None and head is not pool and self.keeps_memory_for(head)


def choose_victims(pools: Iterable[FunctionPool], needy: FunctionPool, missing_mib: int) -> list[HotContainer]:
    """The idle containers of others, the longest idle first, that make room; none when all of them would not."""
    if missing_mib <= 0:
        return []
    spare = [container for pool in pools if pool is not needy for container in pool.spare()]
    victims: list[HotContainer] = []
    for container in sorted(spare, key=lambda one: one.idle_since):
        victims.append(container)
        missing_mib -= container.reservation.memory_mib
        if missing_mib <= 0:
            return victims
    return []
