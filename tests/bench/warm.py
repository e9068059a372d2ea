"""Warm calls: what a call costs whose container is ready, beside nginx in front of the same function."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING

from faas.config import Settings
from tests.bench.comparing import columns, held, row
from tests.bench.load import Load, load
from tests.bench.peers import fn, node_and_nginx
from tests.bench.report import Section, Table
from tests.bench.rounds import in_turn
from tests.bench.servers import HOT, MANY_CALLS, node

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.plan import Bench
    from tests.bench.report import Cell, Ratio
    from tests.bench.servers import Served

__all__ = ["warm"]

NGINX = "nginx"
OURS = "faas"


def warm(bench: Bench) -> Section:
    """POST of 11 bytes at each number of connections, all servers in turn."""
    rows: list[list[Cell]] = []
    ratios: dict[str, Ratio] = {}
    with _servers(bench) as (servers, notes):
        for connections in bench.plan.connections:
            what = Load(connections=connections, seconds=bench.plan.seconds)
            ways = {name: partial(load, served, what) for name, served in servers.items()}
            rounds = in_turn(ways, bench.plan.rounds)
            rows += [row(f"c={connections} {name}", rounds, name, NGINX) for name in servers]
            ratios |= held(f"c={connections}", rounds, OURS, NGINX)
    return Section(tables=[Table(columns=columns(NGINX), rows=rows)], ratios=ratios, notes=notes)


@contextlib.contextmanager
def _servers(bench: Bench) -> Iterator[tuple[dict[str, Served], list[str]]]:
    """nginx, our node, and where asked for our node in other set-ups and Fn; notes say what was left out."""
    image = bench.images["echo"]
    with contextlib.ExitStack() as stack:
        ours, nginx = stack.enter_context(node_and_nginx(bench, image))
        servers = {NGINX: nginx, OURS: ours.deploy("/many", image, **MANY_CALLS)}
        notes = []
        if bench.plan.with_variants:
            servers["faas, one call a container"] = ours.deploy("/one", image, **{**HOT, "concurrency": 1})
            if "processes" in Settings.model_fields:
                two = stack.enter_context(node(bench, processes=2))
                servers["faas, two processes"] = two.deploy("/many", image, **MANY_CALLS)
            if bench.plan.fn_server:
                servers["Fn"] = stack.enter_context(fn(bench, image))
            else:
                notes.append("Fn was not measured: FN_SERVER does not say where its server is.")
        yield servers, notes
