"""A route is changed while it is called without a pause: no call fails, and none runs with what is no longer true."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.e2e.wire import Wire
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.e2e.wire import Answer
    from tests.support.node import App

CALLERS = 8
CHANGES = 10
ANSWERS_BETWEEN = 40
"""So many of a version are seen before the next change: each caller has had its turn."""
STARTS_TIMEOUT_S = 60.0


class Callers:
    """Connections that are kept and call one function again and again; every answer is checked."""

    def __init__(self, app: App, url: str, version_of: Callable[[Answer], int]) -> None:
        self.answers: Counter[int] = Counter()
        """By version."""
        self._app = app
        self._url = url
        self._version_of = version_of
        self._begun = 0
        self._made = 0
        self._is_over = False

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[None]:
        """Call as long as the block runs; an answer that may not be fails it."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CALLERS):
                tasks.create_task(self._call())
            try:
                await self.answered(0)
                yield
            finally:
                self._is_over = True

    async def _call(self) -> None:
        async with Wire(self._app.node.url) as wire:
            while not self._is_over:
                oldest = self._made
                await wire.request(f"POST {self._url}", "X-Mode: env", body=b"x")
                answer = await wire.answer()
                assert answer.status == 200, answer
                version = self._version_of(answer)
                assert oldest <= version <= self._begun, answer
                self.answers[version] += 1

    def latest_of(self, *, is_odd: bool) -> int:
        """The newest version there may be of every other one."""
        return self._begun if self._begun % 2 == is_odd else self._begun - 1

    async def change(self, path: str, **fields: object) -> None:
        """Make the next version; from the return of this on there is no other."""
        self._begun += 1
        await asyncio.to_thread(self._app.change, path, **fields)
        self._made += 1
        await self.answered(self._made)

    async def answered(self, version: int) -> None:
        """Wait until a version has answered some calls more."""
        goal = self.answers[version] + ANSWERS_BETWEEN
        await wait_until(lambda: self.answers[version] >= goal, timeout_s=STARTS_TIMEOUT_S)


def environment_of(answer: Answer) -> dict[str, str]:
    environment: dict[str, str] = json.loads(answer.body)
    return environment


async def test_a_changed_configuration(app: App) -> None:
    url = app.deploy("/changed", "misfit", config={"VERSION": "0"}, concurrency=4)
    callers = Callers(app, url, lambda answer: int(environment_of(answer)["VERSION"]))
    async with callers.calling():
        for version in range(1, CHANGES + 1):
            await callers.change("/changed", config={"VERSION": str(version)})
    assert set(callers.answers) == set(range(CHANGES + 1))


async def test_a_changed_memory_limit(app: App) -> None:
    url = app.deploy("/changed", "misfit", memory=64, max_concurrency=2)
    callers = Callers(app, url, lambda answer: int(environment_of(answer)["FN_MEMORY"]) - 64)
    async with callers.calling():
        for version in range(1, CHANGES + 1):
            await callers.change("/changed", memory=64 + version)
    assert set(callers.answers) == set(range(CHANGES + 1))


async def test_a_changed_image(app: App) -> None:
    """The one answers its environment, the other the body; they take turns."""
    images = ["faas/test-misfit:local", "faas/test-echo:local"]
    url = app.deploy("/changed", "misfit", max_concurrency=2, concurrency=4)
    callers = Callers(app, url, lambda answer: callers.latest_of(is_odd=answer.body == b"x"))
    async with callers.calling():
        for version in range(1, CHANGES + 1):
            await callers.change("/changed", image=images[version % 2])
    assert set(callers.answers) == set(range(CHANGES + 1))


async def test_changed_numbers_keep_the_containers(app: App) -> None:
    url = app.deploy("/changed", "misfit", max_concurrency=4)
    callers = Callers(app, url, lambda _answer: 0)
    async with callers.calling():
        before = set(app.running("/changed"))
        for number in range(1, CHANGES + 1):
            await asyncio.to_thread(
                app.change, "/changed", timeout=30 + number, max_concurrency=4 + number, idle_timeout=60 + number
            )
            await callers.answered(0)
        assert before <= set(app.running("/changed"))


@pytest.mark.parametrize("shared", [1, 4])
async def test_a_change_that_does_not_start_is_refused_with_its_reason(app: App, shared: int) -> None:
    url = app.deploy("/changed", "misfit", config={"VERSION": "0"}, concurrency=shared)
    callers = Callers(app, url, lambda answer: int(environment_of(answer)["VERSION"]))
    broken = {"route": {"config": {"VERSION": "1", "MODE": "exit_before_ready"}}}

    async with callers.calling():
        with app.node.api() as api:
            answer = await asyncio.to_thread(api.patch, f"/v1/apps/{app.name}/routes/changed", json=broken)
            stored = (await asyncio.to_thread(api.get, f"/v1/apps/{app.name}/routes/changed")).json()["route"]
        await callers.answered(0)

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "change_not_started"
    assert "exit code 3" in answer.json()["error"]["message"]
    assert stored["config"] == {"VERSION": "0"}
    assert set(callers.answers) == {0}
