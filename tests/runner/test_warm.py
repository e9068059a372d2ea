"""Containers that are kept ready, paused, and made ahead of a change."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from faas.errors import ChangeNotStartedError, EngineError
from tests.support.programs import answer, http_stream
from tests.support.rig import a_function
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.runner.conftest import MakeRig
    from tests.support.inprocess import Process
    from tests.support.programs import FunctionRequest

FREEZE_MS = 1


async def echo(request: FunctionRequest) -> bytes:
    return answer(request.body)


# --- min_warm


async def test_containers_are_kept_ready_for_who_asks_for_it(make_rig: MakeRig) -> None:
    rig = await make_rig(echo=http_stream(echo))
    function = a_function(min_warm=2)
    rig.agent.pool.adopt(function)
    await rig.containers(2)
    await wait_until(lambda: "2 idle" in repr(next(iter(rig.agent.pool))))
    invocation, sink = rig.call(function)
    await sink.ended.wait()
    assert invocation.launch is None, "it did not wait for a start"
    rig.agent.pool.retire(function.key)
    await rig.containers(0)


async def test_one_that_dies_is_replaced(make_rig: MakeRig) -> None:
    rig = await make_rig(echo=http_stream(echo))
    rig.agent.pool.adopt(a_function(min_warm=1))
    (container,) = await rig.containers(1)
    await container.kill()
    await wait_until(lambda: rig.executor.made == 2)
    await rig.containers(1)


async def test_idle_ones_end_down_to_the_number_that_is_kept(make_rig: MakeRig) -> None:
    rig = await make_rig(echo=http_stream(echo))
    function = a_function(min_warm=1, idle_timeout_s=0)
    rig.agent.pool.adopt(function)
    await asyncio.gather(*(rig.ask(function) for _ in range(3)))
    await rig.containers(1)
    rig.agent.pool.sweep()
    await rig.settled()
    assert repr(rig.executor) == "<InProcessExecutor 1 running>"


async def test_kept_ones_make_no_room_for_other_functions(make_rig: MakeRig) -> None:
    rig = await make_rig(memory_mib=256, echo=http_stream(echo), other=http_stream(echo))
    rig.agent.pool.adopt(a_function(min_warm=1, memory_mib=128))
    await rig.containers(1)
    sink = await rig.ask(a_function("other", memory_mib=200), queue_timeout_s=0.3)
    assert sink.outcome == "no_capacity"
    assert repr(rig.executor) == "<InProcessExecutor 1 running>"


async def test_a_function_that_does_not_start_is_tried_again_after_a_pause(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = await make_rig(echo=http_stream(echo))
    for _ in range(2):
        rig.executor.fail("create", EngineError("no space left on device"))
    monkeypatch.setattr("faas.runner.function_pool.FIRST_RETRY_S", 0.05)
    function = a_function(min_warm=1)
    rig.agent.pool.adopt(function)
    await rig.containers(1)
    assert (await rig.ask(function)).outcome == b"hello"


async def test_numbers_change_without_a_new_container(make_rig: MakeRig) -> None:
    rig = await make_rig(echo=http_stream(echo))
    function = a_function(min_warm=1, idle_timeout_s=30)
    rig.agent.pool.adopt(function)
    await rig.containers(1)
    changed = a_function(min_warm=0, idle_timeout_s=0)
    assert changed.key == function.key
    rig.agent.pool.adopt(changed)
    await rig.containers(0)
    assert rig.executor.made == 1


# --- freezing


async def frozen(rig, function) -> None:  # type: ignore[no-untyped-def]
    await rig.ask(function)
    await wait_until(lambda: "frozen" in repr(next(iter(rig.agent.pool))))
    await rig.settled()


async def test_an_idle_container_is_paused_and_resumed_by_the_next_call(make_rig: MakeRig) -> None:
    rig = await make_rig(echo=http_stream(echo))
    function = a_function(freeze_ms=FREEZE_MS)
    await frozen(rig, function)
    (container,) = rig.executor.running
    assert container.is_paused
    assert (await rig.ask(function)).outcome == b"hello"
    assert rig.executor.made == 1


async def test_a_call_that_comes_while_its_container_is_being_paused_is_served_by_it(make_rig: MakeRig) -> None:
    rig = await make_rig(echo=http_stream(echo))
    function = a_function(freeze_ms=FREEZE_MS)
    await rig.ask(function)
    with rig.executor.hold("pause"):
        await wait_until(lambda: rig.executor.verbs["pause"] == 1)
        _, sink = rig.call(function)
    await sink.ended.wait()
    assert sink.outcome == b"hello"
    assert rig.executor.made == 1


@pytest.mark.parametrize("verb", ["pause", "resume"])
async def test_a_pause_or_resume_that_fails_loses_no_call(make_rig: MakeRig, verb: str) -> None:
    rig = await make_rig(echo=http_stream(echo))
    function = a_function(freeze_ms=FREEZE_MS, max_concurrency=1)
    rig.executor.fail(verb, EngineError("cgroup is gone"))
    await rig.ask(function)
    await wait_until(lambda: rig.executor.verbs["pause"] == 1)
    assert (await rig.ask(function)).outcome == b"hello"
    await wait_until(lambda: rig.executor.made == 2)


async def test_a_frozen_container_ends_when_it_was_idle_too_long(make_rig: MakeRig) -> None:
    rig = await make_rig(echo=http_stream(echo))
    function = a_function(freeze_ms=FREEZE_MS, idle_timeout_s=1)
    await frozen(rig, function)
    await rig.containers(0)


async def test_a_frozen_container_makes_room_for_other_functions(make_rig: MakeRig) -> None:
    rig = await make_rig(memory_mib=128, echo=http_stream(echo), other=http_stream(echo))
    await frozen(rig, a_function(freeze_ms=FREEZE_MS, memory_mib=100))
    assert (await rig.ask(a_function("other", memory_mib=100))).outcome == b"hello"


async def test_a_frozen_container_of_a_changed_function_ends(make_rig: MakeRig) -> None:
    rig = await make_rig(echo=http_stream(echo))
    function = a_function(freeze_ms=FREEZE_MS)
    await frozen(rig, function)
    rig.agent.pool.retire(function.key)
    await rig.containers(0)


# --- before a change


async def test_a_change_of_a_function_in_use_finds_its_containers_ready(make_rig: MakeRig) -> None:
    rig = await make_rig(echo=http_stream(echo))
    old, new = a_function(), a_function(config={"VERSION": "2"})
    await rig.ask(old)
    await rig.agent.keeper.prepare(new, old.key)
    invocation, sink = rig.call(new)
    await sink.ended.wait()
    assert invocation.launch is None, "it did not wait for a start"


async def test_as_many_are_made_ready_as_are_in_use(make_rig: MakeRig) -> None:
    inside = 0
    go_on = asyncio.Event()

    async def slow(request: FunctionRequest) -> bytes:
        nonlocal inside
        inside += 1
        await go_on.wait()
        return answer(request.body)

    rig = await make_rig(slow=http_stream(slow))
    old, new = a_function("slow"), a_function("slow", config={"VERSION": "2"})
    for _ in range(3):
        rig.call(old)
    await wait_until(lambda: inside == 3)
    await rig.agent.keeper.prepare(new, old.key)
    assert repr(rig.executor) == "<InProcessExecutor 6 running>"
    go_on.set()


async def test_what_was_in_use_a_moment_ago_counts(make_rig: MakeRig) -> None:
    rig = await make_rig(echo=http_stream(echo))
    old, new = a_function(), a_function(config={"VERSION": "2"})
    await asyncio.gather(*(rig.ask(old) for _ in range(3)))
    count = len(rig.executor.running)
    await rig.agent.keeper.prepare(new, old.key)
    assert len(rig.executor.running) == 2 * count


async def test_a_change_that_does_not_start_is_told(make_rig: MakeRig) -> None:
    async def broken(process: Process) -> int:
        if "VERSION" in process.env:
            return 3
        await http_stream(echo)(process)
        return 0

    rig = await make_rig(echo=broken)
    old, new = a_function(), a_function(config={"VERSION": "2"})
    await rig.ask(old)
    with pytest.raises(ChangeNotStartedError, match="exit code 3"):
        await rig.agent.keeper.prepare(new, old.key)
    assert (await rig.ask(old)).outcome == b"hello"


async def test_a_function_that_is_not_in_use_is_not_started_for_a_change(make_rig: MakeRig) -> None:
    rig = await make_rig(echo=http_stream(echo))
    await rig.agent.keeper.prepare(a_function(config={"VERSION": "2"}), a_function().key)
    assert rig.executor.made == 0


async def test_a_change_does_not_wait_for_memory_that_is_in_use(make_rig: MakeRig) -> None:
    rig = await make_rig(memory_mib=128, echo=http_stream(echo))
    old = a_function(memory_mib=128)
    await rig.ask(old)
    await rig.agent.keeper.prepare(a_function(memory_mib=128, config={"VERSION": "2"}), old.key)
    assert rig.executor.made == 1


async def test_who_prepares_a_change_hears_that_the_node_closes(make_rig: MakeRig) -> None:
    async def deaf(process: Process) -> None:
        if "VERSION" in process.env:
            await asyncio.Event().wait()
        await http_stream(echo)(process)

    rig = await make_rig(echo=deaf)
    old, new = a_function(), a_function(config={"VERSION": "2"})
    await rig.ask(old)
    preparing = asyncio.ensure_future(rig.agent.keeper.prepare(new, old.key))
    await rig.containers(2)
    await rig.agent.close(0)
    with pytest.raises(ChangeNotStartedError, match="shutting down"):
        await preparing
