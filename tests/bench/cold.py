"""Cold starts: from the request to its answer when there is no container yet, beside `docker run`."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import time
from typing import TYPE_CHECKING

from tests.bench.report import Better, Ratio, Section, Table
from tests.bench.rounds import in_turn, nearest_rank
from tests.bench.servers import HOT, node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.bench.plan import Bench
    from tests.bench.report import Cell
    from tests.bench.rounds import Figures
    from tests.bench.servers import Node

__all__ = ["cold"]

BASE = "docker run --rm"
HOT_IMAGES = {"http-stream": "echo", "http": "stdio-echo"}
"""The image that stands for each hot format; format `default` has `cat`."""


def cold(bench: Bench) -> Section:
    """All ways in turn, one start of each in a round."""
    notes: list[str] = []
    with contextlib.ExitStack() as stack:
        ways = _docker_runs(bench.images["cat"])
        for executor in bench.plan.executors:
            try:
                ours = stack.enter_context(node(bench, executor=executor))
            except AssertionError as error:  # what an executor needs is not on every machine
                notes.append(f"Not measured: {executor}. {error}")
                continue
            ways |= {f"{executor}: {name}": way for name, way in _node_ways(ours, bench.images).items()}
        for way in ways.values():
            way()  # what only the first one ever pays: images and programs read from disk
        rounds = in_turn(ways, bench.plan.colds)
    rows: list[list[Cell]] = []
    ratios = {}
    for name in ways:
        times_ms = rounds.all(name, "ms")
        ratio = rounds.ratio(name, "ms", to=BASE)
        least, greatest = rounds.ratio_range(name, "ms", to=BASE)
        p95_ms = nearest_rank(times_ms, 95)
        rows.append([name, rounds.median(name, "ms"), ratio, f"{least:.2f} to {greatest:.2f}", p95_ms])
        if not name.startswith(BASE):
            ratios[f"{name} of {BASE}: p50"] = Ratio(value=ratio, better=Better.LOWER)
    columns = ["from request to answer", "p50 ms", f"of {BASE}", "in the rounds", "p95 ms"]
    return Section(tables=[Table(columns=columns, rows=rows)], ratios=ratios, notes=notes)


def _docker_runs(image: str) -> dict[str, Callable[[], Figures]]:
    def run(*options: str) -> Figures:
        command = ["docker", "run", "--rm", "-i", *options, image]
        with _timed() as figures:
            answer = subprocess.run(command, input=b"x", check=True, capture_output=True).stdout
        assert answer == b"x"
        return figures

    return {BASE: run, f"{BASE} --network none": lambda: run("--network", "none")}


def _node_ways(ours: Node, images: Mapping[str, str]) -> dict[str, Callable[[], Figures]]:
    """Format `default` starts a container for each call; of a hot format only a new route's first call does."""
    each = ours.deploy("/default", images["cat"], memory=HOT["memory"])
    numbers = itertools.count()

    def call(url: str) -> Figures:
        with _timed() as figures:
            answer = ours.http.post(url, content=b"x").raise_for_status().content
        assert answer == b"x"
        return figures

    def first_call(format_name: str) -> Figures:
        path = f"/{format_name}/{next(numbers)}"
        route = ours.deploy(path, images[HOT_IMAGES[format_name]], **{**HOT, "format": format_name})
        figures = call(route.url)
        ours.remove(path)
        ours.settle()
        return figures

    return {
        "http-stream, first call": lambda: first_call("http-stream"),
        "http, first call": lambda: first_call("http"),
        "default, each call": lambda: call(each.url),
    }


@contextlib.contextmanager
def _timed() -> Iterator[dict[str, float]]:
    """Fills in `ms`."""
    figures: dict[str, float] = {}
    began = time.perf_counter()
    yield figures
    figures["ms"] = (time.perf_counter() - began) * 1e3
