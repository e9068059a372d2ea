"""Fetch, run, settle, and the lease in between; the queue is one whose every fault the test decides."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from faas.clock import utc_now
from faas.errors import QueueUnavailableError
from faas.queue import worker as worker_module
from faas.queue.base import Lease
from faas.queue.worker import Worker
from faas.tasks import TaskSet
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection
    from datetime import datetime

pytestmark = pytest.mark.both_loops

LEASE_S = 0.06


@dataclass(eq=False)
class ScriptedQueue:
    """As much of a call queue as a worker uses."""

    waiting: list[str] = field(default_factory=list)
    held: dict[str, Lease] = field(default_factory=dict)
    acked: list[str] = field(default_factory=list)
    released: list[tuple[str, datetime | None]] = field(default_factory=list)
    renewals: int = 0
    is_down: bool = False
    most_asked_for: int = 0
    tokens: int = 0

    def _check(self) -> None:
        if self.is_down:
            raise QueueUnavailableError("The queue does not answer")

    def expire(self, call_id: str) -> None:
        """The lease ran out: somebody else may have the call."""
        del self.held[call_id]

    async def lease(self, *, owner: str, max_count: int, lease_s: float, wait_s: float) -> list[Lease]:
        self._check()
        assert max_count > 0
        self.most_asked_for = max(self.most_asked_for, max_count)
        if not self.waiting:
            await asyncio.sleep(0.002)
        taken, self.waiting = self.waiting[:max_count], self.waiting[max_count:]
        leases = []
        for call_id in taken:
            self.tokens += 1
            self.held[call_id] = Lease(call_id=call_id, token=str(self.tokens))
            leases.append(self.held[call_id])
        return leases

    async def renew(self, leases: Collection[Lease], *, lease_s: float) -> set[str]:
        self._check()
        self.renewals += 1
        return {lease.call_id for lease in leases if self.held.get(lease.call_id) != lease}

    async def ack(self, lease: Lease) -> bool:
        await asyncio.sleep(0)
        self._check()
        if self.held.get(lease.call_id) != lease:
            return False
        del self.held[lease.call_id]
        self.acked.append(lease.call_id)
        return True

    async def release(self, lease: Lease, *, not_before: datetime | None = None) -> bool:
        await asyncio.sleep(0)
        self._check()
        if self.held.get(lease.call_id) != lease:
            return False
        del self.held[lease.call_id]
        self.released.append((lease.call_id, not_before))
        return True


@dataclass(eq=False)
class Runs:
    """What the worker runs; each call ends when the test says so."""

    began: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    ends: dict[str, asyncio.Future[float | None]] = field(default_factory=dict)

    async def __call__(self, call_id: str) -> float | None:
        self.began.append(call_id)
        self.ends[call_id] = asyncio.get_running_loop().create_future()
        try:
            return await self.ends[call_id]
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # killing takes a moment
            self.cancelled.append(call_id)
            raise


@pytest.fixture
def queue() -> ScriptedQueue:
    return ScriptedQueue()


@pytest.fixture
def runs() -> Runs:
    return Runs()


@asynccontextmanager
async def working(queue: ScriptedQueue, runs: Runs, *, concurrency: int = 2) -> AsyncIterator[Worker]:
    worker = Worker(queue, runs, owner="me", concurrency=concurrency, lease_s=LEASE_S)  # type: ignore[arg-type]
    async with TaskSet("test") as tasks:
        tasks.supervise(worker.fetch_forever(), name="fetch")
        tasks.supervise(worker.renew_forever(), name="renew")
        yield worker
    await worker.close(0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "BACKEND_RETRY_S", 0.005)


async def test_a_call_that_ended_is_acknowledged_after_its_run(queue: ScriptedQueue, runs: Runs) -> None:
    async with working(queue, runs) as worker:
        queue.waiting = ["a"]
        await wait_until(lambda: runs.began)
        assert repr(worker) == "<Worker 1 of 2 busy>"
        assert not queue.acked
        runs.ends["a"].set_result(None)
        await wait_until(lambda: queue.acked)
        assert repr(worker) == "<Worker 0 of 2 busy>"


async def test_no_more_calls_are_leased_than_there_are_slots(queue: ScriptedQueue, runs: Runs) -> None:
    queue.waiting = ["a", "b", "c", "d"]
    async with working(queue, runs):
        await wait_until(lambda: len(runs.began) == 2)
        await asyncio.sleep(0.01)
        assert queue.waiting == ["c", "d"]
        runs.ends["b"].set_result(None)
        await wait_until(lambda: runs.began == ["a", "b", "c"])
        assert queue.most_asked_for == 2
        for call_id in ("a", "c"):
            runs.ends[call_id].set_result(None)
        await wait_until(lambda: "d" in runs.began)


async def test_a_call_that_should_run_again_is_given_back_for_later(queue: ScriptedQueue, runs: Runs) -> None:
    async with working(queue, runs):
        queue.waiting = ["a"]
        await wait_until(lambda: runs.began)
        runs.ends["a"].set_result(30.0)
        await wait_until(lambda: queue.released)
    ((call_id, not_before),) = queue.released
    assert call_id == "a"
    assert not_before is not None
    assert 25 < (not_before - utc_now()).total_seconds() <= 30


async def test_a_run_that_crashes_is_logged_and_tried_again_later(
    queue: ScriptedQueue, runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    async with working(queue, runs):
        queue.waiting = ["a"]
        await wait_until(lambda: runs.began)
        runs.ends["a"].set_exception(ZeroDivisionError())
        await wait_until(lambda: queue.released)
    assert queue.released[0][1] is not None
    assert "run_crashed" in caplog.text


async def test_leases_are_renewed_while_calls_run(queue: ScriptedQueue, runs: Runs) -> None:
    async with working(queue, runs):
        queue.waiting = ["a"]
        await wait_until(lambda: queue.renewals >= 3)
        assert runs.cancelled == []
        runs.ends["a"].set_result(None)
        await wait_until(lambda: queue.acked)


async def test_a_lost_lease_ends_the_run_and_frees_the_slot(queue: ScriptedQueue, runs: Runs) -> None:
    async with working(queue, runs, concurrency=1) as worker:
        queue.waiting = ["a"]
        await wait_until(lambda: runs.began)
        queue.expire("a")
        await wait_until(lambda: runs.cancelled == ["a"])
        await wait_until(lambda: repr(worker) == "<Worker 0 of 1 busy>")
        assert (queue.acked, queue.released) == ([], [])
        queue.waiting = ["b"]
        await wait_until(lambda: runs.began == ["a", "b"])


async def test_a_run_that_ends_while_its_call_is_gone_from_the_queue_already_is_left_alone(runs: Runs) -> None:
    class EndingQueue(ScriptedQueue):
        async def renew(self, leases: Collection[Lease], *, lease_s: float) -> set[str]:
            lost = await super().renew(leases, lease_s=lease_s)
            asyncio.get_running_loop().call_later(0.001, runs.ends["a"].set_result, None)
            return lost

    queue = EndingQueue()
    async with working(queue, runs) as worker:
        queue.waiting = ["a"]
        await wait_until(lambda: runs.began)
        queue.expire("a")
        await wait_until(lambda: repr(worker) == "<Worker 0 of 2 busy>")
        assert runs.cancelled == []


async def test_a_queue_that_goes_away_and_comes_back_loses_no_run(queue: ScriptedQueue, runs: Runs) -> None:
    async with working(queue, runs):
        queue.waiting = ["a"]
        await wait_until(lambda: runs.began)
        queue.is_down = True
        await asyncio.sleep(LEASE_S)
        assert runs.cancelled == []
        queue.waiting = ["b"]
        queue.is_down = False
        await wait_until(lambda: runs.began == ["a", "b"])
        for call_id in "ab":
            runs.ends[call_id].set_result(None)
        await wait_until(lambda: sorted(queue.acked) == ["a", "b"])


async def test_a_call_that_cannot_be_settled_frees_its_slot(queue: ScriptedQueue, runs: Runs) -> None:
    async with working(queue, runs, concurrency=1) as worker:
        queue.waiting = ["a"]
        await wait_until(lambda: runs.began)
        queue.is_down = True
        runs.ends["a"].set_result(None)
        await wait_until(lambda: repr(worker) == "<Worker 0 of 1 busy>")
        assert queue.acked == []


async def test_a_call_whose_lease_ran_out_and_came_back_here_runs_once_under_the_new_lease(
    queue: ScriptedQueue, runs: Runs
) -> None:
    async with working(queue, runs) as worker:
        queue.waiting = ["a"]
        await wait_until(lambda: runs.began)
        queue.waiting = ["a"]
        await wait_until(lambda: queue.tokens == 2)
        renewals = queue.renewals
        await wait_until(lambda: queue.renewals >= renewals + 2)
        assert (runs.began, runs.cancelled) == (["a"], [])
        assert repr(worker) == "<Worker 1 of 2 busy>"
        runs.ends["a"].set_result(None)
        await wait_until(lambda: queue.acked == ["a"])


async def test_closing_waits_for_runs_and_gives_back_what_does_not_end(queue: ScriptedQueue, runs: Runs) -> None:
    worker = Worker(queue, runs, owner="me", concurrency=2, lease_s=LEASE_S)  # type: ignore[arg-type]
    async with TaskSet("test") as tasks:
        fetching = tasks.supervise(worker.fetch_forever(), name="fetch")
        queue.waiting = ["short", "long"]
        await wait_until(lambda: len(runs.began) == 2)
        fetching.cancel()
        asyncio.get_running_loop().call_later(0.005, runs.ends["short"].set_result, None)
        assert await worker.close(0.05) == 1
    assert queue.acked == ["short"]
    assert queue.released == [("long", None)]
    assert runs.cancelled == ["long"]
    assert queue.held == {}
