"""What a container has used, from each kind of cgroup and from the engine's statistics."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from faas.models import Usage
from faas.runner.executors.docker_usage import Cgroup, DeathWatch, Reading, usage_from_stats

if TYPE_CHECKING:
    from pathlib import Path


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def read(root: Path) -> Reading | None:
    cgroup = Cgroup.find("abc", root)
    return cgroup and cgroup.read()


@pytest.mark.parametrize("parent", ["docker/abc", "system.slice/docker-abc.scope"])
def test_version_2_of_either_driver_is_read(tmp_path: Path, parent: str) -> None:
    write(
        tmp_path,
        {
            f"{parent}/memory.peak": "4096\n",
            f"{parent}/memory.events": "low 0\noom 3\noom_kill 2\n",
            f"{parent}/cpu.stat": "usage_usec 1500000\nuser_usec 1\n",
        },
    )
    assert read(tmp_path) == Reading(usage=Usage(memory_peak_bytes=4096, cpu_s=1.5), oom_kills=2)


def test_a_kernel_without_memory_peak_tells_the_cpu_time_only(tmp_path: Path) -> None:
    write(tmp_path, {"docker/abc/cpu.stat": "usage_usec 1500000\n"})
    assert read(tmp_path) == Reading(usage=Usage(memory_peak_bytes=None, cpu_s=1.5))


def test_version_1_is_read(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "memory/docker/abc/memory.max_usage_in_bytes": "4096\n",
            "memory/docker/abc/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
            "cpuacct/docker/abc/cpuacct.usage": "2500000000\n",
        },
    )
    assert read(tmp_path) == Reading(usage=Usage(memory_peak_bytes=4096, cpu_s=2.5), oom_kills=1)


def test_a_container_that_is_not_seen_is_not_guessed(tmp_path: Path) -> None:
    write(tmp_path, {"docker/other/memory.peak": "1\n"})
    assert Cgroup.find("abc", tmp_path) is None


def test_a_cgroup_that_has_gone_since_gives_nothing(tmp_path: Path) -> None:
    write(tmp_path, {"docker/abc/memory.peak": "1\n", "docker/abc/cpu.stat": "usage_usec 1\n"})
    cgroup = Cgroup.find("abc", tmp_path)
    assert cgroup is not None
    shutil.rmtree(tmp_path / "docker")
    assert cgroup.read() is None
    assert cgroup.first_process() is None


def test_the_first_process_is_the_one_that_is_number_1_inside(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "docker/abc/cpu.stat": "",
            "docker/abc/cgroup.procs": "30\n20\n10\n",
            "proc/30/status": "Name:\tsh\nNSpid:\t30\t7\n",
            "proc/20/status": "Name:\tsh\nNSpid:\t20\t1\n",
        },
    )
    cgroup = Cgroup.find("abc", tmp_path)
    assert cgroup is not None
    assert cgroup.first_process(tmp_path / "proc") == 20


async def test_the_last_reading_is_taken_when_there_is_nobody_to_watch(tmp_path: Path) -> None:
    write(tmp_path, {"docker/abc/memory.peak": "1\n", "docker/abc/cpu.stat": "usage_usec 1\n"})
    readings: list[Reading] = []
    watch = DeathWatch("abc", readings.append, tmp_path)
    watch.finish()
    watch.close()
    assert len(readings) == 1


def test_statistics_are_the_second_choice() -> None:
    stats = {"cpu_stats": {"cpu_usage": {"total_usage": 500_000_000}}, "memory_stats": {"max_usage": 10}}
    assert usage_from_stats(stats) == Usage(memory_peak_bytes=10, cpu_s=0.5)
    assert usage_from_stats({"cpu_stats": {"cpu_usage": {"total_usage": 0}}, "memory_stats": {}}) is None
    assert usage_from_stats({}) is None
