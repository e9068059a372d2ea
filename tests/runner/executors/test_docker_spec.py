"""From a `ContainerSpec` to the Engine API's JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from faas.errors import EngineError
from faas.runner.executors.base import ContainerSpec, Image, Limits
from faas.runner.executors.docker_spec import MIN_MEMORY_MIB, Hardening, container_config, holder_config

IMAGE = Image(reference="a/b:1", digest="sha256:abc")
LIMITS = Limits(memory_mib=64)


def config(hardening: Hardening | None = None, **fields: Any) -> dict[str, Any]:
    spec = ContainerSpec(**{"image": IMAGE, "limits": LIMITS, **fields})
    return container_config(spec, hardening=hardening or Hardening(), installation_id="here", boot_id="now")


def host_config(hardening: Hardening | None = None, **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = config(hardening, **fields)["HostConfig"]
    return found


def test_a_container_is_made_from_the_digest_and_not_from_the_name() -> None:
    assert config()["Image"] == "sha256:abc"


def test_the_labels_of_the_installation_can_not_be_overridden() -> None:
    labels = {"faas.installation": "there", "faas.boot": "then", "own": "kept"}
    assert config(labels=labels)["Labels"] == {"faas.installation": "here", "faas.boot": "now", "own": "kept"}


def test_swap_is_off_and_nothing_is_written_to_the_engines_disk() -> None:
    host = host_config()
    assert host["Memory"] == host["MemorySwap"] == 64 * 1024 * 1024
    assert host["LogConfig"] == {"Type": "none"}
    assert host["RestartPolicy"] == {"Name": "no"}


def test_a_limit_of_zero_is_left_out() -> None:
    assert not {"NanoCpus", "PidsLimit", "Ulimits", "Tmpfs"} & host_config().keys()


def test_limits_reach_the_engine_in_its_units() -> None:
    host = host_config(limits=Limits(memory_mib=64, cpus=0.1, pids=20, open_files=300, tmpfs_mib=5))
    assert host["NanoCpus"] == 100_000_000
    assert host["PidsLimit"] == 20
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 300, "Hard": 300}]
    assert host["Tmpfs"] == {"/tmp": "rw,exec,nosuid,nodev,mode=1777,size=5m"}


def test_containers_are_hardened_unless_switched_off() -> None:
    host = host_config()
    assert (host["CapDrop"], host["SecurityOpt"], host["ReadonlyRootfs"]) == (["ALL"], ["no-new-privileges"], True)
    soft = Hardening(user="", is_read_only=False, drops_capabilities=False, forbids_new_privileges=False, network="x")
    host = host_config(soft)
    assert not {"CapDrop", "SecurityOpt"} & host.keys()
    assert (host["ReadonlyRootfs"], host["NetworkMode"]) == (False, "x")


@pytest.mark.parametrize(
    ("images_user", "configured", "used"),
    [("", "65534:65534", "65534:65534"), ("app", "65534:65534", "app"), ("", "", ""), ("0", "65534:65534", "0")],
)
def test_the_images_user_goes_before_the_configured_one(images_user: str, configured: str, used: str) -> None:
    image = Image(reference="a", digest="sha256:abc", user=images_user)
    assert config(Hardening(user=configured), image=image)["User"] == used


def test_memory_below_the_engines_minimum_is_refused() -> None:
    with pytest.raises(EngineError, match="at least 6 MiB"):
        config(limits=Limits(memory_mib=MIN_MEMORY_MIB - 1))
    config(limits=Limits(memory_mib=MIN_MEMORY_MIB))


@pytest.mark.parametrize("with_stdin", [True, False])
def test_standard_input_is_opened_only_for_who_uses_it(with_stdin: bool) -> None:
    made = config(with_stdin=with_stdin)
    assert made["OpenStdin"] is made["StdinOnce"] is made["AttachStdin"] is with_stdin


def test_mounts_are_bind_mounts_that_must_exist() -> None:
    mounts = host_config(mounts={Path("/srv/a"): "/tmp/iofs"})["Mounts"]
    assert mounts == [{"Type": "bind", "Source": "/srv/a", "Target": "/tmp/iofs"}]


def test_a_holder_is_told_apart_by_a_label_of_its_own() -> None:
    made = holder_config("faas/network-holder:abc", network="my-network", labels={"faas.installation": "here"})
    assert made["Labels"] == {"faas.installation": "here", "faas.role": "network"}
    assert made["HostConfig"]["NetworkMode"] == "my-network"
    assert made["HostConfig"]["Memory"] == made["HostConfig"]["MemorySwap"] == MIN_MEMORY_MIB * 1024 * 1024
