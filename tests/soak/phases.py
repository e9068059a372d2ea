"""What is done to a node: calls that end well, and calls that end in every other way."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from tests.soak.load import call_warm

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from tests.support.node import App

    Call = Callable[[httpx.AsyncClient, str], Awaitable[None]]

__all__ = ["PHASES", "WARM", "Phase"]

CONNECTIONS = 8
HANG_UP_AFTER_S = 0.05
TIMEOUT_S = 120.0
PIECE = bytes(64 * 1024)

KEPT = {"min_warm": 4, "max_concurrency": 4, "idle_timeout": 600, "memory": 32}
"""After whatever has happened to them there are four containers again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One function, called in one way."""

    name: str
    one_in: int
    """One of its calls for so many warm ones."""
    image: str
    call: Call | None = None
    """One call, and what must come of it; None: as fast as possible."""
    warm_up: int = 48
    """How many calls it takes at least until all that is needed at the same time is there."""
    route: Mapping[str, Any] = field(default_factory=lambda: KEPT)

    @property
    def path(self) -> str:
        return "/" + self.name.replace(" ", "-")

    def run(self, app: App, *, calls: int) -> float:
        """Make so many calls; returns how many were done a second."""
        url = f"{app.node.url}/r/{app.name}{self.path}"
        if self.call is None:
            return call_warm(url, calls=calls, connections=CONNECTIONS)
        began = time.monotonic()
        asyncio.run(_repeat(self.call, url, calls))
        return calls / (time.monotonic() - began)


async def _repeat(call: Call, url: str, calls: int) -> None:
    numbers = iter(range(calls))

    async def caller(client: httpx.AsyncClient) -> None:
        for _ in numbers:  # shared: each caller takes the next one
            await call(client, url)

    async with httpx.AsyncClient(timeout=TIMEOUT_S) as client, asyncio.TaskGroup() as tasks:
        for _ in range(CONNECTIONS):
            tasks.create_task(caller(client))


def _fails(code: str, *, mode: str) -> Call:
    """A call of the misfit that the platform answers with this error."""

    async def call(client: httpx.AsyncClient, url: str) -> None:
        answer = await client.post(url, headers={"X-Mode": mode})
        assert answer.headers.get("faas-error") == code, f"not {code}: {answer.status_code} {answer.text}"

    return call


async def _hang_up(client: httpx.AsyncClient, url: str) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(HANG_UP_AFTER_S):
            await client.post(url, headers={"X-Sleep-Ms": "10000"})
            raise AssertionError("it has answered")


async def _stream(client: httpx.AsyncClient, url: str) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield PIECE

    sent = await client.post(url, content=body())
    assert sent.text.startswith(f"{8 * len(PIECE)} "), sent.text
    got = await client.post(f"{url}?bytes=1000000&chunked=1")
    assert len(got.content) == 1_000_000


async def _cold(client: httpx.AsyncClient, url: str) -> None:
    answer = await client.post(url, content=b"cold")
    assert answer.content == b"cold", answer.text


async def _accept(client: httpx.AsyncClient, url: str) -> None:
    accepted = await client.post(url, content=b"later", headers={"Prefer": "respond-async"})
    assert accepted.status_code == 202, accepted.text
    location = httpx.URL(url).join(accepted.headers["location"])
    call = (await client.get(location, params={"wait": 60})).json()["call"]
    assert call["status"] == "success", call


async def _refused(client: httpx.AsyncClient, url: str) -> None:
    answer = await client.post(f"{url}/nowhere", content=b"x")
    assert answer.headers["faas-error"] == "route_not_found"


WARM = Phase(name="warm calls", one_in=1, image="echo")

PHASES = [
    Phase(name="calls of no route", one_in=200, image="echo", call=_refused),
    Phase(name="bodies in both directions", one_in=2_000, image="stream", call=_stream),
    # Requests of the control API leave objects that refer to each other, a hundred or two for each of these calls; the
    # garbage collector takes them when there are 25 000, and the node must have been there before it is looked at.
    Phase(name="async calls", one_in=500, image="echo", call=_accept, warm_up=1500),
    Phase(
        name="callers who hang up on a shared container",
        one_in=1_000,
        image="echo",
        call=_hang_up,
        route={**KEPT, "concurrency": 20},
    ),
    Phase(name="callers who hang up", one_in=5_000, image="echo", call=_hang_up),
    Phase(name="cold calls", one_in=10_000, image="cat", call=_cold, warm_up=CONNECTIONS, route={"memory": 32}),
    Phase(
        name="functions that die",
        one_in=10_000,
        image="misfit",
        call=_fails("protocol", mode="exit_midcall"),
        warm_up=CONNECTIONS,
    ),
    Phase(
        name="functions that talk nonsense",
        one_in=10_000,
        image="misfit",
        call=_fails("protocol", mode="garbage"),
        warm_up=CONNECTIONS,
    ),
    Phase(
        name="functions that take too long",
        one_in=10_000,
        image="misfit",
        call=_fails("timeout", mode="never"),
        warm_up=CONNECTIONS,
        route={**KEPT, "timeout": 1},
    ),
]
"""From the harmless to the worst."""
