"""What processes use, with their children."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.bench.processes import forget_memory_peak, memory_mib, running, tree, used_cpu
from tests.support.waiting import wait_until_blocking

if TYPE_CHECKING:
    from pathlib import Path

HOLD_MIB = 64

# Its child uses CPU time and memory, and says so by a file.
PARENT = f"""
import subprocess, sys
child = '''
import sys, time
while time.process_time() < 0.2:
    pass
kept = bytearray({HOLD_MIB} << 20)
for at in range(0, len(kept), 4096):
    kept[at] = 1
del kept
open(sys.argv[1], "w").close()
sys.stdin.read()
'''
subprocess.run([sys.executable, "-c", child, sys.argv[1]], stdin=sys.stdin)
"""


def test_children_are_counted(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    with subprocess.Popen([sys.executable, "-c", PARENT, ready], stdin=subprocess.PIPE) as parent:
        wait_until_blocking(ready.exists, timeout_s=60)
        pids = tree(parent.pid)
        assert pids[0] == parent.pid
        assert len(pids) == 2
        assert used_cpu(parent.pid).total_s >= 0.2
        height_mib = memory_mib(parent.pid, "VmHWM")
        assert height_mib > HOLD_MIB
        assert memory_mib(parent.pid) < height_mib - HOLD_MIB / 2
        forget_memory_peak(parent.pid)
        assert memory_mib(parent.pid, "VmHWM") < height_mib - HOLD_MIB / 2
        parent.communicate()


def test_a_server_that_does_not_start_is_told_of_with_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such port')"]
    with (
        pytest.raises(RuntimeError, match="no such port"),
        running(command, log_path=tmp_path / "log", is_ready=lambda: False),
    ):
        pass


def test_a_server_is_ended_afterwards(tmp_path: Path) -> None:
    with running(["sleep", "600"], log_path=tmp_path / "log", is_ready=lambda: True) as pid:
        assert tree(pid) == [pid]
    with pytest.raises(FileNotFoundError):
        tree(pid)
