"""Load: wrk with one thread, and what it says, as numbers."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.peers import Served

__all__ = ["Load", "load"]

POST_SCRIPT = 'wrk.method = "POST"\nwrk.headers["Content-Type"] = "text/plain"\nwrk.body = string.rep("x", {size})\n'

_UNITS_US = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6}


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one run of wrk measured."""

    requests_per_s: float
    p50_us: float
    p99_us: float
    cpu_us: float
    """CPU time of the server's process for each request; it suffers least from what else the machine does."""
    failed: int
    """Answers that were not 2xx or 3xx, and socket errors."""


def load(served: Served, *, connections: int, seconds: int, size_bytes: int, folder: Path) -> Load:
    """POST bodies of so many bytes over so many connections."""
    script = folder / f"post-{size_bytes}.lua"
    script.write_text(POST_SCRIPT.format(size=size_bytes))
    options = ["-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "--latency", "-s", str(script)]
    cpu_before_s = served.cpu_s()
    text = subprocess.run(["wrk", *options, served.url], check=True, capture_output=True, text=True).stdout
    requests = int(_find(r"(\d+) requests in", text))
    return Load(
        cpu_us=(served.cpu_s() - cpu_before_s) / max(requests, 1) * 1e6,
        requests_per_s=float(_find(r"Requests/sec:\s+([\d.]+)", text)),
        p50_us=_percentile(50, text),
        p99_us=_percentile(99, text),
        failed=sum(int(count) for count in re.findall(r"Non-2xx or 3xx responses: (\d+)", text))
        + sum(int(count) for count in re.findall(r"(?:connect|read|write|timeout) (\d+)", text)),
    )


def _percentile(percent: int, text: str) -> float:
    value, unit = re.search(rf"{percent}%\s+([\d.]+)(us|ms|s|m)", text).groups()  # type: ignore[union-attr]
    return float(value) * _UNITS_US[unit]


def _find(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise RuntimeError(f"wrk said something unexpected:\n{text}")
    return match[1]
