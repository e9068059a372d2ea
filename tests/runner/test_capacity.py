"""The memory ledger, and how much there is to share out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from faas.runner.capacity import Capacity, node_memory_mib

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1024**3
NO_LIMIT_V1 = "9223372036854771712\n"


class Machine:
    """A folder that looks like /proc and /sys/fs/cgroup."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("proc/meminfo", "MemTotal: 16777216 kB\nMemFree: 4194304 kB\nMemAvailable: 8388608 kB\n")

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def memory_mib(self, configured: int = 0) -> int:
        return node_memory_mib(configured, proc=self.root / "proc", cgroup=self.root / "cgroup")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def less_a_tenth(mib: int) -> int:
    return mib - mib // 10


# --- the node's memory


def test_what_is_configured_counts_whatever_there_is(machine: Machine) -> None:
    assert machine.memory_mib(123) == 123


def test_without_cgroups_it_is_what_is_available_less_a_tenth(machine: Machine) -> None:
    assert machine.memory_mib() == less_a_tenth(8192)


def test_an_old_kernel_without_memavailable_counts_what_is_free(machine: Machine) -> None:
    machine.write("proc/meminfo", "MemTotal: 16777216 kB\nMemFree: 4194304 kB\n")
    assert machine.memory_mib() == less_a_tenth(4096)


@pytest.mark.parametrize(("available_gib", "headroom_mib"), [(1, 256), (2, 256), (10, 1024), (50, 5120), (1000, 5120)])
def test_the_headroom_is_a_tenth_between_256_mib_and_5_gib(
    machine: Machine, available_gib: int, headroom_mib: int
) -> None:
    machine.write("proc/meminfo", f"MemAvailable: {available_gib * 1024 * 1024} kB\n")
    assert machine.memory_mib() == available_gib * 1024 - headroom_mib


def test_a_machine_smaller_than_the_headroom_has_nothing(machine: Machine) -> None:
    machine.write("proc/meminfo", "MemAvailable: 100000 kB\n")
    assert machine.memory_mib() == 0


def test_version_2_the_own_limit_counts(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/system.slice/faas.service\n")
    machine.write("cgroup/system.slice/faas.service/memory.max", f"{4 * GIB}\n")
    assert machine.memory_mib() == less_a_tenth(4096)


def test_version_2_an_ancestors_limit_counts_too(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/a.slice/b.slice/faas.service\n")
    machine.write("cgroup/a.slice/memory.max", f"{3 * GIB}\n")
    machine.write("cgroup/a.slice/b.slice/memory.max", "max\n")
    machine.write("cgroup/a.slice/b.slice/faas.service/memory.max", f"{5 * GIB}\n")
    assert machine.memory_mib() == less_a_tenth(3072)


def test_version_2_inside_a_container_the_mount_is_our_own_cgroup(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/docker/of/the/host\n")
    machine.write("cgroup/memory.max", f"{4 * GIB}\n")
    assert machine.memory_mib() == less_a_tenth(4096)


def test_version_1_the_own_limit_counts(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n1:name=systemd:/x\n")
    machine.write("cgroup/memory/memory.limit_in_bytes", NO_LIMIT_V1)
    machine.write("cgroup/memory/docker/abc/memory.limit_in_bytes", f"{4 * GIB}\n")
    assert machine.memory_mib() == less_a_tenth(4096)


def test_version_1_without_a_limit_leaves_what_is_available(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "4:memory:/\n")
    machine.write("cgroup/memory/memory.limit_in_bytes", NO_LIMIT_V1)
    assert machine.memory_mib() == less_a_tenth(8192)


def test_hybrid_takes_the_least_of_both(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "4:memory:/a\n0::/b\n")
    machine.write("cgroup/memory/a/memory.limit_in_bytes", f"{6 * GIB}\n")
    machine.write("cgroup/unified/b/memory.max", f"{4 * GIB}\n")
    assert machine.memory_mib() == less_a_tenth(4096)


def test_a_limit_above_what_is_available_changes_nothing(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/a\n")
    machine.write("cgroup/a/memory.max", f"{100 * GIB}\n")
    assert machine.memory_mib() == less_a_tenth(8192)


def test_this_machine_has_memory_for_functions() -> None:
    assert node_memory_mib(0) > 0


# --- the ledger


def test_memory_is_given_while_there_is_some_and_not_beyond() -> None:
    capacity = Capacity(100)
    assert capacity.try_reserve(60) is not None
    assert capacity.try_reserve(41) is None
    assert capacity.try_reserve(40) is not None
    assert (capacity.used_mib, capacity.free_mib) == (100, 0)
    assert repr(capacity) == "<Capacity 100 of 100 MiB used>"


def test_a_released_reservation_can_be_had_again_but_counts_once() -> None:
    capacity = Capacity(100)
    reservation = capacity.try_reserve(100)
    assert reservation is not None
    reservation.release()
    reservation.release()
    assert capacity.used_mib == 0
    assert repr(reservation) == "<Reservation 100 MiB released>"


def test_who_waits_hears_of_each_release_and_can_reserve_from_within() -> None:
    capacity = Capacity(100)
    first = capacity.try_reserve(100)
    assert first is not None
    got = []
    capacity.on_freed = lambda: got.append(capacity.try_reserve(70))
    first.release()
    first.release()
    assert [reservation is not None for reservation in got] == [True]
    assert capacity.used_mib == 70


def test_what_can_never_fit_is_told_apart_from_what_does_not_fit_now() -> None:
    capacity = Capacity(100)
    assert capacity.try_reserve(100)
    assert capacity.can_ever_fit(100)
    assert not capacity.can_ever_fit(101)


@pytest.mark.parametrize("memory_mib", [0, -1])
def test_no_memory_is_no_reservation(memory_mib: int) -> None:
    with pytest.raises(ValueError, match="needs memory"):
        Capacity(100).try_reserve(memory_mib)
