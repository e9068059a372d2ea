"""An `Executor` without an engine: a container is an asyncio task of this process.

An image is a Python coroutine function under a name (`programs.py` has some). It gets a `Process`: environment,
standard streams, and the folder that it would find mounted. Faults are put in beforehand:

    executor.fail("start", EngineUnavailableError(), times=1)     the next one raises
    with executor.hold("kill"): ...                              all of them wait meanwhile
    container.end(137, is_oom=True)                              a death from outside
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from faas.clock import utc_now
from faas.errors import EngineError, ImageNotAvailableError
from faas.runner.executors.base import Container, ContainerExit, ContainerInfo, EngineInfo, Executor, Image, Stdio
from faas.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from pathlib import Path

    from faas.errors import FaasError
    from faas.models import PullPolicy, Usage
    from faas.runner.executors.base import ContainerSpec, OutputReceiver

__all__ = ["InProcessContainer", "InProcessExecutor", "Process", "Program"]

KILLED = 137
HIGH_WATER_BYTES = 64 * 1024


@dataclass(eq=False)
class Process:
    """What a program sees of its container."""

    env: Mapping[str, str]
    stdin: asyncio.StreamReader
    socket_dir: Path | None
    container: InProcessContainer

    def write(self, data: bytes) -> None:
        """Write to standard output."""
        self.container.deliver("stdout_received", data)

    def write_error(self, data: bytes) -> None:
        """Write to standard error."""
        self.container.deliver("stderr_received", data)


Program: TypeAlias = "Callable[[Process], Awaitable[int | None]]"
"""Returns its exit code; None is 0, an exception is 1."""


class InProcessExecutor:
    """Runs programs as containers; `repr` says how many of them are in which state."""

    def __init__(self, programs: Mapping[str, Program] | None = None) -> None:
        self.programs = dict(programs or {})
        self.containers: dict[str, InProcessContainer] = {}
        """All that were not removed."""
        self.verbs: Counter[str] = Counter()
        """How often each operation began."""
        self.made = 0
        self.is_output_held = False
        """Whether the end of the output lags behind the end of the process."""
        self._tasks = TaskSet("inprocess")
        self._errors: dict[str, deque[FaasError]] = {}
        self._gates: dict[str, asyncio.Event] = {}
        self._ids = (f"{number:064x}" for number in itertools.count(1))

    def __repr__(self) -> str:
        states = Counter(container.state for container in self.containers.values())
        return (
            f"<InProcessExecutor {', '.join(f'{count} {state}' for state, count in sorted(states.items())) or 'empty'}>"
        )

    # --- faults

    def fail(self, verb: str, error: FaasError, *, times: int = 1) -> None:
        """Have the next operations of this kind (`create`, `attach`, `start`, `kill` ...) raise."""
        self._errors.setdefault(verb, deque()).extend([error] * times)

    @contextlib.contextmanager
    def hold(self, verb: str) -> Iterator[None]:
        """Have operations of this kind wait until the block ends, before they do anything."""
        gate = self._gates[verb] = asyncio.Event()
        try:
            yield
        finally:
            del self._gates[verb]
            gate.set()

    async def begin(self, verb: str) -> None:
        """Count an operation, and let it meet its faults."""
        self.verbs[verb] += 1
        # Every operation of a real engine gives other tasks a turn.
        await asyncio.sleep(0)
        if verb in self._gates:
            await self._gates[verb].wait()
        if self._errors.get(verb):
            raise self._errors[verb].popleft()

    @property
    def running(self) -> list[InProcessContainer]:
        """The containers whose process runs."""
        return [container for container in self.containers.values() if container.state == "running"]

    # --- Executor

    async def resolve_image(self, reference: str, *, pull: PullPolicy) -> Image:
        await self.begin("resolve_image")
        for name in self.programs:
            digest = f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"
            if reference in (name, digest):
                return Image(reference=name, digest=digest)
        raise ImageNotAvailableError(f"no such image: {reference}")

    async def create(self, spec: ContainerSpec) -> Container:
        await self.begin("create")
        if spec.image.reference not in self.programs:
            raise ImageNotAvailableError(f"no such image: {spec.image.reference}")
        container = InProcessContainer(self, next(self._ids), spec, self._tasks)
        self.containers[container.id] = container
        self.made += 1
        return container

    async def list_ours(self) -> list[ContainerInfo]:
        await self.begin("list_ours")
        return [
            ContainerInfo(id=one.id, name=one.spec.name, boot_id="boot", state=one.state, created_at=utc_now())
            for one in self.containers.values()
        ]

    async def remove(self, container_id: str) -> None:
        container = self.containers.get(container_id)
        if container is not None:
            await container.remove()

    async def info(self) -> EngineInfo:
        await self.begin("info")
        return EngineInfo(name="in-process", version="1", api_version="1", cgroup_version="2", memory_mib=1024, cpus=2)

    async def close(self) -> None:
        await self._tasks.cancel()


class InProcessContainer:
    """One container."""

    def __init__(self, executor: InProcessExecutor, container_id: str, spec: ContainerSpec, tasks: TaskSet) -> None:
        self.spec = spec
        self.state = "created"
        self.is_paused = False
        """Whether the engine was told so; the program goes on all the same."""
        self.stdin = asyncio.StreamReader()
        self._executor = executor
        self._id = container_id
        self._tasks = tasks
        self._task: asyncio.Task[Any] | None = None
        self._receiver: OutputReceiver | None = None
        self._stdio: _Stdio | None = None
        self._exit: asyncio.Future[ContainerExit] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"<InProcessContainer {self.spec.image.reference} {self.state}>"

    @property
    def id(self) -> str:
        return self._id

    async def attach(self, receiver: OutputReceiver) -> Stdio:
        await self._executor.begin("attach")
        self._receiver = receiver
        self._stdio = _Stdio(self)
        return self._stdio

    async def start(self) -> None:
        await self._executor.begin("start")
        if self.state != "created":
            return
        self.state = "running"
        program = self._executor.programs[self.spec.image.reference]
        process = Process(self.spec.env, self.stdin, next(iter(self.spec.mounts), None), self)
        self._task = self._tasks.spawn(self._run(program, process), name=self.spec.name)

    async def _run(self, program: Program, process: Process) -> None:
        exit_code = KILLED
        try:
            exit_code = await program(process) or 0
        except Exception as error:  # noqa: BLE001 - as an interpreter would
            process.write_error(repr(error).encode())
            exit_code = 1
        finally:
            self.end(exit_code)

    def end(self, exit_code: int = KILLED, *, is_oom: bool = False) -> None:
        """Let it end so, at once."""
        if self._exit.done():
            return
        self.state = "exited"
        self._exit.set_result(ContainerExit(exit_code=exit_code, is_oom=is_oom))
        if self._task is not None:
            self._task.cancel()
        if not self._executor.is_output_held:
            self.end_output()

    def end_output(self) -> None:
        """Say that all output is there; while `is_output_held` the test does."""
        if self._stdio is not None:
            self._stdio.end()

    def deliver(self, how: str, data: bytes) -> None:
        """Hand output to who is attached."""
        if self._stdio is not None:
            self._stdio.deliver(how, data)

    async def wait(self) -> ContainerExit:
        await self._executor.begin("wait")
        return await asyncio.shield(self._exit)

    async def kill(self) -> None:
        await self._executor.begin("kill")
        if self.state == "running":
            self.end()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def remove(self) -> None:
        await self._executor.begin("remove")
        self.end()
        self._executor.containers.pop(self.id, None)

    async def usage(self) -> Usage | None:
        return None

    async def pause(self) -> None:
        await self._executor.begin("pause")
        self._turn(is_paused=True)

    async def resume(self) -> None:
        await self._executor.begin("resume")
        self._turn(is_paused=False)

    def _turn(self, *, is_paused: bool) -> None:
        if self.state != "running" or self.is_paused is is_paused:
            raise EngineError(f"the container is {self.state}{', and paused' if self.is_paused else ''}")
        self.is_paused = is_paused


class _Stdio:
    """Standard streams; output that comes while reading is paused is kept for later."""

    def __init__(self, container: InProcessContainer) -> None:
        self._container = container
        self._kept: deque[tuple[str, bytes]] = deque()
        self._is_paused = False
        self._is_ending = False
        self._is_ended = False

    def write(self, data: bytes) -> None:
        if not self._is_ended and data:
            self._container.stdin.feed_data(data)

    def write_eof(self) -> None:
        if not self._is_ended:
            self._container.stdin.feed_eof()

    async def drain(self) -> None:
        while not self._is_ended and len(self._container.stdin._buffer) > HIGH_WATER_BYTES:  # type: ignore[attr-defined]
            await asyncio.sleep(0)

    def pause_reading(self) -> None:
        self._is_paused = True

    def resume_reading(self) -> None:
        self._is_paused = False
        while self._kept and not self._is_paused:
            self._give(*self._kept.popleft())
        if self._is_ending and not self._is_paused:
            self.close()

    def deliver(self, how: str, data: bytes) -> None:
        if self._is_paused:
            self._kept.append((how, data))
        else:
            self._give(how, data)

    def end(self) -> None:
        """All output was written; the receiver hears it when it has all."""
        self._is_ending = True
        if not self._is_paused:
            self.close()

    def close(self) -> None:
        if not self._is_ended:
            self._is_ended = True
            assert self._container._receiver is not None
            self._container._receiver.output_ended()

    def _give(self, how: str, data: bytes) -> None:
        if not self._is_ended:
            getattr(self._container._receiver, how)(data)


def _is_an_executor(executor: InProcessExecutor) -> Executor:
    return executor
