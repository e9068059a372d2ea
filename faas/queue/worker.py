"""Runs queued calls: fetch -> run -> settle, with a lease that is renewed while a call runs.

The renewing is done here, by the supervisor, and never by what is run; a lease that was lost all the same ends the
run, because somebody else has the call now.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING

from faas.clock import utc_now
from faas.errors import FaasError
from faas.queue.base import BesideRecords
from faas.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from faas.queue.base import CallQueue, Lease

__all__ = ["Worker"]

logger = logging.getLogger(__name__)

FETCH_WAIT_S = 2.0
"""How long one fetch waits for work; a stop is noticed at once all the same."""

BACKEND_RETRY_S = 1.0
"""Pause when the queue does not answer."""

CRASH_RETRY_S = 5.0
"""Pause before a call runs again whose run raised what nobody expected."""


class Worker:
    """A node's consumer of the queue.

    `run(call_id)` runs a call to its end and returns None, or the seconds after which it should run again.
    """

    def __init__(
        self,
        queue: CallQueue,
        run: Callable[[str], Awaitable[float | None]],
        *,
        owner: str,
        concurrency: int,
        lease_s: float,
    ) -> None:
        self._queue = queue
        self._run = run
        self._owner = owner
        self._concurrency = concurrency
        self._lease_s = lease_s
        self._tasks = TaskSet("worker")
        self._active: dict[str, tuple[Lease, asyncio.Task[None]]] = {}
        self._slot_freed = asyncio.Event()
        self._must_ack = not isinstance(queue, BesideRecords)

    def __repr__(self) -> str:
        return f"<Worker {len(self._active)} of {self._concurrency} busy>"

    async def fetch_forever(self) -> None:
        """Lease calls as slots are free, start a run for each."""
        while True:
            free = self._concurrency - len(self._active)
            if free <= 0:
                self._slot_freed.clear()
                await self._slot_freed.wait()
                continue
            try:
                leases = await self._queue.lease(
                    owner=self._owner, max_count=free, lease_s=self._lease_s, wait_s=FETCH_WAIT_S
                )
            except FaasError as error:
                logger.warning("queue_unavailable", extra={"error": error.message})
                await asyncio.sleep(BACKEND_RETRY_S)
                continue
            for lease in leases:
                running = self._active.get(lease.call_id)
                # A call that runs here already: its lease ran out while the queue was away, the run has the new one.
                task = running[1] if running else self._tasks.spawn(self._attend(lease.call_id), name=lease.call_id)
                self._active[lease.call_id] = (lease, task)

    async def renew_forever(self) -> None:
        """Hold the leases of running calls; end the run of one that was lost.

        It counts as lost when it is the second time: a call that has ended is gone from the queue a moment before its
        run knows that it is through.
        """
        suspected: dict[str, tuple[Lease, asyncio.Task[None]]] = {}
        while True:
            await asyncio.sleep(self._lease_s / 3)
            active = dict(self._active)
            if not active:
                continue
            try:
                lost = await self._queue.renew([lease for lease, _ in active.values()], lease_s=self._lease_s)
            except FaasError as error:
                logger.warning("leases_not_renewed", extra={"error": error.message})
                continue
            # Those neither settled nor leased again meanwhile.
            gone = {call_id: active[call_id] for call_id in lost if self._active.get(call_id) is active[call_id]}
            for call_id, entry in gone.items():
                if suspected.get(call_id) is entry:
                    logger.warning("lease_lost", extra={"call_id": call_id})
                    entry[1].cancel()
            suspected = gone

    async def close(self, grace_s: float) -> int:
        """Wait for the running calls, give back those that don't end in time; returns how many those were.

        `fetch_forever` and `renew_forever` belong to the caller: end the first before this, the second after.
        """
        left = await self._tasks.wait(grace_s)
        await self._tasks.cancel()
        return left

    async def _attend(self, call_id: str) -> None:
        try:
            again_after_s = await self._run(call_id)
        except asyncio.CancelledError:
            await asyncio.shield(self._settle(call_id, 0.0))
            raise
        except Exception:
            logger.exception("run_crashed", extra={"call_id": call_id})
            again_after_s = CRASH_RETRY_S
        await self._settle(call_id, again_after_s)

    async def _settle(self, call_id: str, again_after_s: float | None) -> None:
        lease, _ = self._active[call_id]
        try:
            if again_after_s is None:
                if self._must_ack:
                    await self._queue.ack(lease)
            elif again_after_s:
                await self._queue.release(lease, not_before=utc_now() + timedelta(seconds=again_after_s))
            else:
                await self._queue.release(lease)
        except FaasError as error:
            # The lease runs out by itself; whoever takes the call then finds in its record what is left to do.
            logger.warning("call_not_settled", extra={"call_id": call_id, "error": error.message})
        finally:
            self._active.pop(call_id, None)
            self._slot_freed.set()
