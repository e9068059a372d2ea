"""Calls in containers of their own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from faas.errors import CallCancelledError, EngineError, EngineUnavailableError
from faas.models import FormatName
from faas.runner import agent as agent_module
from faas.runner import keeper as keeper_module
from faas.runner.formats import default as default_format
from faas.runner.invocation import State
from tests.support.rig import KeepingSink, a_function
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from faas.runner.functions import Function
    from tests.runner.conftest import MakeRig
    from tests.support.inprocess import Process

pytestmark = pytest.mark.both_loops


def a_cold_function(image: str, **changes: object) -> Function:
    return a_function(image, format=FormatName.DEFAULT, **changes)


async def cat(process: Process) -> None:
    process.write(await process.stdin.read())


async def forever(process: Process) -> None:
    await asyncio.Event().wait()


async def test_body_goes_in_output_comes_out_and_the_container_is_gone(make_rig: MakeRig) -> None:
    rig = await make_rig(cat=cat)
    sink = await rig.ask(a_cold_function("cat"))
    assert (sink.status, sink.headers, sink.content_length) == (
        200,
        [(b"content-type", b"text/plain; charset=utf-8")],
        5,
    )
    assert sink.outcome == b"hello"
    assert sink.live_at_end == 0
    await rig.settled()
    assert repr(rig.executor) == "<InProcessExecutor empty>"


async def test_an_exit_code_is_the_outcome_and_standard_error_the_log(make_rig: MakeRig) -> None:
    async def failing(process: Process) -> int:
        process.write(b"half an answer")
        process.write_error(b"no such table\n")
        return 3

    rig = await make_rig(failing=failing)
    sink = await rig.ask(a_cold_function("failing"))
    assert (sink.outcome, sink.status) == ("bad_exit", 0)
    (invocation,) = rig.observed
    assert invocation.exit_code == 3
    assert invocation.log is not None
    assert invocation.log.getvalue() == b"no such table\n"


async def test_a_process_that_does_not_read_its_input_answers_all_the_same(make_rig: MakeRig) -> None:
    async def deaf(process: Process) -> None:
        process.write(b"never mind")

    rig = await make_rig(deaf=deaf)
    assert (await rig.ask(a_cold_function("deaf"), body=b"x" * 1_000_000)).outcome == b"never mind"


async def test_out_of_memory_is_named(make_rig: MakeRig) -> None:
    async def greedy(process: Process) -> None:
        process.container.end(137, is_oom=True)

    rig = await make_rig(greedy=greedy)
    assert (await rig.ask(a_cold_function("greedy"))).outcome == "oom"


async def test_an_answer_over_the_limit_is_an_error(make_rig: MakeRig) -> None:
    rig = await make_rig(limits={"max_response_bytes": 4}, cat=cat)
    assert (await rig.ask(a_cold_function("cat"))).outcome == "response_too_large"


async def test_an_answer_beyond_memory_arrives_whole(make_rig: MakeRig) -> None:
    rig = await make_rig(cat=cat)
    body = bytes(range(256)) * 12_000
    sink = await rig.ask(a_cold_function("cat"), body=body)
    assert sink.body == body
    assert sink.headers == [(b"content-type", b"application/octet-stream")]


async def test_a_timeout_kills_before_the_sink_hears(make_rig: MakeRig) -> None:
    rig = await make_rig(forever=forever)
    sink = await rig.ask(a_cold_function("forever", timeout_s=0.05))
    assert sink.outcome == "timeout"
    assert sink.live_at_end == 0


async def test_output_that_comes_after_the_end_of_the_process_is_waited_for(make_rig: MakeRig) -> None:
    rig = await make_rig(cat=cat)
    rig.executor.is_output_held = True
    invocation, sink = rig.call(a_cold_function("cat"))
    await wait_until(lambda: [one for one in rig.executor.containers.values() if one.state == "exited"])
    (container,) = rig.executor.containers.values()
    container.deliver("stdout_received", b", late")
    assert not sink.ended.is_set()
    container.end_output()
    await sink.ended.wait()
    assert sink.outcome == b"hello, late"
    assert invocation.state is State.ENDED


async def test_output_that_never_comes_to_its_end_is_an_error_and_no_shorter_answer(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(default_format, "_OUTPUT_TIMEOUT_S", 0.05)
    rig = await make_rig(cat=cat)
    rig.executor.is_output_held = True
    assert (await rig.ask(a_cold_function("cat"))).outcome == "engine_error"


@pytest.mark.parametrize("verb", ["create", "attach", "start"])
async def test_a_container_that_cannot_be_made_fails_its_call_and_leaves_nothing(make_rig: MakeRig, verb: str) -> None:
    rig = await make_rig(cat=cat)
    rig.executor.fail(verb, EngineError("no space left on device"))
    assert (await rig.ask(a_cold_function("cat"))).outcome == "engine_error"
    await rig.settled()
    assert repr(rig.executor) == "<InProcessExecutor empty>"
    assert (await rig.ask(a_cold_function("cat"))).outcome == b"hello"


@pytest.mark.parametrize("verb", ["resolve_image", "create", "attach", "start"])
async def test_a_call_whose_container_is_being_made_ends_at_once_and_never_runs(make_rig: MakeRig, verb: str) -> None:
    rig = await make_rig(cat=cat)
    with rig.executor.hold(verb):
        invocation, sink = rig.call(a_cold_function("cat"))
        await wait_until(lambda: rig.executor.verbs[verb])
        rig.agent.stop(invocation, CallCancelledError())
        await asyncio.wait_for(sink.ended.wait(), 5)
    assert sink.outcome == "cancelled"
    assert sink.live_at_end == 0
    await rig.settled()
    assert repr(rig.executor) == "<InProcessExecutor empty>"


async def test_a_call_stopped_before_its_task_began_never_runs(make_rig: MakeRig) -> None:
    rig = await make_rig(cat=cat)
    invocation, sink = rig.call(a_cold_function("cat"))
    rig.agent.stop(invocation, CallCancelledError())
    await sink.ended.wait()
    assert (sink.outcome, rig.executor.made) == ("cancelled", 0)


async def test_a_running_call_is_stopped_by_killing_its_container(make_rig: MakeRig) -> None:
    rig = await make_rig(forever=forever)
    invocation, sink = rig.call(a_cold_function("forever"))
    await wait_until(lambda: invocation.state is State.RUNNING)
    rig.agent.stop(invocation, CallCancelledError())
    await sink.ended.wait()
    assert (sink.outcome, sink.live_at_end) == ("cancelled", 0)


async def test_a_slow_caller_holds_no_memory_that_others_wait_for(make_rig: MakeRig) -> None:
    class SlowSink(KeepingSink):
        async def drain(self) -> None:
            await may_go_on.wait()

    may_go_on = asyncio.Event()
    rig = await make_rig(cat=cat, memory_mib=128)
    _, slow = rig.call(a_cold_function("cat"), sink=SlowSink())
    assert (await rig.ask(a_cold_function("cat"), body=b"quick")).outcome == b"quick"
    assert not slow.ended.is_set()
    may_go_on.set()
    await slow.ended.wait()
    assert slow.outcome == b"hello"


async def test_calls_wait_for_memory_and_all_of_them_run(make_rig: MakeRig) -> None:
    rig = await make_rig(cat=cat, memory_mib=256)
    sinks = await asyncio.gather(*(rig.ask(a_cold_function("cat")) for _ in range(6)))
    assert [sink.outcome for sink in sinks] == [b"hello"] * 6
    assert rig.executor.made == 6


@pytest.mark.parametrize("hot_format", [FormatName.DEFAULT, FormatName.HTTP])
async def test_closing_ends_while_the_engine_is_away(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch, hot_format: FormatName
) -> None:
    monkeypatch.setattr(keeper_module, "KILL_RETRY_S", 0.01)
    monkeypatch.setattr(agent_module, "CLOSE_S", 0.05)
    rig = await make_rig(forever=forever)
    invocation, sink = rig.call(a_function("forever", format=hot_format))
    await wait_until(lambda: invocation.state is State.RUNNING)
    rig.executor.fail("kill", EngineUnavailableError("away"), times=1000)
    async with asyncio.timeout(5):
        assert await rig.agent.close(0.01) == 1
    assert sink.outcome == "killed"
    # What is left of it is the next boot's to remove.
    for container in rig.executor.running:
        container.end()
    rig.abandon()
