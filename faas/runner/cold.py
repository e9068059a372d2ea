"""A call in a container of its own, from the container's making to its end."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from faas.clock import monotonic
from faas.errors import FaasError, InternalError
from faas.runner.formats.default import ColdCall
from faas.runner.invocation import LaunchTimings, State

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from faas.runner.executors.base import Container, Stdio
    from faas.runner.invocation import Invocation
    from faas.runner.launcher import Launcher

__all__ = ["ColdKeeper", "ColdRun"]

logger = logging.getLogger(__name__)


class ColdKeeper(Protocol):
    """Who answers for the containers of cold calls; the agent."""

    @property
    def containers(self) -> set[str]:
        """Engine ids of all containers that are answered for."""

    def kill_soon(self, container: Container) -> None:
        """Kill it, however often the engine must be asked."""

    async def give_up(self, container: Container, *, is_dead: bool) -> None:
        """Nobody needs it any more; it is dead when this returns, and removed later."""


class ColdRun:
    """One run; it is what runs the call, as the call sees it."""

    def __init__(
        self,
        invocation: Invocation,
        launcher: Launcher,
        keeper: ColdKeeper,
        *,
        max_response_bytes: int,
        max_log_bytes: int,
    ) -> None:
        self._invocation = invocation
        self._launcher = launcher
        self._keeper = keeper
        self._call = ColdCall(invocation, max_response_bytes=max_response_bytes, max_log_bytes=max_log_bytes)
        self._container: Container | None = None
        self._opening: asyncio.Timeout | None = None
        """Without a time; what ends it is the stop of the call."""

    async def run(self) -> FaasError | None:
        """Run the call; returns why there is no answer. No container is alive afterwards."""
        return await self._outcome_of(self._run())

    async def answer(self) -> FaasError | None:
        """Pass the answer on, at the caller's pace; returns why it did not get through."""
        return await self._outcome_of(self._call.answer())

    def close(self) -> None:
        """Give the kept answer up."""
        self._call.close()

    async def _outcome_of(self, work: Awaitable[None]) -> FaasError | None:
        try:
            await work
        except FaasError as error:
            return error
        except Exception:
            logger.exception("call_failed", extra={"call_id": self._invocation.id})
            return InternalError()
        return None

    async def _run(self) -> None:
        invocation = self._invocation
        timings = invocation.launch = LaunchTimings()
        container, stdio = await self._open(timings)
        self._container = container
        self._keeper.containers.add(container.id)
        try:
            await self._attend(container, stdio)
        finally:
            stdio.close()
            await self._keeper.give_up(container, is_dead=invocation.exit_code is not None)

    async def _open(self, timings: LaunchTimings) -> tuple[Container, Stdio]:
        """A started container, unless the call is stopped meanwhile: a pull can take minutes."""
        invocation = self._invocation
        if invocation.stop is not None:
            raise invocation.stop
        try:
            async with asyncio.timeout(None) as self._opening:
                return await self._launcher.open_cold(invocation, timings, self._call)
        except TimeoutError:
            if invocation.stop is None:
                raise
            raise invocation.stop from None
        finally:
            self._opening = None

    async def _attend(self, container: Container, stdio: Stdio) -> None:
        """Be with the call until its process has ended; raises what that end means."""
        invocation, call = self._invocation, self._call
        invocation.container_id = container.id
        if invocation.stop is not None:
            raise invocation.stop
        invocation.state = State.RUNNING
        invocation.running_since = monotonic()
        if invocation.function.timeout_s:
            invocation.deadline = invocation.running_since + invocation.function.timeout_s
        if invocation.watcher is not None:
            invocation.watcher()
        ended = await call.run(container, stdio)
        invocation.exit_code = ended.exit_code
        invocation.usage = await container.usage()
        if invocation.stop is not None:
            raise invocation.stop
        call.judge(ended)

    # --- CallRunner

    is_answering = False
    """What is passed on is a complete answer: its function can't fall silent any more."""

    def stop_call(self, error: FaasError) -> None:
        """Kill the container, or break off its making; `run` sees the end, and tells `invocation.stop`."""
        if self._container is not None:
            self._keeper.kill_soon(self._container)
        elif self._opening is not None:
            self._opening.reschedule(0)

    def pause_answer(self) -> None:
        """The answer is passed on at the sink's own pace."""

    def resume_answer(self) -> None:
        """See `pause_answer`."""
