"""What queued calls pass through on a node: submission, worker, execution; their functions are of this process."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from faas.api.error_answer import render_error
from faas.calls.acceptance import Acceptance
from faas.calls.events import CallEvents
from faas.calls.execution import Execution
from faas.calls.memory_share import MemoryShare
from faas.calls.submission import Submission
from faas.calls.waiting import Waiters
from faas.metrics import Metrics
from faas.models import App, FormatName
from faas.queue.worker import Worker
from faas.recorder import Recorder
from faas.runner.functions import FunctionTable
from faas.sweeper import Sweeper
from faas.tasks import TaskSet
from tests.support.programs import FunctionRequest, answer, http_stream
from tests.support.rig import Rig, running_rig
from tests.support.samples import a_request, a_route

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from faas.models import Call
    from faas.queue.base import CallQueue
    from faas.runner.functions import Function
    from faas.store.engine import Store
    from tests.support.programs import Handler

__all__ = ["Crew", "echo", "working_crew"]

CONCURRENCY = 32
LEASE_S = 1.0


async def echo(request: FunctionRequest) -> bytes:
    """Answer with what came."""
    return answer(request.body)


@dataclass(eq=False)
class Crew:
    """One node's."""

    store: Store
    queue: CallQueue
    rig: Rig
    table: FunctionTable
    submission: Submission
    worker: Worker
    sweeper: Sweeper
    waiters: Waiters

    @property
    def function(self) -> Function:
        return self.table.get("demo", "/function")

    async def submit(self, body: bytes = b"hello") -> Call:
        return await self.submission.submit(self.function, a_request(body=body))


@asynccontextmanager
async def working_crew(
    store: Store,
    queue: CallQueue,
    folder: Path,
    *,
    handler: Handler = echo,
    without_queue: bool = False,
    lease_s: float = LEASE_S,
) -> AsyncIterator[Crew]:
    """A worker that fetches and runs what is submitted; when the block ends nothing may be left."""
    sockets = folder / "sockets"
    sockets.mkdir()
    metrics = Metrics()
    async with running_rig(sockets, {"function": http_stream(handler)}) as rig, TaskSet("crew") as tasks:
        table = FunctionTable(metrics)
        route = a_route(
            path="/function", image="function", format=FormatName.HTTP_STREAM, memory_mib=16, concurrency=CONCURRENCY
        )
        table.route_changed(App(name="demo"), route)
        recorder = Recorder(
            store.calls, metrics, node="me", recent_calls=10, per_second=1000, render_error=render_error
        )
        rig.agent._observe = recorder.observe
        waiters = Waiters()
        events = CallEvents(waiters)
        execution = Execution(
            store,
            rig.agent,
            table,
            recorder,
            events,
            node="me",
            max_attempts=5,
            max_result_bytes=1 << 20,
            render_error=render_error,
            share=MemoryShare(rig.capacity.total_mib),
        )
        worker = Worker(queue, execution.run, owner="me", concurrency=CONCURRENCY, lease_s=lease_s)
        sweeper = Sweeper(store.calls, queue, retention_s=3600, is_running_here=rig.agent.running.__contains__)
        submission = Submission(Acceptance(store.calls, queue, without_queue=without_queue), events)
        fetching = tasks.supervise(worker.fetch_forever(), name="fetch")
        tasks.supervise(worker.renew_forever(), name="renew")
        yield Crew(store, queue, rig, table, submission, worker, sweeper, waiters)
        fetching.cancel()
        await worker.close(5)
