"""Memory: what a node's process holds, and for what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench.callers import call_once_each
from tests.bench.load import Load, load
from tests.bench.report import Section, Table
from tests.bench.servers import HOT, MANY_CALLS, node

if TYPE_CHECKING:
    from tests.bench.plan import Bench
    from tests.bench.report import Cell

__all__ = ["memory"]

ROUTES = 1000
HOT_CONTAINERS = 100
CONTAINER_MEMORY_MIB = 8
CONNECTIONS = 32


def memory(bench: Bench) -> Section:
    """Resident memory of one node, step after step; each step adds to those before it."""
    image = bench.images["echo"]
    rows: list[list[Cell]] = []
    with node(bench) as ours:

        def note(step: str) -> None:
            ours.settle()
            rows.append([step, ours.memory_mib(), ours.memory_mib("VmHWM")])

        note("idle, just started")
        limits = {**HOT, "memory": CONTAINER_MEMORY_MIB}
        routes = [ours.deploy(f"/memory/{number}", image, **limits) for number in range(ROUTES)]
        note(f"with {ROUTES:,} routes")
        call_once_each(route.url for route in routes[:HOT_CONTAINERS])
        note(f"with {HOT_CONTAINERS} hot containers")
        load(ours.deploy("/load", image, **MANY_CALLS), Load(connections=CONNECTIONS, seconds=bench.plan.seconds))
        note(f"after {bench.plan.seconds} s of calls on {CONNECTIONS} connections")
    return Section(tables=[Table(columns=["a node", "MiB resident", "at most so far"], rows=rows)])
