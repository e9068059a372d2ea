"""`make bench`: warm calls beside nginx on the same socket, cold starts beside `docker run`, memory; medians, ratios.

Everything is measured in turn in one run, several rounds, because machines are shared and noisy: the ratios mean
something, the numbers belong to the machine and the hour.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from tests.bench import peers
from tests.bench.load import Load, load
from tests.functions.build import ensure_images

if TYPE_CHECKING:
    from collections.abc import Callable

Warm = dict[str, dict[str, dict[str, float]]]
"""Concurrency -> server -> figure."""

ECHO_BODY_BYTES = 11
HOT = {"format": "http-stream", "memory": 32, "idle_timeout": 600}


def main() -> int:
    """Measure, print a table, write JSON where asked."""
    options = _options()
    images = ensure_images()
    with tempfile.TemporaryDirectory(prefix="faas-bench-") as name:
        folder = Path(name)
        with peers.node(folder) as node:
            report: dict[str, object] = {"rss_idle_mib": round(node.rss_mib(), 1)}
            # nginx gets a container that nobody else calls: wrk hangs up in the middle of calls, which ends theirs.
            httpx.post(node.deploy("/nginx", images["echo"], **HOT).url, content=b"warm").raise_for_status()
            with peers.nginx(folder, node.function_socket()) as nginx:
                many = node.deploy("/echo", images["echo"], **HOT)
                few = node.deploy("/few", images["echo"], max_concurrency=12, **HOT)
                servers = {"nginx": nginx, "faas": many, "faas, at most 12 containers": few}
                report["warm"] = _warm(options, folder, servers)
            report["rss_loaded_mib"] = round(node.rss_mib(), 1)
            report["cold_ms"] = _cold(options, node, images)
    _print(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="length of one measurement")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--colds", type=int, default=15, help="cold starts of each kind")
    parser.add_argument("--json", type=Path, help="write the report there, too")
    return parser.parse_args()


def _warm(
    options: argparse.Namespace, folder: Path, servers: dict[str, peers.Served]
) -> dict[str, dict[str, dict[str, float]]]:
    """Medians over the rounds."""
    result: Warm = {}
    for connections in options.connections:
        runs: dict[str, list[Load]] = {name: [] for name in servers}
        for served in servers.values():  # containers are started, caches are warm
            load(served, connections=connections, seconds=2, size_bytes=ECHO_BODY_BYTES, folder=folder)
        for _ in range(options.rounds):
            for name, served in servers.items():
                runs[name].append(
                    load(
                        served,
                        connections=connections,
                        seconds=options.seconds,
                        size_bytes=ECHO_BODY_BYTES,
                        folder=folder,
                    )
                )
        result[str(connections)] = {name: _medians(loads) for name, loads in runs.items()}
    return result


def _medians(loads: list[Load]) -> dict[str, float]:
    rows = [asdict(one) for one in loads]
    medians = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    medians["failed"] = sum(row["failed"] for row in rows)
    return medians


def _cold(options: argparse.Namespace, node: peers.Node, images: dict[str, str]) -> dict[str, float]:
    """Median milliseconds of a start with its first answer, of each kind, measured in turn."""

    def hot_format() -> None:
        url = node.deploy("/cold", images["echo"], **HOT)
        node.http.post(url.url, content=b"x").raise_for_status()

    def cold_format() -> None:
        node.http.post(cat.url, content=b"x").raise_for_status()

    def docker_run() -> None:
        command = ["docker", "run", "--rm", "-i", images["cat"]]
        subprocess.run(command, input=b"x", check=True, capture_output=True)

    cat = node.deploy("/cat", images["cat"], memory=32)
    ways = {"http-stream, first call": hot_format, "default, each call": cold_format, "docker run --rm": docker_run}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.colds):
        for name, way in ways.items():
            times[name].append(_timed_ms(way))
            node.http.delete("/v1/apps/bench/routes/cold")
    return {name: round(statistics.median(values), 1) for name, values in times.items()}


def _timed_ms(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1e3


def _print(report: dict[str, object]) -> None:
    out = sys.stdout.write
    warm = report["warm"]
    assert isinstance(warm, dict)
    out(
        "| warm, POST of 11 bytes | req/s | of nginx | p50 us | of nginx | p99 us | CPU us | failed |\n"
        "|---|---|---|---|---|---|---|---|\n"
    )
    for connections, servers in warm.items():
        nginx = servers["nginx"]
        for name, row in servers.items():
            out(
                f"| c={connections} {name} | {row['requests_per_s']:.0f}"
                f" | {row['requests_per_s'] / nginx['requests_per_s']:.2f}"
                f" | {row['p50_us']:.0f} | {row['p50_us'] / nginx['p50_us']:.2f}"
                f" | {row['p99_us']:.0f} | {row['cpu_us']:.0f} | {row['failed']:.0f} |\n"
            )
    cold = report["cold_ms"]
    assert isinstance(cold, dict)
    out("\n| cold start with its answer | median ms | of docker run |\n|---|---|---|\n")
    for name, value in cold.items():
        out(f"| {name} | {value:.0f} | {value / cold['docker run --rm']:.2f} |\n")
    out(f"\nNode's memory: {report['rss_idle_mib']} MiB idle, {report['rss_loaded_mib']} MiB after the load.\n")


if __name__ == "__main__":
    raise SystemExit(main())
