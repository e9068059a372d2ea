"""Load: wrk with one thread, and what it says, as numbers."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.callers import warm_up
from tests.bench.processes import used_cpu

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.rounds import Figures
    from tests.bench.servers import Served

__all__ = ["Load", "figures", "load"]

SCRIPT = Path(__file__).with_name("load.lua")
ANSWER_TIMEOUT = "60s"

_UNITS_US = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6}


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is sent."""

    connections: int
    seconds: int
    size_bytes: int = 11
    with_trace: bool = False
    """A header of its own in each request."""
    paths: Sequence[str] = ()
    """Called in turn, instead of the URL's one."""


def load(served: Served, what: Load) -> Figures:
    """Warm the server up, load it, and let it come to rest again. Figures:

    requests, requests_per_s, p50_us, p99_us;
    cpu_us, user_us, system_us: CPU time of the server for each request;
    failed: answers that were not 2xx or 3xx, and errors of sockets.
    """
    served.settle()
    warm_up(served, what.connections)
    options = ["-t1", f"-c{what.connections}", f"-d{what.seconds}s", "--timeout", ANSWER_TIMEOUT, "--latency"]
    arguments = [f"size={what.size_bytes}", *(["trace"] if what.with_trace else []), *what.paths]
    before = used_cpu(served.pid)
    command = ["wrk", *options, "-s", str(SCRIPT), served.url, "--", *arguments]
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    used = used_cpu(served.pid) - before
    found = figures(text)
    per_request = 1e6 / max(found["requests"], 1)
    served.settle()
    return {
        **found,
        "cpu_us": used.total_s * per_request,
        "user_us": used.user_s * per_request,
        "system_us": used.system_s * per_request,
    }


def figures(text: str) -> dict[str, float]:
    """What wrk printed."""
    return {
        "requests": float(_find(r"(\d+) requests in", text)),
        "requests_per_s": float(_find(r"Requests/sec:\s+([\d.]+)", text)),
        "p50_us": _percentile(50, text),
        "p99_us": _percentile(99, text),
        "failed": sum(float(count) for count in re.findall(r"Non-2xx or 3xx responses: (\d+)", text))
        + sum(float(count) for count in re.findall(r"(?:connect|read|write|timeout) (\d+)", text)),
    }


def _percentile(percent: int, text: str) -> float:
    value = _find(rf" {percent}%\s+([\d.]+(?:us|ms|s|m))\b", text)
    number, unit = re.fullmatch(r"([\d.]+)(\w+)", value).groups()  # type: ignore[union-attr]
    return float(number) * _UNITS_US[unit]


def _find(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise RuntimeError(f"wrk said something unexpected:\n{text}")
    return match[1]
