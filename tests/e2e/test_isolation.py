"""One function does not feel the load of another."""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx

from tests.e2e.wire import Wire
from tests.support.node import REQUEST_TIMEOUT_S, App
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.e2e.conftest import StartNode

CONTAINERS = 2
WAITING_CALLS = 200
SLEEP_MS = 500
"""The line moves, and uses hardly any CPU for it: whoever shares a machine feels that, with us or without."""

ROUNDS = 7
CALLS = 1000
"""Of a round; its 99th percentile is the tenth slowest."""

MOST_SLOWER = 1.2
ATTEMPTS = 3
"""The machine's other work is in the figures, too; a real dependence is there each time."""


async def test_a_saturated_function_does_not_slow_another_one_down(app: App) -> None:
    # A caller who hangs up on a shared container does not end it: between two rounds the engine has nothing to do.
    saturated = app.deploy("/saturated", "echo", max_concurrency=CONTAINERS, concurrency=2, idle_timeout=600)
    other = app.deploy("/other", "echo", max_concurrency=1)
    ratios: list[float] = []
    while len(ratios) < ATTEMPTS and not any(ratio <= MOST_SLOWER for ratio in ratios):
        alone, beside = [], []
        for _ in range(ROUNDS):
            alone.append(await p99_s(app, other))
            async with saturation(app, saturated):
                beside.append(await p99_s(app, other))
        ratios.append(statistics.median(beside) / statistics.median(alone))
    assert min(ratios) <= MOST_SLOWER, f"99th percentiles beside a saturated function, over those alone: {ratios}"


async def test_functions_that_never_listen_do_not_keep_another_from_starting(start_node: StartNode) -> None:
    node = start_node(max_parallel_starts=2, start_timeout_s=20)
    app = App(node)
    deaf = app.deploy("/deaf", "misfit", config={"MODE": "never_ready"}, memory=32)
    other = app.deploy("/other", "echo", memory=32)
    async with httpx.AsyncClient(base_url=node.url, timeout=REQUEST_TIMEOUT_S) as client:
        hopeless = [asyncio.ensure_future(client.post(deaf)) for _ in range(6)]
        await wait_until(lambda: len(app.running("/deaf")) >= 2)

        answer = await client.post(other, content=b"x")

        assert answer.status_code == 200
        assert not any(call.done() for call in hopeless), "it did not wait for the end of one of them"
        for call in hopeless:
            call.cancel()


async def p99_s(app: App, url: str) -> float:
    """The 99th percentile of calls one after the other, on one connection."""
    times = []
    async with Wire(app.node.url) as wire:
        for _ in range(CALLS):
            began = time.perf_counter()
            await wire.request(f"POST {url}", body=b"x")
            answer = await wire.answer()
            times.append(time.perf_counter() - began)
            assert answer.status == 200
    return statistics.quantiles(times, n=100)[-1]


@asynccontextmanager
async def saturation(app: App, url: str) -> AsyncIterator[None]:
    """All containers of a function are busy, and so many calls wait for them."""

    async def call_forever() -> None:
        async with Wire(app.node.url) as wire:
            while True:
                await wire.request(f"POST {url}", f"X-Sleep-Ms: {SLEEP_MS}", body=b"x")
                assert (await wire.answer()).status == 200

    callers = [asyncio.ensure_future(call_forever()) for _ in range(WAITING_CALLS + CONTAINERS * 2)]
    try:
        await wait_until(lambda: app.node.stats()["Queue"] >= WAITING_CALLS, timeout_s=60)
        yield
        assert app.node.stats()["Queue"] >= WAITING_CALLS - CONTAINERS * 2, "it was saturated all the time"
    finally:
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
        await wait_until(lambda: app.node.stats()["Running"] == 0)
