"""The same piece of work again and again, disturbed one step later each time, until it is over before the disturbance.

A step is a stretch of code from one await to the next; the books are audited after each of them.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from tests.support.audit import audit, audit_settled
from tests.support.loops import SteppedLoop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.support.rig import Rig

__all__ = ["Steps", "at_every_step"]

STRIDE = int(os.environ.get("FAAS_TEST_STRIDE", "7"))
"""Every how many steps the work is disturbed; at each of them (1) it takes some minutes."""

TIMEOUT_S = 10.0


class Steps:
    """One time: the work runs to its end, and is disturbed at one step."""

    def __init__(self, rig: Rig, at: int) -> None:
        self.at = at
        """The step after which the work is disturbed, from 1."""
        self.is_disturbed = False
        self._rig = rig
        self._count = 0
        self._disturb: Callable[[], object]
        self._failure: Exception | None = None

    async def run(self, disturb: Callable[[], object], *, until: asyncio.Future[Any] | None = None) -> None:
        """Return when no call runs and the agent has no task, and `until` is done.

        Raises what the audit found on the way.
        """
        loop, agent = asyncio.get_running_loop(), self._rig.agent
        assert isinstance(loop, SteppedLoop)
        self._disturb = disturb
        loop.on_step = self._stepped
        try:
            async with asyncio.timeout(TIMEOUT_S):
                while agent.running or len(agent._tasks) or not (until is None or until.done()):
                    await agent._tasks.wait(TIMEOUT_S)
                    await asyncio.sleep(0)
        finally:
            loop.on_step = None
        if self._failure is not None:
            raise self._failure
        audit_settled(agent, self._rig.executor)

    def _stepped(self) -> None:
        self._count += 1
        try:
            audit(self._rig.agent)
            if self._count == self.at:
                self.is_disturbed = True
                self._disturb()
                audit(self._rig.agent)
        except Exception as failure:  # noqa: BLE001 - the loop would only log it
            self._failure = self._failure or failure


async def at_every_step(rig: Rig, once: Callable[[Steps], Awaitable[None]], *, first: int = 1) -> int:
    """Do `once` until its `Steps.run` ends before it would be disturbed; returns how often it was.

    What it asserts names the step. Not every step is tried in every run of the tests, see `STRIDE`: work that many
    tests have in common begins at another one in each.
    """
    at = min(first, STRIDE)
    count = 0
    while True:
        steps = Steps(rig, at)
        try:
            await once(steps)
            audit_settled(rig.agent, rig.executor)
        except Exception as error:
            error.add_note(f"disturbed after step {at}")
            raise
        rig.forget_dead()
        if not steps.is_disturbed:
            return count
        count += 1
        at += STRIDE
