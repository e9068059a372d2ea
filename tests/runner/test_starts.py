"""Who may make a container when only so many are made at a time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from faas.runner import starts as starts_module
from faas.runner.starts import Starts
from tests.support.programs import answer, http_stream
from tests.support.rig import a_function
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.runner.conftest import MakeRig
    from tests.support.inprocess import Process
    from tests.support.programs import FunctionRequest


class Line:
    """Works that take a place each, and say when they have it."""

    def __init__(self, starts: Starts) -> None:
        self.begun: list[str] = []
        self.go_on = asyncio.Event()
        self._starts = starts

    def join(self, key: str) -> asyncio.Task[None]:
        return asyncio.ensure_future(self._work(key))

    async def _work(self, key: str) -> None:
        async with self._starts.place(key):
            self.begun.append(key)
            await self.go_on.wait()


async def steps(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_functions_take_turns() -> None:
    line = Line(Starts(1))
    works = [line.join(key) for key in "aaabbc"]
    await steps()
    assert line.begun == ["a"]
    line.go_on.set()
    await asyncio.wait(works)
    assert "".join(line.begun) == "aabcab"


async def test_no_more_than_the_limit_begin() -> None:
    starts = Starts(2)
    line = Line(starts)
    works = [line.join("a") for _ in range(5)]
    await steps()
    assert line.begun == ["a", "a"]
    assert repr(starts) == "<Starts 0 free, 3 waiting>"
    line.go_on.set()
    await asyncio.wait(works)
    assert repr(starts) == "<Starts 2 free, 0 waiting>"


@pytest.mark.parametrize("at", range(8))
async def test_who_is_cancelled_at_any_step_keeps_no_place(at: int) -> None:
    starts = Starts(1)
    line = Line(starts)
    works = [line.join(key) for key in "aab"]
    line.go_on.set()
    await steps(at)
    works[1].cancel()
    await asyncio.wait(works)
    assert works[2].done()
    assert not works[2].cancelled()
    assert repr(starts) == "<Starts 1 free, 0 waiting>"


async def echo(request: FunctionRequest) -> bytes:
    return answer(request.body)


async def deaf(process: Process) -> None:
    await asyncio.Event().wait()


async def test_functions_that_never_listen_hold_nobody_up(make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts_module, "PATIENCE_S", 0.02)
    rig = await make_rig(deaf=deaf, echo=http_stream(echo))
    for _ in range(20):
        rig.call(a_function("deaf", memory_mib=8))
    await wait_until(lambda: rig.executor.verbs["start"] >= 4)
    _, sink = rig.call(a_function())
    await asyncio.wait_for(sink.ended.wait(), 4)
    assert sink.outcome == b"hello"
    assert rig.executor.verbs["start"] < 20, "not all of those before it had to begin first"


async def test_an_image_that_is_being_pulled_holds_nobody_up(make_rig: MakeRig) -> None:
    rig = await make_rig(echo=http_stream(echo), **{f"other{number}": http_stream(echo) for number in range(8)})
    await rig.ask(a_function())
    with rig.executor.hold("resolve_image"):
        for number in range(8):
            rig.call(a_function(f"other{number}", memory_mib=8))
        await wait_until(lambda: rig.executor.verbs["resolve_image"] == 9)
        assert (await rig.ask(a_function(config={"ANOTHER": "container"}))).outcome == b"hello"
