"""Where a warm call's time goes: user and system time beside nginx's, and the node's own by who wrote the code."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.load import Load, load
from tests.bench.peers import node_and_nginx
from tests.bench.report import Section, Table
from tests.bench.rounds import in_turn
from tests.bench.servers import MANY_CALLS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.bench.plan import Bench
    from tests.bench.report import Cell
    from tests.bench.servers import Served

__all__ = ["group_of", "profile", "shares"]

CONNECTIONS = 32
SAMPLES_PER_S = 200

PY_SPY = Path(sys.executable).with_name("py-spy")

LOOP_FRAME = "faas/server.py"
"""Every stack of the event loop's thread has it; other threads write the database."""

SYSTEM_CALLS = frozenset({"epoll_pwait", "epoll_wait", "read", "readv", "recv", "send", "sendmsg", "write", "writev"})

GROUPS = (
    (r"\(faas/(api|runner|wire|queue|store)/", r"faas.\1"),
    (r"\(faas/", "faas, the rest"),
    (r"\(uvicorn/", "uvicorn"),
    (r"^(http_parser|llhttp)|\((httptools/|parser\.c:|llhttp\.c:|http\.c:)", "httptools"),
    (r"^uv_|\((uvloop/|loop\.c:)", "uvloop"),
    (r"\([\w./]+/[\w.]+\.pyx?:", "other libraries"),
)
"""Pattern of a frame `function (file:line)`, and whose it is. Frames of C and Cython name no folder."""

UNKNOWN = "unknown"


def profile(bench: Bench) -> Section:
    """CPU time by the kernel's account, then a profile by samples, which slow the node down: a run of its own."""
    image = bench.images["echo"]
    with node_and_nginx(bench, image) as (ours, nginx):
        servers = {"nginx": nginx, "faas": ours.deploy("/profile", image, **MANY_CALLS)}
        what = Load(connections=CONNECTIONS, seconds=bench.plan.seconds)
        rounds = in_turn({name: partial(load, one, what) for name, one in servers.items()}, bench.plan.rounds)
        stacks = _sampled(bench, servers["faas"]) if PY_SPY.exists() else None
    cells: list[list[Cell]] = [
        [name, *(rounds.median(name, key) for key in ("cpu_us", "user_us", "system_us"))] for name in servers
    ]
    tables = [Table(columns=[f"CPU us a call, c={CONNECTIONS}", "total", "user", "system"], rows=cells)]
    if stacks is None:
        return Section(tables=tables, notes=["No profile: py-spy is not installed beside this Python."])
    rows: list[list[Cell]] = [[name, share * 100] for name, share in shares(stacks)]
    return Section(tables=[*tables, Table(columns=["the event loop's thread", "% of its time"], rows=rows)])


def shares(stacks: Iterable[str]) -> list[tuple[str, float]]:
    """Share of the event loop's samples by group, the greatest first; `stacks` are lines `outer;...;inner count`."""
    counts: Counter[str] = Counter()
    for line in stacks:
        stack, _, count = line.rpartition(" ")
        if LOOP_FRAME in stack:
            counts[group_of(stack.split(";"))] += int(count)
    return [(name, count / counts.total()) for name, count in counts.most_common()]


def group_of(frames: list[str]) -> str:
    """Whose code a sample was in: that of its innermost frame which is somebody's.

    The interpreter's own C frames are nobody's, so they count for the Python code that they run.
    """
    name, _, file = frames[-1].partition(" ")
    if name in SYSTEM_CALLS and file.startswith("(libc"):
        return f"system call {name}"
    for frame in reversed(frames):
        for pattern, group in GROUPS:
            if match := re.search(pattern, frame):
                return match.expand(group)
    return UNKNOWN


def _sampled(bench: Bench, served: Served) -> list[str]:
    """Stacks of the node under load, one run of py-spy."""
    raw = bench.folder / "stacks.txt"
    # The load begins a little later than the samples and ends later: idleness is no sample, so nothing need be in step.
    command = [str(PY_SPY), "record", "--native", "--format", "raw", "--rate", str(SAMPLES_PER_S), "--output", str(raw)]
    duration = ["--duration", str(bench.plan.seconds), "--pid", str(served.pid)]
    with subprocess.Popen([*command, *duration], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as sampler:
        load(served, Load(connections=CONNECTIONS, seconds=bench.plan.seconds))
        assert sampler.stderr is not None
        errors = sampler.stderr.read().decode()
    if sampler.returncode != 0:
        raise RuntimeError(f"py-spy failed:\n{errors}")
    return raw.read_text().splitlines()
