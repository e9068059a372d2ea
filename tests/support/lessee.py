"""A node's worker in a process of its own, to be killed: `python -m tests.support.lessee URL LEASE_S`.

It leases what there is, says so on its standard output, a call id a line, and never finishes a call.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack

from faas.queue.redis import open_redis_queue
from faas.queue.sql import SqlQueue
from faas.queue.worker import Worker
from faas.store.engine import open_store
from faas.tasks import TaskSet


async def run(call_id: str) -> float | None:
    print(call_id, flush=True)
    await asyncio.Event().wait()
    return None


async def main(url: str, lease_s: float) -> None:
    async with AsyncExitStack() as stack:
        if url.startswith("redis"):
            queue = await stack.enter_async_context(open_redis_queue(url))
        else:
            queue = SqlQueue((await stack.enter_async_context(open_store(url))).database)
        worker = Worker(queue, run, owner="killed", concurrency=8, lease_s=lease_s)
        async with TaskSet("lessee") as tasks:
            tasks.supervise(worker.fetch_forever(), name="fetch")
            await worker.renew_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
