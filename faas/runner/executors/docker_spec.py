"""How a container is made: from a `ContainerSpec` and the node's hardening to the Engine API's JSON. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from faas.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from faas.runner.executors.base import ContainerSpec

__all__ = [
    "BOOT_LABEL",
    "INSTALLATION_LABEL",
    "MIN_MEMORY_MIB",
    "ROLE_LABEL",
    "Hardening",
    "container_config",
    "holder_config",
]

INSTALLATION_LABEL = "faas.installation"
BOOT_LABEL = "faas.boot"
ROLE_LABEL = "faas.role"
"""Of containers that run no function: what they are for."""

MIN_MEMORY_MIB = 6
"""Docker refuses less: runc itself needs about that much in the container's cgroup while it starts."""

MIB = 1024 * 1024
NANO_CPUS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardening:
    """What every container of this node may not do; the settings `container_*`."""

    user: str = "65534:65534"
    """For images that name no user; empty leaves them root."""
    is_read_only: bool = True
    drops_capabilities: bool = True
    forbids_new_privileges: bool = True
    network: str = "bridge"


def container_config(
    spec: ContainerSpec, *, hardening: Hardening, installation_id: str, boot_id: str
) -> dict[str, Any]:
    """The body of `POST /containers/create`; raises `EngineError` when the engine is known to refuse it."""
    if spec.limits.memory_mib < MIN_MEMORY_MIB:
        raise EngineError(
            f"memory of {spec.limits.memory_mib} MiB is below the engine's minimum; give the function at least"
            f" {MIN_MEMORY_MIB} MiB"
        )
    return {
        # The digest, not the name: a tag that moves meanwhile can't swap the image.
        "Image": spec.image.digest,
        "User": spec.image.user or hardening.user,
        "Env": [f"{name}={value}" for name, value in spec.env.items()],
        # Last wins: nobody can talk the reaper out of its labels.
        "Labels": {**spec.labels, INSTALLATION_LABEL: installation_id, BOOT_LABEL: boot_id},
        "AttachStdin": spec.with_stdin,
        "AttachStdout": True,
        "AttachStderr": True,
        "OpenStdin": spec.with_stdin,
        # The process sees end of file when our end closes, also when this node dies.
        "StdinOnce": spec.with_stdin,
        "Tty": False,
        # An image's own health check would run a process of its own in every container, again and again.
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": _host_config(spec, hardening),
    }


def holder_config(image: str, *, network: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """The body of `POST /containers/create` for a container that only has a network namespace.

    Whatever the settings allow to functions, it may do nothing.
    """
    return {
        "Image": image,
        "User": "65534:65534",
        "Labels": {**labels, ROLE_LABEL: "network"},
        "StopSignal": "SIGKILL",  # as the first process it gets no other
        "HostConfig": {
            "Memory": MIN_MEMORY_MIB * MIB,
            "MemorySwap": MIN_MEMORY_MIB * MIB,
            "NetworkMode": network,
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "PidsLimit": 1,
            "RestartPolicy": {"Name": "no"},
            "Init": False,
            "LogConfig": {"Type": "none"},
        },
    }


def _host_config(spec: ContainerSpec, hardening: Hardening) -> dict[str, Any]:
    limits = spec.limits
    config: dict[str, Any] = {
        "Memory": limits.memory_mib * MIB,
        "MemorySwap": limits.memory_mib * MIB,  # memory and swap together: no swap
        "NetworkMode": hardening.network,
        "ReadonlyRootfs": hardening.is_read_only,
        "RestartPolicy": {"Name": "no"},
        "AutoRemove": False,
        "Init": False,
        # Output goes through attach; a file on the engine's disk would only grow.
        "LogConfig": {"Type": "none"},
        "Mounts": [{"Type": "bind", "Source": str(source), "Target": target} for source, target in spec.mounts.items()],
    }
    if hardening.drops_capabilities:
        config["CapDrop"] = ["ALL"]
    if hardening.forbids_new_privileges:
        config["SecurityOpt"] = ["no-new-privileges"]
    if limits.cpus > 0:
        config["NanoCpus"] = round(limits.cpus * NANO_CPUS)
    if limits.pids > 0:
        config["PidsLimit"] = limits.pids
    if limits.open_files > 0:
        config["Ulimits"] = [{"Name": "nofile", "Soft": limits.open_files, "Hard": limits.open_files}]
    if limits.tmpfs_mib > 0:
        # exec: functions unpack and run tools there, as they can under Fn.
        config["Tmpfs"] = {"/tmp": f"rw,exec,nosuid,nodev,mode=1777,size={limits.tmpfs_mib}m"}  # noqa: S108
    return config
