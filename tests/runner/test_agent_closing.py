"""Closing and stopping at every step that calls take: whatever was half done, nothing is left of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from faas.errors import CallCancelledError
from faas.models import FormatName
from faas.runner import keeper as keeper_module
from tests.support.programs import FunctionRequest, answer, http_stream, stdio_http
from tests.support.rig import a_function, running_rig

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.inprocess import Process
    from tests.support.rig import Rig

pytestmark = pytest.mark.both_loops

STEPS = range(0, 60, 3)


async def echo(request: FunctionRequest) -> bytes:
    for _ in range(5):
        await asyncio.sleep(0)
    return answer(request.body, 200, "Connection: close")


async def cat(process: Process) -> None:
    process.write(await process.stdin.read())


PROGRAMS = {"stream": http_stream(echo), "stdio": stdio_http(echo), "cold": cat}


def start_some(rig: Rig) -> list[tuple[object, object]]:
    functions = [
        a_function("stream", max_concurrency=1),
        a_function("stdio", format=FormatName.HTTP),
        a_function("cold", format=FormatName.DEFAULT),
    ]
    return [rig.call(function) for function in functions for _ in range(2)]


async def steps(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "DIAGNOSIS_S", 0.02)


async def test_closing_at_any_step_ends_every_call_once_and_leaves_nothing(tmp_path: Path) -> None:
    for count in STEPS:
        root = tmp_path / str(count)
        root.mkdir()
        async with running_rig(root, PROGRAMS, memory_mib=512) as rig:
            calls = start_some(rig)
            await steps(count)
        assert all(sink.ended.is_set() for _, sink in calls), count  # type: ignore[attr-defined]
        assert not rig.agent.running


async def test_stopping_at_any_step_ends_every_call_once_and_the_node_serves_on(tmp_path: Path) -> None:
    for count in STEPS:
        root = tmp_path / str(count)
        root.mkdir()
        async with running_rig(root, PROGRAMS, memory_mib=512) as rig:
            calls = start_some(rig)
            await steps(count)
            for invocation, _ in calls[::2]:
                rig.agent.stop(invocation, CallCancelledError())  # type: ignore[arg-type]
            async with asyncio.timeout(10):
                for _, sink in calls:
                    await sink.ended.wait()  # type: ignore[attr-defined]
            outcomes = [sink.outcome for _, sink in calls]  # type: ignore[attr-defined]
            assert set(outcomes[::2]) <= {"cancelled", b"hello"}, count
            assert set(outcomes[1::2]) == {b"hello"}, count
            await rig.settled()


async def test_retiring_at_any_step_loses_no_call(tmp_path: Path) -> None:
    for count in STEPS:
        root = tmp_path / str(count)
        root.mkdir()
        async with running_rig(root, PROGRAMS, memory_mib=512) as rig:
            calls = start_some(rig)
            await steps(count)
            for invocation, _ in calls:
                rig.agent.pool.retire(invocation.function.key)  # type: ignore[attr-defined]
            async with asyncio.timeout(10):
                for _, sink in calls:
                    await sink.ended.wait()  # type: ignore[attr-defined]
            assert {sink.outcome for _, sink in calls} == {b"hello"}, count  # type: ignore[attr-defined]
            await rig.settled()


async def test_closing_does_not_wait_for_a_container_that_never_listens(tmp_path: Path) -> None:
    async def deaf(process: Process) -> None:
        await asyncio.Event().wait()

    async with running_rig(tmp_path, {"deaf": deaf}, start_timeout_s=3600.0) as rig:
        _, sink = rig.call(a_function("deaf"))
        await rig.containers(1)
    assert sink.outcome == "shutting_down"
