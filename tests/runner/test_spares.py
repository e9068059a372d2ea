"""Containers that are created ahead: whose they are, how many there are, and that none is left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from faas.errors import EngineError
from faas.models import FormatName
from tests.support.programs import answer, http_stream, stdio_http
from tests.support.rig import a_function
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.runner.conftest import MakeRig
    from tests.support.programs import FunctionRequest

LIMITS = {"max_spares": 2}


async def echo(request: FunctionRequest) -> bytes:
    return answer(request.body)


@pytest.mark.parametrize("hot_format", [FormatName.HTTP_STREAM, FormatName.HTTP])
async def test_the_second_container_of_a_function_was_created_ahead(make_rig: MakeRig, hot_format: FormatName) -> None:
    rig = await make_rig(
        echo=(http_stream if hot_format is FormatName.HTTP_STREAM else stdio_http)(echo), limits=LIMITS
    )
    function = a_function(format=hot_format, idle_timeout_s=0)
    await rig.ask(function)
    await wait_until(lambda: "created" in repr(rig.executor))
    await rig.containers(0)
    made = rig.executor.made
    invocation, sink = rig.call(function)
    await sink.ended.wait()
    assert sink.outcome == b"hello"
    assert invocation.launch is not None
    assert invocation.launch.create_s == 0
    assert rig.executor.made <= made + 1, "the next spare"


async def test_there_are_no_more_than_the_limit(make_rig: MakeRig) -> None:
    names = ["one", "two", "three"]
    rig = await make_rig(**dict.fromkeys(names, http_stream(echo)), limits=LIMITS)
    for name in names:
        await rig.ask(a_function(name))
    await rig.settled()
    await wait_until(lambda: repr(rig.executor) == "<InProcessExecutor 2 created, 3 running>")


async def test_a_changed_function_has_no_spare_of_before(make_rig: MakeRig) -> None:
    rig = await make_rig(echo=http_stream(echo), limits=LIMITS)
    function = a_function()
    await rig.ask(function)
    await wait_until(lambda: "created" in repr(rig.executor))
    rig.agent.keeper.retire(function.key)
    await wait_until(lambda: repr(rig.executor) == "<InProcessExecutor empty>")


async def test_a_function_that_is_changed_while_its_spare_is_made_has_none(make_rig: MakeRig) -> None:
    rig = await make_rig(echo=http_stream(echo), limits=LIMITS)
    function = a_function()
    with rig.executor.hold("start"):
        _, sink = rig.call(function)
        await wait_until(lambda: rig.executor.verbs["start"] == 1)
        create = rig.executor.hold("create")
        create.__enter__()
    await sink.ended.wait()
    await wait_until(lambda: rig.executor.verbs["create"] == 2)
    rig.agent.keeper.retire(function.key)
    create.__exit__(None, None, None)
    await wait_until(lambda: repr(rig.executor) == "<InProcessExecutor empty>")
    assert rig.executor.made == 2


async def test_a_function_that_is_changed_while_it_starts_has_no_spare(make_rig: MakeRig) -> None:
    rig = await make_rig(echo=http_stream(echo), limits=LIMITS)
    function = a_function()
    with rig.executor.hold("start"):
        _, sink = rig.call(function)
        await wait_until(lambda: rig.executor.verbs["start"] == 1)
        rig.agent.keeper.retire(function.key)
    await sink.ended.wait()
    await rig.settled()
    assert repr(rig.executor) == "<InProcessExecutor empty>"
    assert rig.executor.made == 1


async def test_a_spare_that_the_engine_does_not_remove_is_left_to_the_reaper(make_rig: MakeRig) -> None:
    rig = await make_rig(echo=http_stream(echo), limits=LIMITS)
    function = a_function()
    await rig.ask(function)
    await rig.settled()
    rig.executor.fail("remove", EngineError("device or resource busy"))
    rig.agent.keeper.retire(function.key)
    await rig.quiet()
    assert not rig.agent.keeper.containers
    rig.abandon()


async def test_a_spare_that_is_gone_costs_no_call(make_rig: MakeRig) -> None:
    rig = await make_rig(echo=http_stream(echo), limits=LIMITS)
    function = a_function(idle_timeout_s=0)
    await rig.ask(function)
    await wait_until(lambda: "created" in repr(rig.executor))
    await rig.containers(0)
    rig.executor.fail("start", EngineError("no such container"))
    assert (await rig.ask(function)).outcome == b"hello"
    await rig.settled()
    assert len(rig.agent.keeper.socket_dirs) == len(rig.agent.keeper.containers)


async def test_an_engine_that_refuses_a_spare_fails_nobody(make_rig: MakeRig) -> None:
    rig = await make_rig(echo=http_stream(echo), limits=LIMITS)
    function = a_function()
    with rig.executor.hold("start"):
        _, sink = rig.call(function)
        await wait_until(lambda: rig.executor.verbs["start"] == 1)
        rig.executor.fail("create", EngineError("no space left on device"))
    await sink.ended.wait()
    assert sink.outcome == b"hello"
    await rig.settled()
    assert repr(rig.executor) == "<InProcessExecutor 1 running>"
    assert len(rig.agent.keeper.socket_dirs) == 1
