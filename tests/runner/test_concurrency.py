"""More than one call in a container: who shares it, whose log a line is, and what one call's end does to the others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

import pytest

from faas.errors import CallCancelledError, ClientGoneError
from tests.support.programs import answer, http_stream, on_socket
from tests.support.rig import a_function
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from faas.runner.invocation import Invocation
    from tests.runner.conftest import MakeRig
    from tests.support.inprocess import Process, Program
    from tests.support.programs import FunctionRequest
    from tests.support.rig import KeepingSink, Rig


class Gate:
    """Calls that are answered when the test says so."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.inside = 0
        self.most = 0

    @classmethod
    def open(cls) -> Self:
        """They are answered at once."""
        gate = cls()
        gate.opened.set()
        return gate

    async def __call__(self, request: FunctionRequest) -> bytes:
        self.inside += 1
        self.most = max(self.most, self.inside)
        await self.opened.wait()
        self.inside -= 1
        return answer(request.body)


async def inside(rig: Rig, gate: Gate, count: int, **changes: object) -> list[tuple[Invocation, KeepingSink]]:
    """So many calls that are in their function."""
    function = a_function("gate", **changes)
    calls = [rig.call(function, body=b"%d" % number) for number in range(count)]
    await wait_until(lambda: gate.inside == count)
    return calls


async def test_a_container_runs_as_many_calls_at_a_time_as_its_route_says(make_rig: MakeRig) -> None:
    gate = Gate()
    rig = await make_rig(gate=http_stream(gate))
    calls = await inside(rig, gate, 4, concurrency=4)
    assert repr(rig.executor) == "<InProcessExecutor 1 running>"
    gate.opened.set()
    for _, sink in calls:
        await sink.ended.wait()
    assert [sink.outcome for _, sink in calls] == [b"0", b"1", b"2", b"3"]
    assert rig.executor.made == 1


async def test_another_container_is_made_when_all_places_are_taken(make_rig: MakeRig) -> None:
    gate = Gate()
    rig = await make_rig(gate=http_stream(gate))
    await inside(rig, gate, 5, concurrency=2)
    assert repr(rig.executor) == "<InProcessExecutor 3 running>"
    gate.opened.set()


async def test_calls_are_spread_over_the_containers(make_rig: MakeRig) -> None:
    gate = Gate()
    rig = await make_rig(gate=http_stream(gate))
    calls = await inside(rig, gate, 8, concurrency=4)
    gate.opened.set()
    for _, sink in calls:
        await sink.ended.wait()
    gate.opened.clear()
    calls = await inside(rig, gate, 4, concurrency=4)
    containers = [invocation.container_id for invocation, _ in calls]
    assert sorted(containers.count(one) for one in set(containers)) == [2, 2]
    gate.opened.set()


async def test_a_caller_who_hangs_up_ends_nobody_elses_call(make_rig: MakeRig) -> None:
    gate = Gate()
    rig = await make_rig(gate=http_stream(gate))
    (gone, gone_sink), (_, sink) = await inside(rig, gate, 2, concurrency=2)
    rig.agent.stop(gone, ClientGoneError("the client hung up"))
    await gone_sink.ended.wait()
    assert gone_sink.outcome == "client_gone"
    gate.opened.set()
    await sink.ended.wait()
    assert sink.outcome == b"1"
    await rig.settled()
    assert repr(rig.executor) == "<InProcessExecutor 1 running>"
    assert (await rig.ask(a_function("gate", concurrency=2))).outcome == b"hello"
    assert rig.executor.made == 1


async def test_a_cancelled_call_takes_its_container_along_and_the_others_hear_why(make_rig: MakeRig) -> None:
    gate = Gate()
    rig = await make_rig(gate=http_stream(gate))
    (cancelled, cancelled_sink), (_, sink) = await inside(rig, gate, 2, concurrency=2)
    rig.agent.stop(cancelled, CallCancelledError())
    await cancelled_sink.ended.wait()
    assert cancelled_sink.outcome == "cancelled"
    assert cancelled_sink.live_at_end == 0, "its container is dead before anybody hears of it"
    await sink.ended.wait()
    assert sink.error is not None
    assert sink.error.code == "killed"
    assert "because of another call in it" in sink.error.message
    await rig.settled()
    assert repr(rig.executor) == "<InProcessExecutor empty>"


async def test_a_container_that_garbled_an_answer_ends_after_the_calls_it_still_runs(make_rig: MakeRig) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if number == 1:
            await arrived.wait()
            writer.write(b"what?\r\n")
        else:
            arrived.set()
            await go_on.wait()
            writer.write(answer(b"well"))
        await reader.read()

    rig = await make_rig(odd=on_socket(serve))
    function = a_function("odd", concurrency=2)
    (_, broken), (_, other) = [rig.call(function, body=b"") for _ in range(2)]
    await broken.ended.wait()
    assert broken.outcome == "protocol"
    assert broken.live_at_end == 1
    go_on.set()
    await other.ended.wait()
    assert other.outcome == b"well"
    await rig.settled()
    assert repr(rig.executor) == "<InProcessExecutor empty>"


def writing(lines: list[str]) -> Program:
    """Two calls at a time, which write to the log when both are there."""
    both = asyncio.Event()
    ids: list[str] = []

    async def run(process: Process) -> None:
        async def handler(request: FunctionRequest) -> bytes:
            ids.append(request.headers["Fn-Call-Id"])
            if len(ids) == 2:
                for line in lines:
                    process.write_error(line.format(*ids).encode())
                both.set()
            await both.wait()
            return answer()

        await http_stream(handler)(process)

    return run


async def test_a_line_with_a_calls_id_is_in_that_calls_log_and_any_other_in_all(make_rig: MakeRig) -> None:
    lines = ["working\n", "{0}: first\n", "{1}: second\n", "{0} calls {1}\n"]
    rig = await make_rig(writing=writing(lines))
    function = a_function("writing", concurrency=2)
    calls = [rig.call(function) for _ in range(2)]
    for _, sink in calls:
        await sink.ended.wait()
    first, second = (invocation for invocation, _ in calls)
    assert first.log is not None
    assert second.log is not None
    both = f"{first.id} calls {second.id}\n"
    assert first.log.getvalue().decode() == f"working\n{first.id}: first\n{both}"
    assert second.log.getvalue().decode() == f"working\n{second.id}: second\n{both}"


@pytest.mark.parametrize("concurrency", [1, 3, 100])
async def test_many_calls_leave_every_place_free(make_rig: MakeRig, concurrency: int) -> None:
    async def echo(request: FunctionRequest) -> bytes:
        await asyncio.sleep(0)
        return answer(request.body)

    rig = await make_rig(echo=http_stream(echo))
    function = a_function(concurrency=concurrency, max_concurrency=2, memory_mib=8)
    bodies = [b"%d" % number for number in range(100)]
    sinks = await asyncio.gather(*(rig.ask(function, body=body) for body in bodies))
    assert [sink.outcome for sink in sinks] == bodies
    (pool,) = rig.agent.pool
    assert len(pool.idle) == pool.live
    assert not any(pool.levels[1:])


@pytest.mark.both_loops
async def test_a_function_that_accepts_few_connections_at_a_time_gets_the_others_later(make_rig: MakeRig) -> None:
    rig = await make_rig(gate=http_stream(Gate.open(), backlog=1))
    function = a_function("gate", concurrency=50)
    bodies = [b"%d" % number for number in range(50)]
    sinks = await asyncio.gather(*(rig.ask(function, body=body) for body in bodies))
    assert [sink.outcome for sink in sinks] == bodies
    assert rig.executor.made == 1
