"""Wait for a condition instead of sleeping for a guess."""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["wait_until", "wait_until_blocking"]

POLL_S = 0.01


async def wait_until(condition: Callable[[], object | Awaitable[object]], *, timeout_s: float = 10.0) -> None:
    """Return as soon as the condition (plain or async) is true; fail when it never was."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return
        assert time.monotonic() < deadline, f"not true within {timeout_s} s: {condition}"
        await asyncio.sleep(POLL_S)


def wait_until_blocking(condition: Callable[[], object], *, timeout_s: float = 10.0) -> None:
    """The same for code outside an event loop."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not true within {timeout_s} s: {condition}"
        time.sleep(POLL_S)
