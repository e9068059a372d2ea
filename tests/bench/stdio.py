"""Format `http`: calls over a container's standard input and output, how fast, and whether byte for byte."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tests.bench.callers import call_exactly
from tests.bench.comparing import columns, held, row
from tests.bench.load import Load, load
from tests.bench.report import Section, Table
from tests.bench.rounds import in_turn
from tests.bench.servers import HOT, node

if TYPE_CHECKING:
    from tests.bench.plan import Bench

__all__ = ["stdio"]

CONNECTIONS = 8
STREAM, STDIO = "http-stream", "http"


def stdio(bench: Bench) -> Section:
    """Eight containers of each format, a call at a time in each; then the comparison of many answers."""
    limits = {**HOT, "max_concurrency": CONNECTIONS}
    what = Load(connections=CONNECTIONS, seconds=bench.plan.seconds)
    with node(bench) as ours:
        servers = {
            STREAM: ours.deploy("/stream", bench.images["echo"], **limits),
            STDIO: ours.deploy("/stdio", bench.images["stdio-echo"], **{**limits, "format": "http"}),
        }
        rounds = in_turn({name: partial(load, one, what) for name, one in servers.items()}, bench.plan.rounds)
        exact = call_exactly(servers[STDIO].url, calls=bench.plan.exact_calls, connections=CONNECTIONS)
    if exact.wrong:
        raise RuntimeError(f"{exact.wrong} of {exact.calls} answers over standard output were not what was sent")
    speed = Table(
        columns=columns(STREAM), rows=[row(f"c={CONNECTIONS} {name}", rounds, name, STREAM) for name in servers]
    )
    exactness = Table(
        columns=["calls over standard input and output", "answers that differed", "req/s of the comparing client"],
        rows=[[exact.calls, exact.wrong, exact.requests_per_s]],
    )
    return Section(tables=[speed, exactness], ratios=held(f"c={CONNECTIONS}", rounds, STDIO, STREAM))
