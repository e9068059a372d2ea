"""The event loops of the tests: asyncio's; for those marked `both_loops` also uvloop, which the node runs on; for those
marked `stepped` one that stops between any two callbacks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import uvloop

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextvars import Context

    import pytest

__all__ = ["SteppedLoop", "pytest_asyncio_loop_factories"]


class SteppedLoop(asyncio.SelectorEventLoop):
    """Calls `on_step` after each callback, which is each stretch of a task from one await to the next."""

    on_step: Callable[[], None] | None = None

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.Handle:
        return super().call_soon(self._step, callback, args, context=context)

    def _step(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        callback(*args)
        if self.on_step is not None:
            self.on_step()


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.get_closest_marker("stepped"):
        return {"stepped": SteppedLoop}
    if item.get_closest_marker("both_loops"):
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}
