"""A node that is killed: what it ran goes to another one soon, and not before."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from faas.clock import monotonic
from faas.config import Settings
from faas.queue import sql
from faas.queue.worker import Worker
from faas.tasks import TaskSet
from tests.contract.queues import dispatched
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from faas.queue.base import CallQueue

LEASE_S = 1.0
RECOVERY_S = 15.0
"""The promise."""


async def test_a_killed_nodes_calls_run_on_another_one_when_their_lease_is_over(
    nodes: tuple[CallQueue, CallQueue], queue_url: str
) -> None:
    queue, _ = nodes
    ids = await dispatched(queue, 3)
    node = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.lessee", queue_url, str(LEASE_S), stdout=asyncio.subprocess.PIPE
    )
    assert node.stdout is not None
    try:
        leased = {(await node.stdout.readline()).decode().strip() for _ in ids}
        assert leased == set(ids)
        seen: dict[str, float] = {}

        async def run(call_id: str) -> float | None:
            seen[call_id] = monotonic()
            return None

        worker = Worker(queue, run, owner="other", concurrency=8, lease_s=LEASE_S)
        async with TaskSet("test") as tasks:
            tasks.supervise(worker.fetch_forever(), name="fetch")
            await asyncio.sleep(1.5 * LEASE_S)  # the living one holds its calls, however long they run
            assert not seen
            node.kill()
            killed_at = monotonic()
            await wait_until(lambda: seen.keys() == set(ids))
    finally:
        if node.returncode is None:
            node.kill()
        await node.wait()
    assert max(seen.values()) - killed_at < LEASE_S + sql.POLL_S + 1.0


def test_the_default_lease_keeps_the_promise() -> None:
    assert Settings().lease_s + sql.POLL_S < RECOVERY_S
