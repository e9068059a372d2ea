"""Facts about the machine and the run, without which a number means nothing."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.peers import NGINX

if TYPE_CHECKING:
    import docker

    from tests.bench.plan import Plan

__all__ = ["facts"]

LIBRARIES = ("uvicorn", "uvloop", "httptools")


def facts(plan: Plan, engine: docker.APIClient) -> dict[str, str]:
    """What, on what, when."""
    return {
        "measured": datetime.now(UTC).date().isoformat(),
        "commit": _commit(),
        "rounds": f"{plan.rounds} of {plan.seconds} s, {plan.colds} cold starts",
        "CPU": f"{_cpu_model()}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "Python": f"{platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in LIBRARIES),
        "Docker": engine.version()["Version"],
        "nginx": _first(r"nginx/(\S+)", NGINX, "-v"),
        "wrk": _first(r"wrk (\S+)", "wrk", "--version"),
    }


def _commit() -> str:
    """Of this working tree, marked when it has changes; empty outside of one."""
    command = ["git", "describe", "--always", "--dirty"]
    answer = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return answer.stdout.strip()


def _cpu_model() -> str:
    """x86's name of it; other machines have none there."""
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _first(pattern: str, *command: str) -> str:
    """What the pattern finds in all that a command says; wrk and nginx tell their versions in places of their own."""
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(pattern, answer.stdout + answer.stderr)
    return found[1] if found else "unknown"
