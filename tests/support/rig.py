"""A runner without an engine: agent, pool, ledger and launcher on the in-process executor."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from faas.ids import new_id
from faas.metrics import Metrics
from faas.models import App, FormatName
from faas.runner.agent import Agent, AgentOptions
from faas.runner.capacity import Capacity
from faas.runner.container import ContainerState
from faas.runner.formats.http import HttpFormat
from faas.runner.formats.http_stream import HttpStreamFormat
from faas.runner.functions import compile_function
from faas.runner.invocation import Invocation
from faas.runner.launcher import Launcher, LauncherOptions
from faas.tasks import TaskSet
from tests.support.audit import audit_settled
from tests.support.inprocess import InProcessContainer, InProcessExecutor
from tests.support.samples import a_route
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from faas.errors import FaasError
    from faas.runner.capacity import Reservation
    from faas.runner.container import HotContainer
    from faas.runner.function_pool import FunctionPool
    from faas.runner.functions import Function
    from faas.wire.headers import Headers
    from tests.support.inprocess import Program

__all__ = ["KeepingSink", "RecordedAgent", "Rig", "a_function", "an_invocation", "running_rig"]


def a_function(image: str = "echo", **changes: Any) -> Function:
    """A hot function, unless the format says otherwise."""
    app_config = changes.pop("app_config", {})
    values = {"image": image, "path": f"/{image}", "format": FormatName.HTTP_STREAM, **changes}
    return compile_function(App(name="demo", config=app_config), a_route(**values), Metrics())


@dataclass(eq=False)
class KeepingSink:
    """A sink that keeps all it gets and checks that it gets it in order."""

    status: int = 0
    headers: Headers = field(default_factory=list)
    content_length: int | None = None
    body: bytearray = field(default_factory=bytearray)
    error: FaasError | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    live_at_end: int = -1
    """How many containers ran when the end was told."""
    refuses_start: FaasError | None = None
    refuses_body: FaasError | None = None
    rig: Rig | None = None

    @property
    def outcome(self) -> object:
        """The body, or the error's code."""
        assert self.ended.is_set()
        return self.error.code if self.error is not None else bytes(self.body)

    def start(self, invocation: Invocation, status: int, headers: Headers, content_length: int | None) -> None:
        assert not self.ended.is_set()
        assert not self.status
        if self.refuses_start is not None:
            raise self.refuses_start
        self.status, self.headers, self.content_length = status, headers, content_length

    def write(self, data: bytes) -> None:
        assert not self.ended.is_set()
        assert self.status
        if self.refuses_body is not None:
            raise self.refuses_body
        self.body += data

    def flush(self) -> None:
        assert not self.ended.is_set()

    async def drain(self) -> None:
        pass

    def finish(self, invocation: Invocation) -> None:
        self._end()

    def fail(self, invocation: Invocation, error: FaasError) -> None:
        self.error = error
        self._end()

    def _end(self) -> None:
        assert not self.ended.is_set(), "a sink hears of the end once"
        if self.rig is not None:
            self.live_at_end = len(self.rig.executor.running)
        self.ended.set()


def an_invocation(function: Function, sink: Any = None, **changes: Any) -> Invocation:
    """A POST of "hello"."""
    values: dict[str, Any] = {
        "method": b"POST",
        "url": b"http://localhost/r/demo" + function.path.encode(),
        "headers": [],
        "body": b"hello",
        **changes,
    }
    return Invocation(new_id(), function, KeepingSink() if sink is None else sink, **values)


class RecordedAgent(Agent):
    """An agent that remembers what it made, for the audit."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.made: list[HotContainer] = []
        self.cold: list[tuple[Invocation, Reservation]] = []
        launch = self.keeper.launch

        def launch_and_remember(pool: FunctionPool, reservation: Reservation) -> HotContainer:
            container = launch(pool, reservation)
            self.made.append(container)
            return container

        self.keeper.launch = launch_and_remember  # type: ignore[method-assign]

    def run_cold(self, invocation: Invocation, reservation: Reservation) -> None:
        self.cold.append((invocation, reservation))
        super().run_cold(invocation, reservation)


@dataclass(eq=False)
class Rig:
    """What a test turns the wheels of."""

    executor: InProcessExecutor
    capacity: Capacity
    agent: RecordedAgent
    observed: list[Invocation]
    is_abandoned: bool = False

    def abandon(self) -> None:
        """Expect no order at the end: the test has made it impossible."""
        self.is_abandoned = True

    def call(self, function: Function, **changes: Any) -> tuple[Invocation, KeepingSink]:
        """Start a call; its sink keeps the answer."""
        wait_s = changes.pop("queue_timeout_s", None)
        sink = changes.pop("sink", None) or KeepingSink(rig=self)
        invocation = an_invocation(function, sink, **changes)
        self.agent.start(invocation, queue_timeout_s=wait_s)
        return invocation, sink

    async def ask(self, function: Function, **changes: Any) -> KeepingSink:
        """Run a call to its end."""
        _, sink = self.call(function, **changes)
        async with asyncio.timeout(10):
            await sink.ended.wait()
        return sink

    async def containers(self, count: int) -> list[InProcessContainer]:
        """Wait until so many containers run."""
        await wait_until(lambda: len(self.executor.running) == count)
        return self.executor.running

    @property
    def state(self) -> str:
        """One line for tests: calls, containers, memory."""
        return f"{self.agent!r} {self.executor!r}"

    def forget_dead(self) -> None:
        """Look no more at containers that are gone."""
        self.agent.made[:] = [one for one in self.agent.made if one.state is not ContainerState.DEAD]
        self.agent.cold.clear()

    async def quiet(self) -> None:
        """Wait until no task of the agent's is left."""
        left = await self.agent._tasks.wait(timeout_s=10)
        assert not left

    async def settled(self) -> None:
        """Wait until no task of the agent's is left, then no call may run and the books must balance."""
        await self.quiet()
        audit_settled(self.agent, self.executor)
        assert not self.agent.running


EMPTY = "<Agent 0 calls, 0 containers, <Pool 0 functions, <Capacity 0 of {total} MiB used>, 0 short of memory>>"


@asynccontextmanager
async def running_rig(
    socket_root: Path, programs: Mapping[str, Program], *, memory_mib: int = 1024, **options: Any
) -> AsyncIterator[Rig]:
    """A runner; when the block ends it is closed, and nothing may be left."""
    max_header_bytes = options.pop("max_header_bytes", 64 * 1024)
    start_timeout_s = options.pop("start_timeout_s", 5.0)
    grace_s = options.pop("grace_s", 0.0)
    executor = InProcessExecutor(programs)
    capacity = Capacity(memory_mib)
    formats = {
        FormatName.HTTP: HttpFormat(max_header_bytes=max_header_bytes),
        FormatName.HTTP_STREAM: HttpStreamFormat(max_header_bytes=max_header_bytes),
    }
    launcher = Launcher(
        executor,
        formats,
        LauncherOptions(
            socket_root=socket_root,
            start_timeout_s=start_timeout_s,
            max_parallel_starts=4,
            pids=64,
            open_files=64,
            tmpfs_mib=8,
        ),
    )
    observed: list[Invocation] = []
    values = {
        "queue_timeout_s": 5.0,
        "max_waiting": 100,
        "max_spares": 0,
        "max_response_bytes": 10 * 1024 * 1024,
        "max_log_bytes": 4096,
        **options,
    }
    agent = RecordedAgent(launcher, capacity, AgentOptions(**values), metrics=Metrics(), observe=observed.append)
    rig = Rig(executor, capacity, agent, observed)
    try:
        async with TaskSet("rig") as tasks:
            tasks.supervise(agent.sweep_forever(), name="sweep")
            yield rig
    finally:
        try:
            if not rig.is_abandoned:
                await agent.close(grace_s)
                assert repr(agent) == EMPTY.format(total=memory_mib)
                assert not executor.containers, executor
                assert not agent.keeper.socket_dirs
                assert not list(socket_root.iterdir())
        finally:
            await executor.close()
