"""Variety: callers who never send the same request twice, and a hundred functions at once.

A load that repeats one request is what every cache likes best; these two show what is left without.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.bench.callers import call_once_each
from tests.bench.comparing import columns, held, row
from tests.bench.load import Load, load
from tests.bench.peers import node_and_nginx
from tests.bench.report import Section, Table
from tests.bench.rounds import in_turn
from tests.bench.servers import MANY_CALLS

if TYPE_CHECKING:
    from tests.bench.plan import Bench
    from tests.bench.report import Ratio
    from tests.bench.servers import Node

__all__ = ["variety"]

FUNCTIONS = 100
CONNECTIONS = 32

BASES = "The base of a line: nginx with the same requests; for many functions, one function; else the line itself."


def variety(bench: Bench) -> Section:
    """nginx and our node with requests that differ, our node with functions that differ."""
    image = bench.images["echo"]
    same = Load(connections=CONNECTIONS, seconds=bench.plan.seconds)
    differing = replace(same, with_trace=True)
    with node_and_nginx(bench, image) as (ours, nginx):
        one = ours.deploy("/one", image, **MANY_CALLS)
        paths = _deploy_many(ours, image)
        loads = {
            "nginx": (nginx, same),
            "faas": (one, same),
            "nginx, each request differs": (nginx, differing),
            "faas, each request differs": (one, differing),
            # By the script that chooses among the hundred, which costs wrk something.
            "faas, 1 function": (one, replace(same, paths=[urlsplit(one.url).path])),
            f"faas, {FUNCTIONS} functions": (one, replace(same, paths=paths)),
        }
        rounds = in_turn({name: partial(load, *how) for name, how in loads.items()}, bench.plan.rounds)
    bases = {
        "faas": "nginx",
        "faas, each request differs": "nginx, each request differs",
        f"faas, {FUNCTIONS} functions": "faas, 1 function",
    }
    rows = [row(name, rounds, name, bases.get(name, name)) for name in loads]
    ratios: dict[str, Ratio] = {}
    for name, base in bases.items():
        ratios |= held(f"c={CONNECTIONS}", rounds, name, base)
    return Section(tables=[Table(columns=columns("base"), rows=rows)], ratios=ratios, notes=[BASES])


def _deploy_many(ours: Node, image: str) -> list[str]:
    """A hundred functions, each with its container started; their paths."""
    functions = [ours.deploy(f"/many/{number}", image, **MANY_CALLS) for number in range(FUNCTIONS)]
    call_once_each(function.url for function in functions)
    return [urlsplit(function.url).path for function in functions]
