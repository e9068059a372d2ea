"""The `docker` SDK behind a bounded pool of threads, and the table that turns its exceptions into ours."""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeVar

import docker
import requests
import urllib3
from docker import errors as docker_errors
from docker.constants import MINIMUM_DOCKER_API_VERSION

from faas.clock import monotonic
from faas.errors import EngineError, EngineUnavailableError, FaasError, ImageNotAvailableError, ValidationError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ENGINE_FAILURES", "DockerEngine", "is_conflict", "is_gone", "socket_path_of", "translate"]

T = TypeVar("T")

UNIX = "unix://"
GONE_POLL_INTERVAL_S = 0.05

ENGINE_FAILURES: tuple[type[Exception], ...] = (
    docker_errors.DockerException,
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
    OSError,
)
"""All that a call to the SDK is known to raise."""

TRANSLATIONS: tuple[tuple[type[Exception], type[FaasError]], ...] = (
    (docker_errors.ImageNotFound, ImageNotAvailableError),
    (docker_errors.APIError, EngineError),
    (docker_errors.InvalidRepository, EngineError),
    (docker_errors.InvalidConfigFile, EngineError),
    (docker_errors.NullResource, EngineError),
    # The SDK dresses the connection error of its first request as a bare DockerException.
    (docker_errors.DockerException, EngineUnavailableError),
    (requests.exceptions.RequestException, EngineUnavailableError),
    (urllib3.exceptions.HTTPError, EngineUnavailableError),
    (OSError, EngineUnavailableError),
)
"""What each becomes; the first line that fits counts."""


def translate(error: Exception, what: str) -> FaasError:
    """The error to raise when `what` failed ("create container ..."), with the engine's own words."""
    ours = next(ours for theirs, ours in TRANSLATIONS if isinstance(error, theirs))
    if ours is EngineUnavailableError:
        return ours(f"{what}: the Docker Engine does not answer ({error}); is it running, and may this user reach it?")
    words = error.explanation if isinstance(error, docker_errors.APIError) else None
    return ours(f"{what}: {words or error}")


def is_gone(error: BaseException) -> bool:
    """Whether the engine said that there is no such thing."""
    return isinstance(error.__cause__, docker_errors.NotFound)


def is_conflict(error: BaseException) -> bool:
    """Whether the engine said that the container's state does not allow it."""
    cause = error.__cause__
    return isinstance(cause, docker_errors.APIError) and cause.status_code == requests.codes.conflict


def socket_path_of(docker_host: str) -> str:
    """The path in `unix:///path`; raises `ValidationError` for anything else."""
    path = docker_host.removeprefix(UNIX)
    if path == docker_host or not path.startswith("/"):
        raise ValidationError([f"docker_host must be unix:///PATH of the engine's socket, not {docker_host!r}"])
    return path


class DockerEngine:
    """One client for all threads: `requests` and its connection pool are thread-safe for what we do.

    The client is made by the first call, so that a node starts while its engine is still down.
    """

    def __init__(self, *, docker_host: str, timeout_s: float, threads: int) -> None:
        self.socket_path = socket_path_of(docker_host)
        self._docker_host = docker_host
        self._timeout_s = timeout_s
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="docker")
        self._client: docker.APIClient | None = None
        self._client_lock = threading.Lock()

    async def call(self, what: str, work: Callable[[docker.APIClient], T]) -> T:
        """Run `work(client)` in a thread; `what` opens the message of whatever goes wrong."""
        return await self.submit(what, work)

    def submit(
        self, what: str, work: Callable[[docker.APIClient], T], *, pool: ThreadPoolExecutor | None = None
    ) -> asyncio.Future[T]:
        """As `call`, but the future itself: for work that must be seen through also when nobody waits for it."""
        return asyncio.get_running_loop().run_in_executor(pool or self._pool, self._run, what, work)

    async def remove_container(self, container_id: str) -> None:
        """Remove by force, with anonymous volumes; returns when it is gone, whoever removed it."""
        what = f"remove container {container_id[:12]}"
        deadline = monotonic() + self._timeout_s
        while True:
            try:
                await self.call(what, lambda client: client.remove_container(container_id, v=True, force=True))
            except EngineError as error:
                if is_gone(error):
                    return
                # Somebody else's removal is under way: "gone" is what the next round must hear.
                if not is_conflict(error) or monotonic() > deadline:
                    raise
                await asyncio.sleep(GONE_POLL_INTERVAL_S)
            else:
                return

    def close(self) -> None:
        """Let go of threads and connections; a call under way ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._client_lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _run(self, what: str, work: Callable[[docker.APIClient], T]) -> T:
        try:
            return work(self._connected())
        except ENGINE_FAILURES as error:
            raise translate(error, what) from error

    def _connected(self) -> Any:
        if self._client is None:
            client = self._connect()
            with self._client_lock:
                kept = self._client = self._client or client
            if kept is not client:
                client.close()  # another thread was faster
        return self._client

    def _connect(self) -> Any:
        # In steps, because the SDK leaves sockets open when an engine does not answer its first request.
        with closing(socket.socket(socket.AF_UNIX)) as knock:
            knock.settimeout(self._timeout_s)
            knock.connect(self.socket_path)
        options = {"base_url": self._docker_host, "timeout": self._timeout_s}
        with closing(docker.APIClient(version=MINIMUM_DOCKER_API_VERSION, **options)) as asking:
            version = asking.version(api_version=False)["ApiVersion"]
        return docker.APIClient(version=version, max_pool_size=self._threads, **options)
