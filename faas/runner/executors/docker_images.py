"""Images: found on the engine, pulled where the policy says so, refused where they can't run here."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from docker import auth as docker_auth
from docker import errors as docker_errors
from docker.utils import parse_repository_tag

from faas.clock import monotonic
from faas.errors import (
    EngineError,
    EngineUnavailableError,
    FaasError,
    ImageNotAvailableError,
    ImageUnusableError,
    ValidationError,
)
from faas.models import PullPolicy
from faas.runner.executors.base import Image
from faas.runner.executors.docker_engine import is_gone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import docker

    from faas.runner.executors.docker_engine import DockerEngine
    from faas.tasks import TaskSet

__all__ = ["ImageResolver", "RegistryLogin", "parse_registry_logins"]

PULL_THREADS = 4
"""Pulls have threads of their own: a registry that hangs must not stop containers from being made."""

FAILED_PULL_TTL_S = 5.0
"""So long a failed pull is not tried again: a thousand calls of a missing image are one question to its registry."""

RUNS_ON = {"amd64": ("amd64", "386"), "arm64": ("arm64", "arm")}
"""Engine's architecture -> what its CPUs usually run; any other runs its own only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryLogin:
    """A user at a registry; its `repr` shows no password."""

    registry: str
    username: str
    password: str = field(repr=False)


def parse_registry_logins(text: str) -> tuple[RegistryLogin, ...]:
    """IronFunctions' DOCKER_AUTH: `[{"name": ..., "username": ..., "password": ...}]`; empty is none.

    Raises `ValidationError` with a message that repeats nothing of the text.
    """
    if not text.strip():
        return ()
    try:
        return tuple(
            RegistryLogin(
                registry=docker_auth.resolve_index_name(str(entry["name"])),
                username=str(entry["username"]),
                password=str(entry["password"]),
            )
            for entry in json.loads(text)
        )
    except (ValueError, KeyError, TypeError):
        problem = 'docker_auth must be JSON: [{"name": "REGISTRY", "username": "...", "password": "..."}]'
        # The cause would show the text, and in it the passwords.
        raise ValidationError([problem]) from None


class ImageResolver:
    """Finds and pulls; one pull of a reference at a time, however many ask."""

    def __init__(
        self,
        engine: DockerEngine,
        *,
        logins: Sequence[RegistryLogin],
        pull_timeout_s: float,
        tasks: TaskSet,
        on_pulled: Callable[[bool], None],
    ) -> None:
        """`on_pulled` hears of every pull that ended, and whether it went well."""
        self._engine = engine
        self._logins = {login.registry: login for login in logins}
        self._pull_timeout_s = pull_timeout_s
        self._tasks = tasks
        self._on_pulled = on_pulled
        self._threads = ThreadPoolExecutor(PULL_THREADS, thread_name_prefix="docker-pull")
        self._pulls: dict[str, asyncio.Task[FaasError | None]] = {}
        self._failed: dict[str, tuple[float, FaasError]] = {}
        """Reference -> when to try again, and what was wrong."""
        self._architecture = ""

    async def resolve(self, reference: str, pull: PullPolicy) -> Image:
        """See `Executor.resolve_image`."""
        if pull is PullPolicy.ALWAYS:
            await self._pull(reference)
        found = await self._find(reference)
        if found is None and pull is PullPolicy.MISSING:
            await self._pull(reference)
            found = await self._find(reference)
        if found is None:
            raise ImageNotAvailableError(
                f"image {reference} is not on this engine, and pull is `{pull}`: pull or build it there first"
            )
        return await self._checked(reference, found)

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _find(self, reference: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = await self._engine.call(
                f"image {reference}", lambda client: client.inspect_image(reference)
            )
        except ImageNotAvailableError:
            return None
        except EngineError as error:
            if is_gone(error):
                return None
            # What the engine can't parse as a reference is no image that anybody can have.
            raise ImageNotAvailableError(error.message) from error
        return found

    async def _checked(self, reference: str, found: dict[str, Any]) -> Image:
        here = await self._engine_architecture()
        theirs = f"{found.get('Os') or 'linux'}/{found.get('Architecture') or here}"
        if theirs not in [f"linux/{name}" for name in RUNS_ON.get(here, (here,))]:
            raise ImageUnusableError(
                f"image {reference} is made for {theirs} and can't run on this engine (linux/{here});"
                f" build it for linux/{here}"
            )
        config = found.get("Config") or {}
        if not (config.get("Entrypoint") or config.get("Cmd")):
            raise ImageUnusableError(f"image {reference} names no command to run: give it an ENTRYPOINT or a CMD")
        return Image(
            reference=reference,
            digest=found["Id"],
            user=config.get("User") or "",
            size_bytes=found.get("Size") or 0,
        )

    async def _engine_architecture(self) -> str:
        if not self._architecture:
            version = await self._engine.call("version of the engine", lambda client: client.version(api_version=False))
            self._architecture = version["Arch"]
        return self._architecture

    # --- pulling

    async def _pull(self, reference: str) -> None:
        failed_until, failure = self._failed.get(reference, (0.0, None))
        if failure is not None and monotonic() < failed_until:
            raise failure
        flight = self._pulls.get(reference)
        if flight is None:
            flight = self._tasks.spawn(self._pull_once(reference), name="pull")
            self._pulls[reference] = flight
        # Shielded: one caller that leaves does not take the image from the others.
        error = await asyncio.shield(flight)
        if error is not None:
            raise error

    async def _pull_once(self, reference: str) -> FaasError | None:
        """Returns the error, so that a flight whose callers are all gone leaves none behind unread."""
        pull = _Pull(reference, login=self._login_for(reference))
        try:
            async with asyncio.timeout(self._pull_timeout_s):
                await self._engine.submit(f"pull {reference}", pull.run, pool=self._threads)
        except TimeoutError:
            error: FaasError = ImageNotAvailableError(
                f"pull {reference}: not done within {self._pull_timeout_s:g} s; pull it by hand or raise pull_timeout_s"
            )
        except EngineUnavailableError as unavailable:
            return unavailable
        except FaasError as refused:
            error = ImageNotAvailableError(refused.message)
        else:
            self._failed.pop(reference, None)
            self._on_pulled(True)
            return None
        finally:
            pull.stop()
            del self._pulls[reference]
        self._on_pulled(False)
        self._remember_failure(reference, error)
        return error

    def _remember_failure(self, reference: str, error: FaasError) -> None:
        now = monotonic()
        self._failed = {name: entry for name, entry in self._failed.items() if entry[0] > now}
        self._failed[reference] = (now + FAILED_PULL_TTL_S, error)

    def _login_for(self, reference: str) -> RegistryLogin | None:
        try:
            registry, _ = docker_auth.resolve_repository_name(parse_repository_tag(reference)[0])
        except docker_errors.DockerException:
            return None
        return self._logins.get(registry)


class _Pull:
    """One pull in a thread of its own; can be told to stop between two lines of the engine's progress."""

    def __init__(self, reference: str, *, login: RegistryLogin | None) -> None:
        self._reference = reference
        self._login = login
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def run(self, client: docker.APIClient) -> None:
        for line in self._progress(client):
            if self._stopped.is_set():
                return
            if problem := line.get("error"):
                raise EngineError(f"pull {self._reference}: {problem}")

    def _progress(self, client: docker.APIClient) -> Iterable[dict[str, Any]]:
        credentials = self._login and {"username": self._login.username, "password": self._login.password}
        try:
            if credentials is None:
                # The SDK looks into ~/.docker/config.json; a `docker login` since the last pull counts.
                client.reload_config()
            lines: Iterable[dict[str, Any]] = client.pull(
                self._reference, stream=True, decode=True, auth_config=credentials
            )
        except docker_errors.APIError:
            raise
        except docker_errors.DockerException as error:
            # The credential helper's trouble, not the engine's.
            raise EngineError(f"pull {self._reference}: {error}") from error
        return lines
