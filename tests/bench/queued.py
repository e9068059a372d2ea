"""Queued calls: accepted, run and their results kept, beside sync calls of the same function on the same node."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import statistics
import subprocess
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest
from redis import Redis

from tests.bench.load import SCRIPT, Load, figures, load
from tests.bench.report import Better, Ratio, Section, Table
from tests.bench.rounds import in_turn
from tests.bench.servers import MANY_CALLS, QUEUE_TIMEOUT_S, node
from tests.support.services import running_postgres, running_redis
from tests.support.waiting import wait_until_blocking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import httpx

    from tests.bench.plan import Bench
    from tests.bench.report import Cell
    from tests.bench.rounds import Figures
    from tests.bench.servers import Node, Served

__all__ = ["queued"]

CONNECTIONS = 32
DRAIN_TIMEOUT_S = 600.0
SINGLE_CALLS = 50
"""One after the other on an idle node."""

SQLITE = "sqlite + sql"
POSTGRES = "postgres + redis"
WRITES = 500
GROUP = 64
"""Rows of a commit in the second limit: as many as a node puts into one at most."""


def queued(bench: Bench) -> Section:
    """Both pairs of backends, sync and queued calls in turn, then single calls, and the bare limits."""
    rows: list[list[Cell]] = []
    singles: list[list[Cell]] = []
    ratios: dict[str, Ratio] = {}
    notes: list[str] = ["Queued calls per second: accepted ones, divided by the time until the last of them had ended."]
    limits = [_limit(f"SQLite, {GROUP} rows a commit", partial(_sqlite_rows, bench.folder, GROUP))]
    limits.append(_limit("SQLite, a row a commit, on disk", partial(_sqlite_rows, bench.folder, 1)))
    with contextlib.ExitStack() as stack:
        backends: dict[str, dict[str, str]] = {SQLITE: {}}
        try:
            database_url = stack.enter_context(stack.enter_context(running_postgres()).database())
            folder = bench.folder / "redis"
            folder.mkdir()
            redis_url = stack.enter_context(running_redis(folder, "--appendonly", "yes")).url
        except pytest.skip.Exception as missing:
            notes.append(f"{POSTGRES} was left out: {missing}.")
        else:
            backends[POSTGRES] = {"db_url": database_url, "queue_url": redis_url}
            notes.append("PostgreSQL ran without fsync, Redis with its append-only file (everysec).")
            limits.append(_limit("Redis, a round trip each", partial(_redis_round_trips, redis_url)))
        for name, settings in backends.items():
            with node(bench, **settings) as ours:
                sync = ours.deploy("/sync", bench.images["echo"], **MANY_CALLS)
                later = ours.deploy("/queued", bench.images["echo"], type="async", **MANY_CALLS)
                what = Load(connections=CONNECTIONS, seconds=bench.plan.seconds)
                ways: dict[str, Callable[[], Figures]] = {
                    "sync": partial(load, sync, what),
                    "queued": partial(_load_and_drain, ours, later, bench.plan.seconds),
                }
                rounds = in_turn(ways, bench.plan.rounds)
                ratio = rounds.ratio("queued", "requests_per_s", to="sync")
                for way in ways:
                    rows.append(
                        [
                            f"{name}, {way}",
                            rounds.median(way, "requests_per_s"),
                            rounds.ratio(way, "requests_per_s", to="sync"),
                            rounds.median(way, "p50_us") / 1e3,
                            round(sum(rounds.all(way, "failed"))),
                        ]
                    )
                ratios[f"{name}, queued of sync: calls/s"] = Ratio(value=ratio, better=Better.HIGHER)
                sync_ms, queued_ms = _single_calls_ms(ours, sync, later)
                singles.append([name, sync_ms, queued_ms, queued_ms - sync_ms])
    return Section(
        tables=[
            Table(columns=[f"c={CONNECTIONS}", "calls/s", "of sync", "answer or 202, p50 ms", "failed"], rows=rows),
            Table(columns=["one call on an idle node, p50 ms", "sync", "submitted to finished", "more"], rows=singles),
            Table(columns=["limit", "per second"], rows=limits),
        ],
        ratios=ratios,
        notes=notes,
    )


def _load_and_drain(ours: Node, served: Served, seconds: int) -> Figures:
    """What wrk says of the submissions; `requests_per_s` counts until the last call has ended."""
    _post(ours, served)
    _drain(ours)
    began = time.perf_counter()
    options = ["-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-s", str(SCRIPT)]
    command = ["wrk", *options, served.url, "--", "size=11"]
    found = figures(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    _drain(ours)
    return {**found, "requests_per_s": found["requests"] / (time.perf_counter() - began)}


def _drain(ours: Node) -> None:
    """Wait until the queue is empty."""

    def is_empty() -> bool:
        text = ours.http.get("/metrics").raise_for_status().text
        return not any(float(count) for count in re.findall(r"^faas_queue_calls\{.*?\} (\S+)$", text, re.MULTILINE))

    wait_until_blocking(is_empty, timeout_s=DRAIN_TIMEOUT_S)


def _post(ours: Node, served: Served) -> httpx.Response:
    return ours.http.post(served.url, content=b"x" * 11, timeout=QUEUE_TIMEOUT_S).raise_for_status()


def _single_calls_ms(ours: Node, sync: Served, later: Served) -> tuple[float, float]:
    """The medians of a sync call, and of a queued one whose end its caller waits for."""
    sync_s, queued_s = [], []
    for _ in range(SINGLE_CALLS):
        began = time.perf_counter()
        _post(ours, sync)
        sync_s.append(time.perf_counter() - began)
        began = time.perf_counter()
        call_id = _post(ours, later).json()["call_id"]
        call = ours.http.get(f"/v1/calls/{call_id}", params={"wait": 10}).raise_for_status().json()["call"]
        assert call["status"] == "success", call
        queued_s.append(time.perf_counter() - began)
    return statistics.median(sync_s) * 1e3, statistics.median(queued_s) * 1e3


# --- the limits


def _limit(title: str, count_per_s: Callable[[], float]) -> list[Cell]:
    return [title, count_per_s()]


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[sqlite3.Connection]:
    path = folder / "limit.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in ("journal_mode = WAL", "synchronous = FULL"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, text TEXT)")
        yield connection
    path.unlink()


def _sqlite_rows(folder: Path, rows: int) -> float:
    """Rows a second, so many with each commit, as durable as a node's."""
    with _scratch(folder) as connection:
        began = time.perf_counter()
        for _ in range(WRITES):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO rows (text) VALUES (?)", [("x" * 200,)] * rows)
            connection.execute("COMMIT")
        return WRITES * rows / (time.perf_counter() - began)


def _redis_round_trips(url: str) -> float:
    with Redis.from_url(url) as client:
        client.ping()
        began = time.perf_counter()
        for _ in range(WRITES * 10):
            client.ping()
        return WRITES * 10 / (time.perf_counter() - began)
