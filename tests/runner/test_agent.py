"""Calls from "here is an invocation" to "its sink has the answer"."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from faas.errors import (
    BodyTooLargeError,
    CallCancelledError,
    ClientGoneError,
    EngineError,
    EngineUnavailableError,
    ResponseTooLargeError,
)
from faas.models import FormatName
from faas.runner import keeper as keeper_module
from faas.runner import slot as slot_module
from faas.runner.invocation import State
from tests.support.inprocess import InProcessContainer
from tests.support.programs import FunctionRequest, answer, hang, http_stream, on_socket, stdio_http
from tests.support.rig import KeepingSink, a_function
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.runner.conftest import MakeRig
    from tests.support.inprocess import Process

pytestmark = pytest.mark.both_loops

HOT = [FormatName.HTTP_STREAM, FormatName.HTTP]


def program(handler, hot_format: FormatName):  # type: ignore[no-untyped-def]
    return http_stream(handler) if hot_format is FormatName.HTTP_STREAM else stdio_http(handler)


async def echo(request: FunctionRequest) -> bytes:
    return answer(request.body)


class Gate:
    """A handler that says when it was called, and answers when it may."""

    def __init__(self) -> None:
        self.called = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def __call__(self, request: FunctionRequest) -> bytes:
        self.called.set()
        await self.may_answer.wait()
        self.may_answer.clear()
        return answer(request.body)


class Chunks:
    """A request body of which the test gives the parts."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self.queue.get():
            self.taken += 1
            yield chunk


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses that only matter to a real engine."""
    monkeypatch.setattr(keeper_module, "KILL_RETRY_S", 0.01)
    monkeypatch.setattr(keeper_module, "DIAGNOSIS_S", 0.05)


@pytest.fixture
def loop_errors() -> Iterator[list[str]]:
    """What the event loop complained about; nothing, please."""
    errors: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(str(context)))
    yield errors
    assert not errors


# --- warm and cold


@pytest.mark.parametrize("hot_format", HOT)
async def test_a_call_makes_a_container_and_the_next_one_finds_it(make_rig: MakeRig, hot_format: FormatName) -> None:
    rig = await make_rig(echo=program(echo, hot_format))
    function = a_function(format=hot_format)
    first, second = await rig.ask(function), await rig.ask(function, body=b"again")
    assert (first.outcome, second.outcome) == (b"hello", b"again")
    assert repr(rig.executor) == "<InProcessExecutor 1 running>"
    assert [invocation.launch is not None for invocation in rig.observed] == [True, False]
    assert repr(rig.agent.pool) == "<Pool 1 functions, <Capacity 128 of 1024 MiB used>, 0 short of memory>"


@pytest.mark.parametrize("hot_format", HOT)
async def test_a_warm_call_takes_no_task(make_rig: MakeRig, hot_format: FormatName) -> None:
    rig = await make_rig(echo=program(echo, hot_format))
    function = a_function(format=hot_format)
    await rig.ask(function)
    loop, made = asyncio.get_running_loop(), []

    def factory(loop, coroutine, **options):  # type: ignore[no-untyped-def]
        task = asyncio.Task(coroutine, loop=loop, **options)
        made.append(task)
        return task

    loop.set_task_factory(factory)
    try:
        invocations = [rig.call(function)]
        await asyncio.wait_for(invocations[0][1].ended.wait(), 5)
    finally:
        loop.set_task_factory(None)
    assert not [task for task in made if task.get_name().startswith("agent/")]
    assert len(rig.agent._tasks) == 0


async def test_a_connection_in_constant_use_is_not_opened_again(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handler(request: FunctionRequest) -> bytes:
        await asyncio.sleep(0.02)
        return answer(b"%d" % request.connection)

    monkeypatch.setattr(slot_module, "MAX_CONNECTION_IDLE_S", 0.05)
    rig = await make_rig(busy=http_stream(handler))
    function = a_function("busy", max_concurrency=1)
    sinks = await asyncio.gather(*(rig.ask(function) for _ in range(6)))
    assert [sink.outcome for sink in sinks] == [b"1"] * 6
    await asyncio.sleep(0.06)
    assert (await rig.ask(function)).outcome == b"2"


async def test_eight_calls_at_once_have_eight_containers_and_the_used_ones_serve_again(make_rig: MakeRig) -> None:
    rig = await make_rig(echo=http_stream(echo))
    function = a_function(memory_mib=16)
    for _ in range(3):
        sinks = await asyncio.gather(*(rig.ask(function) for _ in range(8)))
        assert {sink.outcome for sink in sinks} == {b"hello"}
    assert rig.executor.made <= 8
    assert rig.agent.completed == 24


async def test_a_container_that_cannot_be_made_fails_one_call_and_the_others_go_on(make_rig: MakeRig) -> None:
    rig = await make_rig(echo=http_stream(echo))
    rig.executor.fail("create", EngineError("no space left on device"))
    function = a_function(max_concurrency=1)
    sinks = await asyncio.gather(*(rig.ask(function) for _ in range(3)))
    assert sorted(str(sink.outcome) for sink in sinks) == ["b'hello'", "b'hello'", "engine_error"]
    await rig.settled()
    assert repr(rig.executor) == "<InProcessExecutor 1 running>"


async def test_a_function_that_never_listens_is_a_start_timeout(make_rig: MakeRig) -> None:
    async def deaf(process: Process) -> None:
        process.write_error(b"thinking\n")
        await asyncio.Event().wait()

    rig = await make_rig(limits={"start_timeout_s": 0.1}, deaf=deaf)
    sink = await rig.ask(a_function("deaf"))
    assert sink.outcome == "start_timeout"
    await rig.settled()
    assert repr(rig.executor) == "<InProcessExecutor empty>"
    log = rig.observed[0].log
    assert log is not None
    assert log.getvalue() == b"thinking\n"


@pytest.mark.parametrize("hot_format", HOT)
async def test_a_function_that_ends_at_once_fails_its_call_with_the_exit_code(
    make_rig: MakeRig, hot_format: FormatName, quick: None
) -> None:
    async def broken(process: Process) -> int:
        process.write_error(b"no such module\n")
        return 3

    rig = await make_rig(broken=broken)
    sink = await rig.ask(a_function("broken", format=hot_format))
    assert sink.outcome in ("start_failed", "protocol")
    assert sink.error is not None
    assert "exit code 3" in sink.error.message
    await rig.settled()
    assert rig.executor.made == 1


async def test_a_function_that_has_ended_before_it_is_ready_is_not_started_for_ever(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(process: Process) -> int:
        return 3

    rig = await make_rig(gone=gone)

    start = InProcessContainer.start

    async def start_and_see_it_end(container: InProcessContainer) -> None:
        await start(container)
        await wait_until(lambda: not rig.executor.running)

    monkeypatch.setattr(InProcessContainer, "start", start_and_see_it_end)
    sink = await rig.ask(a_function("gone", format=FormatName.HTTP))
    assert sink.outcome == "start_failed"
    assert sink.error is not None
    assert "exit code 3" in sink.error.message
    assert rig.executor.made == 1


async def test_out_of_memory_while_starting_is_named(make_rig: MakeRig) -> None:
    async def greedy(process: Process) -> None:
        process.container.end(137, is_oom=True)

    rig = await make_rig(greedy=greedy)
    assert (await rig.ask(a_function("greedy"))).outcome == "oom"


async def test_out_of_memory_while_a_call_runs_is_named(make_rig: MakeRig) -> None:
    rig = await make_rig(gate=http_stream(hang))
    _, sink = rig.call(a_function("gate"))
    await wait_until(
        lambda: rig.observed or (rig.agent.running and next(iter(rig.agent.running.values())).container_id)
    )
    rig.executor.running[0].end(137, is_oom=True)
    await sink.ended.wait()
    assert sink.outcome == "oom"


async def test_what_was_written_before_the_first_call_is_in_its_log(make_rig: MakeRig) -> None:
    async def chatty(process: Process) -> None:
        process.write(b"hello from the start\n")
        process.write_error(b"and from here\n")
        await http_stream(echo)(process)

    rig = await make_rig(chatty=chatty)
    await rig.ask(a_function("chatty"))
    await rig.ask(a_function("chatty"))
    first, second = rig.observed
    assert first.log is not None
    assert first.log.getvalue() == b"hello from the start\nand from here\n"
    assert second.log is None


# --- the end of a container


async def test_a_container_that_dies_while_idle_is_replaced_and_its_memory_is_free(make_rig: MakeRig) -> None:
    rig = await make_rig(echo=http_stream(echo))
    await rig.ask(a_function())
    rig.executor.running[0].end(1)
    await wait_until(lambda: not rig.agent.keeper.containers)
    assert rig.capacity.used_mib == 0
    assert (await rig.ask(a_function())).outcome == b"hello"
    assert rig.executor.made == 2


@pytest.mark.parametrize("hot_format", HOT)
async def test_garbage_kills_the_container_and_the_next_call_has_another(
    make_rig: MakeRig, hot_format: FormatName, quick: None
) -> None:
    replies = iter([b"hello, this is no HTTP\r\n\r\n", answer(b"fine")])

    async def handler(request: FunctionRequest) -> bytes:
        return next(replies)

    rig = await make_rig(misfit=program(handler, hot_format))
    function = a_function("misfit", format=hot_format)
    broken = await rig.ask(function)
    assert broken.outcome == "protocol"
    assert broken.live_at_end == 0
    assert (await rig.ask(function)).outcome == b"fine"
    assert rig.executor.made == 2


@pytest.mark.parametrize(("status", "code"), [(502, "function_failed"), (504, "timeout")])
async def test_fns_own_failures_keep_the_container(make_rig: MakeRig, status: int, code: str) -> None:
    replies = iter([answer(b"", status), answer(b"fine")])

    async def handler(request: FunctionRequest) -> bytes:
        return next(replies)

    rig = await make_rig(misfit=http_stream(handler))
    assert (await rig.ask(a_function("misfit"))).outcome == code
    assert (await rig.ask(a_function("misfit"))).outcome == b"fine"
    assert rig.executor.made == 1


async def test_a_function_that_closes_its_connection_between_calls_is_connected_to_again(make_rig: MakeRig) -> None:
    async def handler(request: FunctionRequest) -> bytes:
        return answer(b"connection %d" % request.connection, 200, "Connection: close")

    rig = await make_rig(closing=http_stream(handler))
    outcomes = [(await rig.ask(a_function("closing"))).outcome for _ in range(3)]
    assert outcomes == [b"connection 1", b"connection 2", b"connection 3"]
    assert rig.executor.made == 1


async def test_a_function_that_no_longer_listens_gives_its_call_to_another_container(make_rig: MakeRig) -> None:
    async def handler(request: FunctionRequest) -> bytes:
        return answer(b"fine", 200, "Connection: close")

    rig = await make_rig(closing=http_stream(handler))
    await rig.ask(a_function("closing"))
    (folder,) = rig.executor.running[0].spec.mounts
    (folder / "lsnr.sock").unlink()
    assert (await rig.ask(a_function("closing"))).outcome == b"fine"
    assert rig.executor.made == 2


async def test_a_stdio_function_that_closes_its_output_between_calls_is_replaced(make_rig: MakeRig) -> None:
    async def once(request: FunctionRequest) -> bytes:
        return answer(b"fine", 200, "Connection: close")

    rig = await make_rig(once=stdio_http(once))
    function = a_function("once", format=FormatName.HTTP)
    assert [(await rig.ask(function)).outcome for _ in range(2)] == [b"fine", b"fine"]
    await wait_until(lambda: len(rig.executor.containers) == 0)
    assert rig.executor.made == 2


# --- limits


@pytest.mark.parametrize("hot_format", HOT)
async def test_a_timeout_kills_before_the_sink_hears(make_rig: MakeRig, hot_format: FormatName) -> None:
    rig = await make_rig(gate=program(hang, hot_format))
    function = a_function("gate", format=hot_format, timeout_s=0.05)
    sink = await rig.ask(function)
    assert sink.outcome == "timeout"
    assert sink.live_at_end == 0
    await rig.settled()


async def test_the_functions_clock_starts_when_it_gets_the_call(make_rig: MakeRig) -> None:
    gate = Gate()
    rig = await make_rig(gate=http_stream(gate))
    function = a_function("gate", timeout_s=7, max_concurrency=1)
    _, first = rig.call(function)
    await gate.called.wait()
    in_line, second = rig.call(function)
    assert in_line.deadline == 0.0
    gate.may_answer.set()
    await first.ended.wait()
    await wait_until(lambda: in_line.state is State.RUNNING)
    assert in_line.deadline == in_line.running_since + 7
    gate.may_answer.set()
    await second.ended.wait()
    assert second.outcome == b"hello"


@pytest.mark.parametrize("where", ["refuses_start", "refuses_body"])
async def test_a_sink_may_refuse_the_answer_and_the_container_goes(make_rig: MakeRig, where: str) -> None:
    rig = await make_rig(echo=http_stream(echo))
    sink = KeepingSink(rig=rig, **{where: ResponseTooLargeError("too large")})  # type: ignore[arg-type]
    await rig.ask(a_function(), sink=sink)
    assert sink.outcome == "response_too_large"
    assert sink.live_at_end == 0


async def test_an_answers_header_block_has_a_limit(make_rig: MakeRig) -> None:
    async def handler(request: FunctionRequest) -> bytes:
        return answer(b"", 200, "Fn-Http-H-Big: " + "x" * 2000)

    rig = await make_rig(limits={"max_header_bytes": 1000}, big=http_stream(handler))
    assert (await rig.ask(a_function("big"))).outcome == "response_too_large"


async def test_a_log_has_a_limit(make_rig: MakeRig) -> None:
    async def chatty(process: Process) -> None:
        for _ in range(100):
            process.write_error(b"x" * 99 + b"\n")
        await http_stream(echo)(process)

    rig = await make_rig(chatty=chatty)
    await rig.ask(a_function("chatty"))
    log = rig.observed[0].log
    assert log is not None
    assert log.is_truncated
    assert log.getvalue().endswith(b"[log truncated: 5904 bytes dropped]\n")
    assert len(log.getvalue()) < 4200


# --- stopped from outside, in each state


async def test_a_call_in_line_is_stopped_at_once(make_rig: MakeRig) -> None:
    gate = Gate()
    rig = await make_rig(gate=http_stream(gate))
    function = a_function("gate", max_concurrency=1)
    _, first = rig.call(function)
    await gate.called.wait()
    waiting, sink = rig.call(function)
    rig.agent.stop(waiting, CallCancelledError())
    assert sink.outcome == "cancelled"
    gate.may_answer.set()
    await first.ended.wait()
    assert first.outcome == b"hello"


async def test_a_call_stopped_while_its_container_is_made_leaves_that_to_the_next(make_rig: MakeRig) -> None:
    rig = await make_rig(echo=http_stream(echo))
    with rig.executor.hold("create"):
        invocation, sink = rig.call(a_function())
        await wait_until(lambda: rig.executor.verbs["create"])
        rig.agent.stop(invocation, CallCancelledError())
        rig.agent.stop(invocation, ClientGoneError("twice"))
        assert sink.outcome == "cancelled"
    await rig.containers(1)
    await wait_until(lambda: not len(rig.agent._tasks))
    assert (await rig.ask(a_function())).outcome == b"hello"
    assert rig.executor.made == 1


async def test_a_running_call_is_stopped_by_killing_its_container(make_rig: MakeRig) -> None:
    gate = Gate()
    rig = await make_rig(gate=http_stream(gate))
    invocation, sink = rig.call(a_function("gate"))
    await gate.called.wait()
    rig.agent.stop(invocation, CallCancelledError())
    assert not sink.ended.is_set()
    await sink.ended.wait()
    assert sink.outcome == "cancelled"
    assert sink.live_at_end == 0
    rig.agent.stop(invocation, CallCancelledError())
    await rig.settled()


async def test_an_answer_that_comes_between_the_stop_and_the_kill_frees_the_container_for_nobody(
    make_rig: MakeRig,
) -> None:
    gate = Gate()
    rig = await make_rig(gate=http_stream(gate))
    function = a_function("gate", max_concurrency=1)
    stopped, sink = rig.call(function, body=b"first")
    await gate.called.wait()
    _, waiting = rig.call(function, body=b"second")
    with rig.executor.hold("kill"):
        gate.may_answer.set()
        rig.agent.stop(stopped, CallCancelledError())
        await wait_until(lambda: rig.executor.verbs["kill"])
        for _ in range(20):
            await asyncio.sleep(0)
        assert not sink.ended.is_set()
        assert not waiting.ended.is_set()
        assert not waiting.status
    await sink.ended.wait()
    assert (sink.outcome, sink.status) == ("cancelled", 0)
    gate.may_answer.set()
    await waiting.ended.wait()
    assert waiting.outcome == b"second"
    assert rig.executor.made == 2


async def test_an_answer_that_is_parsed_right_after_the_stop_reaches_nobody(make_rig: MakeRig) -> None:
    gate = Gate()
    rig = await make_rig(gate=http_stream(gate))
    stopped, sink = rig.call(a_function("gate"))
    await gate.called.wait()
    channel = stopped.runner.channel  # type: ignore[union-attr]
    rig.agent.stop(stopped, CallCancelledError())
    channel.data_received(answer(b"late"))
    await sink.ended.wait()
    assert (sink.outcome, sink.status) == ("cancelled", 0)
    assert stopped.state is State.ENDED


async def test_a_call_stopped_while_its_channel_is_opened_again_leaves_the_container(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handler(request: FunctionRequest) -> bytes:
        return answer(request.body, 200, "Connection: close")

    rig = await make_rig(closing=http_stream(handler))
    function = a_function("closing")
    await rig.ask(function)
    gate = asyncio.Event()
    hot = rig.agent._launcher.formats[FormatName.HTTP_STREAM]
    reopen = hot.reopen

    async def slow(site):  # type: ignore[no-untyped-def]
        await gate.wait()
        return await reopen(site)

    monkeypatch.setattr(hot, "reopen", slow)
    invocation, sink = rig.call(function)
    rig.agent.stop(invocation, CallCancelledError())
    gate.set()
    await sink.ended.wait()
    assert sink.outcome == "cancelled"
    assert (await rig.ask(function)).outcome == b"hello"
    assert rig.executor.made == 1


async def test_a_stop_while_the_engine_does_not_answer_is_told_when_the_container_is_dead(
    make_rig: MakeRig, quick: None
) -> None:
    gate = Gate()
    rig = await make_rig(gate=http_stream(gate))
    invocation, sink = rig.call(a_function("gate"))
    await gate.called.wait()
    rig.executor.fail("kill", EngineUnavailableError("the engine is away"), times=3)
    rig.agent.stop(invocation, CallCancelledError())
    await sink.ended.wait()
    assert sink.live_at_end == 0
    assert rig.executor.verbs["kill"] >= 4
    await rig.settled()


async def test_a_kill_that_the_engine_refuses_ends_the_call_all_the_same(make_rig: MakeRig) -> None:
    gate = Gate()
    rig = await make_rig(gate=http_stream(gate))
    invocation, sink = rig.call(a_function("gate"))
    await gate.called.wait()
    rig.executor.fail("kill", EngineError("permission denied"))
    rig.agent.stop(invocation, CallCancelledError())
    await sink.ended.wait()
    await rig.settled()
    assert repr(rig.executor) == "<InProcessExecutor empty>"


# --- streamed bodies


@pytest.mark.parametrize(
    ("length", "hot_format"),
    [(10, FormatName.HTTP), (10, FormatName.HTTP_STREAM), (None, FormatName.HTTP_STREAM)],
)
async def test_a_streamed_body_arrives_whole_and_the_container_is_kept(
    make_rig: MakeRig, hot_format: FormatName, length: int | None
) -> None:
    rig = await make_rig(echo=program(echo, hot_format))
    function = a_function(format=hot_format)
    stream = Chunks()
    _, sink = rig.call(function, body=b"01", stream=stream, content_length=length)
    for part in (b"234", b"56789", b""):
        stream.queue.put_nowait(part)
    await sink.ended.wait()
    assert sink.outcome == b"0123456789"
    assert (await rig.ask(function)).outcome == b"hello"
    assert rig.executor.made == 1


async def test_an_answer_before_the_body_has_arrived_is_the_last_of_its_streams(make_rig: MakeRig) -> None:
    async def hasty(process: Process) -> None:
        await process.stdin.readuntil(b"\r\n\r\n")
        process.write(answer(b"never mind"))
        await process.stdin.read()

    rig = await make_rig(hasty=hasty)
    function = a_function("hasty", format=FormatName.HTTP)
    _, sink = rig.call(function, body=b"", stream=Chunks(), content_length=100)
    await sink.ended.wait()
    assert sink.outcome == b"never mind"
    await rig.settled()
    assert repr(rig.executor) == "<InProcessExecutor empty>"


async def test_an_answer_before_the_body_has_arrived_is_the_last_of_its_connection(make_rig: MakeRig) -> None:
    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"POST /call"), "the rest of the body before is no request"
        writer.write(answer(b"%d" % number))
        await reader.read()

    rig = await make_rig(hasty=on_socket(hasty))
    function = a_function("hasty")
    _, sink = rig.call(function, body=b"", stream=Chunks(), content_length=100)
    await sink.ended.wait()
    assert sink.outcome == b"1"
    assert (await rig.ask(function)).outcome == b"2"
    await rig.settled()
    assert rig.executor.made == 1


async def test_a_stop_while_the_body_arrives_ends_the_sending(make_rig: MakeRig) -> None:
    rig = await make_rig(echo=http_stream(echo))
    stream = Chunks()
    invocation, sink = rig.call(a_function(), body=b"", stream=stream, content_length=100)
    stream.queue.put_nowait(b"0123456789")
    await wait_until(lambda: stream.taken)
    rig.agent.stop(invocation, BodyTooLargeError("too large"))
    await sink.ended.wait()
    assert sink.outcome == "body_too_large"
    await rig.settled()


# --- closing


async def test_close_refuses_new_calls_and_those_in_line_and_lets_the_others_end(make_rig: MakeRig) -> None:
    gate = Gate()
    rig = await make_rig(gate=http_stream(gate))
    function = a_function("gate", max_concurrency=1)
    _, running = rig.call(function)
    await gate.called.wait()
    _, waiting = rig.call(function)
    closing = asyncio.create_task(rig.agent.close(5.0))
    await waiting.ended.wait()
    assert waiting.outcome == "shutting_down"
    assert (await rig.ask(function)).outcome == "shutting_down"
    gate.may_answer.set()
    assert await closing == 0
    assert running.outcome == b"hello"


async def test_close_kills_what_does_not_end_in_time_and_says_how_many(make_rig: MakeRig) -> None:
    rig = await make_rig(gate=http_stream(hang))
    calls = [rig.call(a_function("gate")) for _ in range(3)]
    await wait_until(lambda: all(invocation.state is State.RUNNING for invocation, _ in calls))
    assert await rig.agent.close(0.01) == 3
    assert {sink.outcome for _, sink in calls} == {"killed"}
    assert {sink.live_at_end for _, sink in calls} <= {0, 1, 2}
