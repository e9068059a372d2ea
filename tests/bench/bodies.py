"""Bodies: what size costs, there and back."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tests.bench.comparing import columns, held, row
from tests.bench.load import Load, load
from tests.bench.peers import node_and_nginx
from tests.bench.report import Section, Table
from tests.bench.rounds import in_turn
from tests.bench.servers import MANY_CALLS

if TYPE_CHECKING:
    from tests.bench.plan import Bench
    from tests.bench.report import Cell, Ratio

__all__ = ["bodies"]

SIZES = {"1 KiB": 1 << 10, "64 KiB": 64 << 10, "1 MiB": 1 << 20}
CONNECTIONS = 8

MEMORY_MIB = 64
"""echo holds each body in memory until it is answered, and more while it grows."""


def bodies(bench: Bench) -> Section:
    """POST of each size to an echo function."""
    image = bench.images["echo"]
    rows: list[list[Cell]] = []
    ratios: dict[str, Ratio] = {}
    with node_and_nginx(bench, image, memory=MEMORY_MIB) as (ours, nginx):
        servers = {"nginx": nginx, "faas": ours.deploy("/bodies", image, **{**MANY_CALLS, "memory": MEMORY_MIB})}
        for size, size_bytes in SIZES.items():
            what = Load(connections=CONNECTIONS, seconds=bench.plan.seconds, size_bytes=size_bytes)
            rounds = in_turn({name: partial(load, one, what) for name, one in servers.items()}, bench.plan.rounds)
            rows += [row(f"{size} {name}", rounds, name, "nginx") for name in servers]
            ratios |= held(size, rounds, "faas", "nginx")
    return Section(tables=[Table(columns=columns("nginx"), rows=rows)], ratios=ratios)
