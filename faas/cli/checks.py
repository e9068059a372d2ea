"""What `faas doctor` looks at: each check says what it found and, when that is wrong, what to do."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

import httpx

from faas import clock
from faas.cli.probe_image import import_probe_image
from faas.errors import EngineUnavailableError, FaasError
from faas.models import PullPolicy
from faas.runner.capacity import node_memory_mib
from faas.runner.executors.base import ContainerSpec, Limits

if TYPE_CHECKING:
    from pathlib import Path

    from faas.config import Settings
    from faas.runner.executors.base import EngineInfo, Executor

__all__ = ["Check", "State", "check_engine", "check_node"]

MIB = 1024 * 1024
GIB = 1024 * MIB

OLDEST_ENGINE_API = (1, 40)
"""Docker 19.03; older ones lack the cgroup's version in their description."""

LEAST_FREE_BYTES = 100 * MIB
SCARCE_FREE_BYTES = 1 * GIB
LEAST_MEMORY_MIB = 128
"""One function of the default size."""

SLOW_START_S = 2.0
PROBE_MEMORY_MIB = 16
NODE_ANSWER_TIMEOUT_S = 2.0
CONNECT_TIMEOUT_S = 5.0

RELEASED = datetime(2025, 1, 1, tzinfo=UTC)
"""A clock before this is wrong for sure."""

_ADJTIMEX_BYTES = 1024
"""More than any kernel's `struct timex`; all zero only asks."""
_TIME_ERROR = 5


class State(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was looked at, what was found, what to do about it."""

    name: str
    state: State
    found: str
    fix: str = ""


async def check_engine(executor: Executor, settings: Settings) -> list[Check]:
    """The engine, its cgroups, and how long a container takes; the later ones only when the engine answers."""
    if problem := _socket_problem(settings.docker_host):
        return [Check(name="engine", state=State.BROKEN, found=problem, fix=_engine_fix(settings.docker_host))]
    try:
        info = await executor.info()
    except FaasError as error:
        return [Check(name="engine", state=State.BROKEN, found=error.message, fix=_engine_fix(settings.docker_host))]
    return [_engine(info), _cgroups(info), *_engine_warnings(info), await _container_start(executor, settings, info)]


def check_node(settings: Settings) -> list[Check]:
    """What of this machine matters besides the engine."""
    return [_memory(settings), _disk(settings.data_dir), _port(settings.host, settings.port), _clock()]


# --- the engine


def _engine(info: EngineInfo) -> Check:
    found = f"{info.name} {info.version}, API {info.api_version}, {info.cpus} CPUs, {info.memory_mib} MiB"
    if _version(info.api_version) < OLDEST_ENGINE_API:
        oldest = ".".join(map(str, OLDEST_ENGINE_API))
        return Check(
            name="engine", state=State.BROKEN, found=found, fix=f"Upgrade Docker: its API must be {oldest} or newer."
        )
    return Check(name="engine", state=State.OK, found=found)


def _socket_problem(docker_host: str) -> str:
    """Why the engine's socket can't be connected to, in the system's words; empty when it can."""
    path = docker_host.removeprefix("unix://")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(CONNECT_TIMEOUT_S)
        try:
            probe.connect(path)
        except OSError as error:
            return f"{path}: {error.strerror or error}"
    return ""


def _engine_fix(docker_host: str) -> str:
    path = docker_host.removeprefix("unix://")
    if not os.path.exists(path):
        return (
            "Install Docker (Debian, Ubuntu: `apt install docker.io`) and start it (`systemctl start docker`), or set "
            "FAAS_DOCKER_HOST to its socket."
        )
    if not os.access(path, os.R_OK | os.W_OK):
        return "This user may not use it: `usermod -aG docker USER` and log in again, or run as root."
    return "Start it: `systemctl start docker`; its log: `journalctl -u docker`."


def _cgroups(info: EngineInfo) -> Check:
    driver = info.details.get("cgroup_driver", "")
    found = f"version {info.cgroup_version}" + (f", driver {driver}" if driver else "")
    if driver == "none":
        fix = "Memory limits are not enforced: a rootless engine needs cgroups version 2 and systemd."
        return Check(name="cgroups", state=State.BROKEN, found=found, fix=fix)
    return Check(name="cgroups", state=State.OK, found=found)


def _engine_warnings(info: EngineInfo) -> list[Check]:
    """What the engine itself complains of: limits that the kernel can't hold, for one."""
    warnings = info.details.get("warnings", "")
    if not warnings:
        return []
    fix = "Limits that the kernel does not know are not enforced: look at the kernel's boot options."
    return [Check(name="limits", state=State.WARNING, found=warnings, fix=fix)]


async def _container_start(executor: Executor, settings: Settings, info: EngineInfo) -> Check:
    name = "container"
    architecture = info.details.get("architecture", "")
    try:
        reference = await import_probe_image(settings)
        if reference is None:
            return Check(name=name, state=State.WARNING, found=f"no probe for {architecture}: start was not tried")
        image = await executor.resolve_image(reference, pull=PullPolicy.NEVER)
        began = clock.monotonic()
        container = await executor.create(ContainerSpec(image=image, limits=Limits(memory_mib=PROBE_MEMORY_MIB)))
        try:
            await container.start()
            ended = await container.wait()
        finally:
            await container.remove()
    except EngineUnavailableError as error:
        return Check(name=name, state=State.BROKEN, found=error.message, fix=_engine_fix(settings.docker_host))
    except FaasError as error:
        return Check(
            name=name,
            state=State.BROKEN,
            found=error.message,
            fix="Those are the engine's own words; `docker run` and `journalctl -u docker` may say more.",
        )
    took_s = clock.monotonic() - began
    found = f"created, started, ended and removed in {took_s * 1000:.0f} ms"
    if ended.exit_code != 0:
        fix = "A program that does nothing failed: look at the engine's security profiles (seccomp, AppArmor)."
        return Check(name=name, state=State.BROKEN, found=f"exit code {ended.exit_code}", fix=fix)
    if took_s > SLOW_START_S:
        fix = "Cold calls will be slow: look at the machine's load and the engine's storage driver."
        return Check(name=name, state=State.WARNING, found=found, fix=fix)
    return Check(name=name, state=State.OK, found=found)


# --- the machine


def _memory(settings: Settings) -> Check:
    memory_mib = node_memory_mib(settings.memory_mib)
    source = "as configured" if settings.memory_mib else "what is free or the cgroup's limit, less some headroom"
    found = f"{memory_mib} MiB for functions: {source}"
    if memory_mib < LEAST_MEMORY_MIB:
        fix = f"Free some, or set FAAS_MEMORY_MIB; one function of the default size needs {LEAST_MEMORY_MIB} MiB."
        return Check(name="memory", state=State.BROKEN, found=found, fix=fix)
    return Check(name="memory", state=State.OK, found=found)


def _disk(data_dir: Path) -> Check:
    folder = data_dir.absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free_bytes = shutil.disk_usage(existing).free
    found = f"{folder}: {free_bytes / GIB:.1f} GiB free"
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        fix = f"This user can't write to {existing}: change its owner, or set FAAS_DATA_DIR."
        return Check(name="disk", state=State.BROKEN, found=found, fix=fix)
    if free_bytes < LEAST_FREE_BYTES:
        return Check(name="disk", state=State.BROKEN, found=found, fix="Free some space, or set FAAS_DATA_DIR.")
    if free_bytes < SCARCE_FREE_BYTES:
        return Check(name="disk", state=State.WARNING, found=found, fix="Images and results need more soon.")
    return Check(name="disk", state=State.OK, found=found)


def _port(host: str, port: int) -> Check:
    place = f"{host}:{port}"
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        fix = "Set FAAS_HOST to an address of this machine, 0.0.0.0 for all."
        return Check(name="port", state=State.BROKEN, found=f"{place}: {error.strerror}", fix=fix)
    with socket.socket(family, kind) as probe:
        # As the server does: a port whose last connections are only lingering is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if version := _running_node(place):
                return Check(name="port", state=State.OK, found=f"{place}: faas {version} is running there")
            fix = f"Stop what listens there (`ss -ltnp 'sport = :{port}'`), or choose another one with FAAS_PORT."
            return Check(name="port", state=State.BROKEN, found=f"{place}: {error.strerror}", fix=fix)
    return Check(name="port", state=State.OK, found=f"{place} is free")


def _running_node(place: str) -> str:
    """The version of the node that listens there, empty when something else does."""
    try:
        answer = httpx.get(f"http://{place}/version", timeout=NODE_ANSWER_TIMEOUT_S, trust_env=False)
        content = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return ""
    return str(content.get("version", "")) if isinstance(content, dict) else ""


def _clock() -> Check:
    now = clock.utc_now()
    found = now.isoformat(timespec="seconds").replace("+00:00", "Z")
    fix = "Set it: `timedatectl set-ntp true` (package systemd-timesyncd or chrony)."
    if now < RELEASED:
        return Check(name="clock", state=State.BROKEN, found=found, fix=fix)
    if not _is_clock_synchronized():
        return Check(name="clock", state=State.WARNING, found=f"{found}, not synchronized", fix=fix)
    return Check(name="clock", state=State.OK, found=found)


def _is_clock_synchronized() -> bool:
    """What the kernel says; true where it can't be asked."""
    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return True
    return int(adjtimex(ctypes.create_string_buffer(_ADJTIMEX_BYTES))) != _TIME_ERROR


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdecimal())
