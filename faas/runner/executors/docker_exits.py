"""Who has ended, and how: one stream of the engine's events for all containers, no thread and no request for each.

events connected --> list once (what ended meanwhile) --> die | oom | destroy as they happen
      ^                                                          |
      +------------- the stream breaks: once more <--------------+
"""

from __future__ import annotations

import asyncio
import json
import logging
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from faas.clock import unix_s
from faas.errors import EngineError, EngineUnavailableError, FaasError
from faas.runner.executors.base import ContainerExit
from faas.runner.executors.docker_engine import is_gone
from faas.runner.executors.docker_usage import DeathWatch, Reading

if TYPE_CHECKING:
    from collections.abc import Mapping

    from faas.runner.executors.docker_engine import DockerEngine
    from faas.tasks import TaskSet

__all__ = ["ExitWatcher", "Watched"]

logger = logging.getLogger(__name__)

KILLED_EXIT_CODE = 137
"""128 + SIGKILL: what the kernel's out-of-memory killer leaves too, and what we say of a container that vanished."""
ENDED_STATES = ("exited", "dead")
RECONNECT_DELAYS_S = (0.1, 0.2, 0.5, 1.0, 2.0)
RESYNC_INTERVAL_S = 30.0
"""Safety net under the events: so long may the engine forget to send one."""
REPLAY_S = 10
"""Events of so long before are asked for, too: the engine tells of an end before its list shows it, and begins to
listen after it has begun to answer, so that of what happens just then neither the list nor the new stream may know."""
OOM_POLL_INTERVAL_S = 0.02
OOM_POLLS = 25
"""Half a second: on a busy machine the engine's notice of an out-of-memory kill is that much later than the exit."""
MAX_EVENT_BYTES = 1024 * 1024


@dataclass(slots=True, kw_only=True)
class Watched:
    """What is known of one container's end; `killed_by_us` is set by its container, the rest by the watcher."""

    exit: asyncio.Future[ContainerExit]
    is_oom: bool = False
    killed_by_us: bool = False
    death: DeathWatch | None = None
    last: Reading | None = None
    """Of the moment its first process died; `None` as long as it lives, and when it could not be seen."""
    inspection: asyncio.Task[None] | None = None


class ExitWatcher:
    """Completes `Watched.exit` for each container that it was told to watch."""

    def __init__(self, engine: DockerEngine, *, labels: Mapping[str, str], tasks: TaskSet) -> None:
        self._engine = engine
        self._labels = [f"{name}={value}" for name, value in labels.items()]
        self._watched: dict[str, Watched] = {}
        self._tasks = tasks
        self._is_running = False
        self._failures = 0
        """To connect, one after the other: an outage is logged once."""

    def __repr__(self) -> str:
        return f"<ExitWatcher of {len(self._watched)} containers>"

    def watch(self, container_id: str) -> Watched:
        """Begin to watch a container, before it is started."""
        if not self._is_running:
            self._is_running = True
            self._tasks.supervise(self._run(), name="exits")
        watched = Watched(exit=asyncio.get_running_loop().create_future())
        self._watched[container_id] = watched
        return watched

    def started(self, container_id: str) -> None:
        """Look out for the death of its first process."""
        watched = self._watched.get(container_id)
        if watched is None or watched.exit.done():
            return

        def take(reading: Reading) -> None:
            watched.last = reading
            watched.is_oom = watched.is_oom or bool(reading.oom_kills)

        watched.death = DeathWatch(container_id, take)

    def close(self) -> None:
        """Let go of all containers; who waits for one waits for ever."""
        for watched in self._watched.values():
            if watched.death is not None:
                watched.death.close()
        self._watched.clear()

    async def check(self, container_id: str) -> None:
        """Ask the engine now instead of waiting for its event."""
        watched = self._watched.get(container_id)
        if watched is not None:
            await self._inspect(container_id, watched)

    async def _run(self) -> None:
        while True:
            try:
                await self._follow()
            except (OSError, ValueError, FaasError) as error:
                # ValueError: asyncio's for an over-long line, json's for a broken one.
                if self._failures == 0:
                    logger.warning("engine_events_lost", extra={"error": str(error)})
            await asyncio.sleep(RECONNECT_DELAYS_S[min(self._failures, len(RECONNECT_DELAYS_S) - 1)])
            self._failures += 1

    async def _follow(self) -> None:
        reader, writer = await asyncio.open_unix_connection(self._engine.socket_path, limit=MAX_EVENT_BYTES)
        try:
            writer.write(_events_request(self._labels))
            status = await reader.readline()
            if b" 200 " not in status:
                raise EngineError(f"events: the engine answered {status!r}")
            while await reader.readline() not in (b"\r\n", b""):
                pass
            await self._sync()
            if self._failures:
                self._failures = 0
                logger.info("engine_events_back")
            while line := await self._next_line(reader):
                self._handle(json.loads(line))
            raise EngineUnavailableError("events: the engine hung up")
        finally:
            writer.close()

    async def _next_line(self, reader: asyncio.StreamReader) -> bytes:
        while True:
            try:
                async with asyncio.timeout(RESYNC_INTERVAL_S):
                    return await reader.readline()
            except TimeoutError:
                await self._sync()

    async def _sync(self) -> None:
        """Catch up with what ended while nobody listened."""
        if not self._watched:
            return
        before = dict(self._watched)
        listed = await self._engine.call(
            "list containers", lambda client: client.containers(all=True, filters={"label": self._labels})
        )
        states = {entry["Id"]: entry["State"] for entry in listed}
        for container_id, watched in before.items():
            if states.get(container_id, ENDED_STATES[0]) in ENDED_STATES:
                self._inspect_later(container_id, watched)

    def _handle(self, event: dict[str, Any]) -> None:
        actor = event.get("Actor", {})
        watched = self._watched.get(actor.get("ID", ""))
        if watched is None:
            return
        match event.get("Action"):
            case "oom":
                watched.is_oom = True
            case "die":
                exit_code = int(actor.get("Attributes", {}).get("exitCode", KILLED_EXIT_CODE))
                if exit_code == KILLED_EXIT_CODE and not _is_explained(watched):
                    self._inspect_later(actor["ID"], watched)
                else:
                    self._ended(actor["ID"], watched, exit_code)
            case "destroy":
                self._ended(actor["ID"], watched, KILLED_EXIT_CODE)

    def _inspect_later(self, container_id: str, watched: Watched) -> None:
        if watched.inspection is None or watched.inspection.done():
            watched.inspection = self._tasks.spawn(self._inspect(container_id, watched), name="inspect-exit")

    async def _inspect(self, container_id: str, watched: Watched) -> None:
        exit_code = KILLED_EXIT_CODE
        try:
            state = await self._state_of(container_id)
            if state["Status"] not in ENDED_STATES:
                return
            exit_code = state["ExitCode"]
            watched.is_oom = watched.is_oom or state["OOMKilled"]
            if exit_code == KILLED_EXIT_CODE and not _is_explained(watched):
                await _until_explained(watched)
        except EngineUnavailableError:
            return  # the next sync asks again
        except EngineError as error:
            if not is_gone(error):
                raise
        self._ended(container_id, watched, exit_code)

    async def _state_of(self, container_id: str) -> dict[str, Any]:
        found: dict[str, Any] = await self._engine.call(
            "inspect container", lambda client: client.inspect_container(container_id)
        )
        state: dict[str, Any] = found["State"]
        return state

    def _ended(self, container_id: str, watched: Watched, exit_code: int) -> None:
        self._watched.pop(container_id, None)
        if watched.death is not None:
            watched.death.finish()
        if not watched.exit.done():
            watched.exit.set_result(ContainerExit(exit_code=exit_code, is_oom=watched.is_oom))


def _is_explained(watched: Watched) -> bool:
    """Whether it is known why a container was killed; a reading without such kills says that it was not for memory."""
    return watched.is_oom or watched.killed_by_us or (watched.last is not None and watched.last.oom_kills is not None)


async def _until_explained(watched: Watched) -> None:
    for _ in range(OOM_POLLS):
        if _is_explained(watched):
            return
        await asyncio.sleep(OOM_POLL_INTERVAL_S)


def _events_request(labels: list[str]) -> bytes:
    filters = {"type": ["container"], "event": ["die", "oom", "destroy"], "label": labels}
    query = urllib.parse.urlencode({"filters": json.dumps(filters), "since": int(unix_s()) - REPLAY_S})
    # HTTP/1.0, so that the engine sends plain lines and not chunks.
    return f"GET /events?{query} HTTP/1.0\r\nHost: docker\r\n\r\n".encode()
