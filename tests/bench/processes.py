"""Processes that are measured: started, ended, and asked what they used, with all their children."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.waiting import wait_until_blocking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["CpuTime", "forget_memory_peak", "free_port", "memory_mib", "running", "tree", "used_cpu"]

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
LOG_TAIL = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuTime:
    """CPU time, in seconds; it suffers less from what else a machine does than the time of a clock."""

    user_s: float
    system_s: float

    @property
    def total_s(self) -> float:
        return self.user_s + self.system_s

    def __sub__(self, earlier: CpuTime) -> CpuTime:
        return CpuTime(user_s=self.user_s - earlier.user_s, system_s=self.system_s - earlier.system_s)


def tree(pid: int) -> list[int]:
    """The process and all its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in tree(int(child)))]


def used_cpu(pid: int) -> CpuTime:
    """What the process and its descendants have used so far."""
    ticks = [_stat(one) for one in tree(pid)]
    per_s = os.sysconf("SC_CLK_TCK")
    return CpuTime(user_s=sum(user for user, _ in ticks) / per_s, system_s=sum(system for _, system in ticks) / per_s)


def memory_mib(pid: int, field: str = "VmRSS") -> float:
    """A figure of their memory: VmRSS now, VmHWM at its height since `forget_memory_peak`.

    What processes share is counted in each of them.
    """
    return sum(_status_mib(one, field) for one in tree(pid))


def forget_memory_peak(pid: int) -> None:
    """Let VmHWM begin again."""
    for one in tree(pid):
        Path(f"/proc/{one}/clear_refs").write_text("5")


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(
    command: Sequence[str], *, log_path: Path, is_ready: Callable[[], bool], env: Mapping[str, str] | None = None
) -> Iterator[int]:
    """Start a server, wait until it is ready, yield its process id; end it afterwards. Fails with its log."""
    # Its parent's end is its end, also when that is killed.
    leash = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
    with log_path.open("wb") as log:
        process = subprocess.Popen([*leash, *command], stdout=log, stderr=log, env={**os.environ, **(env or {})})
        try:
            wait_until_blocking(lambda: process.poll() is not None or is_ready(), timeout_s=START_TIMEOUT_S)
            if process.poll() is not None:
                raise RuntimeError(f"{command[0]} did not start:\n{log_path.read_text()[-LOG_TAIL:]}")
            yield process.pid
        finally:
            process.terminate()
            process.wait(STOP_TIMEOUT_S)


def _stat(pid: int) -> tuple[int, int]:
    """utime and stime, of proc(5); the name before them may hold blanks and parentheses."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]), int(fields[12])


def _status_mib(pid: int, field: str) -> float:
    found = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"/proc/{pid}/status has no {field}")
    return int(found[1]) / 1024
