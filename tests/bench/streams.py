"""Streams: one body that no memory should have to hold, to a function and from it, beside nginx on the same socket."""

from __future__ import annotations

import http.client
import time
import zlib
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.bench.peers import node_and_nginx
from tests.bench.processes import forget_memory_peak, memory_mib, used_cpu
from tests.bench.report import Better, Ratio, Section, Table
from tests.bench.rounds import in_turn
from tests.bench.servers import HOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.bench.plan import Bench
    from tests.bench.report import Cell
    from tests.bench.rounds import Figures
    from tests.bench.servers import Served

    PassThrough = Callable[[str, int], None]

__all__ = ["streams"]

PERIOD = 251
"""The function's bytes are 0 to 250, again and again."""

PIECE = bytes(index % PERIOD for index in range(PERIOD * 4096))
"""A megabyte of them; each piece of an answer that begins at a multiple of its length must be this one."""

TIMEOUT_S = 120.0


def streams(bench: Bench) -> Section:
    """Both servers in turn, a body each time, checked to its last byte."""
    size_bytes = bench.plan.stream_mib << 20
    crc = _crc_of_stream(size_bytes)
    rows: list[list[Cell]] = []
    ratios: dict[str, Ratio] = {}
    image = bench.images["stream"]
    with node_and_nginx(bench, image) as (ours, nginx):
        # There nginx passes on what it has, as our node always does; elsewhere it would write a file first.
        streaming = replace(nginx, url=f"{nginx.url}/stream")
        servers = {"nginx": streaming, "faas": ours.deploy("/stream", image, **HOT)}
        directions: dict[str, PassThrough] = {"request": partial(_send, crc=crc), "answer": _receive}
        for direction, pass_through in directions.items():
            ways = {name: partial(_measured, one, pass_through, size_bytes) for name, one in servers.items()}
            for way in ways.values():
                way()  # a container is started, buffers have grown
            rounds = in_turn(ways, bench.plan.rounds)
            for name in servers:
                ratio = rounds.ratio(name, "mib_per_s", to="nginx")
                per_s, cpu_ms = rounds.median(name, "mib_per_s"), rounds.median(name, "cpu_ms_per_gib")
                rows.append([f"{direction}, {name}", per_s, ratio, cpu_ms, max(rounds.all(name, "grown_mib"))])
            ratio = rounds.ratio("faas", "mib_per_s", to="nginx")
            ratios[f"{direction}, faas of nginx: MiB/s"] = Ratio(value=ratio, better=Better.HIGHER)
    columns = [f"{bench.plan.stream_mib} MiB", "MiB/s", "of nginx", "CPU ms a GiB", "memory grew at most, MiB"]
    return Section(tables=[Table(columns=columns, rows=rows)], ratios=ratios)


def _measured(served: Served, pass_through: PassThrough, size_bytes: int) -> Figures:
    forget_memory_peak(served.pid)
    memory_before_mib = memory_mib(served.pid)
    cpu_before = used_cpu(served.pid)
    began = time.perf_counter()
    pass_through(served.url, size_bytes)
    took_s = time.perf_counter() - began
    return {
        "mib_per_s": size_bytes / 2**20 / took_s,
        "cpu_ms_per_gib": (used_cpu(served.pid) - cpu_before).total_s * 1e3 * 2**30 / size_bytes,
        "grown_mib": memory_mib(served.pid, "VmHWM") - memory_before_mib,
    }


def _send(url: str, size_bytes: int, *, crc: int) -> None:
    """POST a stream; the function answers how much it got, and its checksum."""
    parts = urlsplit(url)
    with closing(http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT_S)) as connection:
        connection.request("POST", parts.path, _stream(size_bytes), {"Content-Length": str(size_bytes)})
        answer = connection.getresponse().read()
    assert answer == f"{size_bytes} {crc:08x}\n".encode(), answer


def _receive(url: str, size_bytes: int) -> None:
    """GET a stream and compare it."""
    parts = urlsplit(url)
    with closing(http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT_S)) as connection:
        connection.request("GET", f"{parts.path}?bytes={size_bytes}")
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        for expected in _stream(size_bytes):
            assert answer.read(len(expected)) == expected
        assert answer.read() == b""


def _stream(size_bytes: int) -> Iterator[bytes]:
    for _ in range(size_bytes // len(PIECE)):
        yield PIECE
    yield PIECE[: size_bytes % len(PIECE)]


def _crc_of_stream(size_bytes: int) -> int:
    crc = 0
    for piece in _stream(size_bytes):
        crc = zlib.crc32(piece, crc)
    return crc
