"""Places that satellites borrow: in whose turn, for how long, and what becomes of them when something goes wrong."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from faas.errors import CallCancelledError, CallTimeoutError, ClientGoneError
from faas.processes import messages as m
from faas.runner.container import ContainerState
from tests.processes.town import Town, running_town
from tests.support.programs import answer, hang, http_stream
from tests.support.rig import running_rig
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.inprocess import Process, Program
    from tests.support.programs import FunctionRequest


class MakeTown(Protocol):
    """Makes a primary and satellites with these programs as images; `limits` are the agent's."""

    async def __call__(
        self, satellites: int = 1, limits: dict[str, Any] | None = None, **programs: Program
    ) -> Town: ...


@pytest.fixture
async def make_town(tmp_path: Path) -> AsyncIterator[MakeTown]:
    async with AsyncExitStack() as stack:

        async def make(satellites: int = 1, limits: dict[str, Any] | None = None, **programs: Program) -> Town:
            root = tmp_path / "sockets"
            root.mkdir()
            rig = await stack.enter_async_context(running_rig(root, programs, **(limits or {})))
            return await stack.enter_async_context(running_town(rig, satellites))

        yield make


async def echo(request: FunctionRequest) -> bytes:
    return answer(request.body)


class Gate:
    """Calls that are answered, in the order they came, when the test says so."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.waiting: list[asyncio.Event] = []

    async def __call__(self, request: FunctionRequest) -> bytes:
        event = asyncio.Event()
        self.bodies.append(request.body)
        self.waiting.append(event)
        await event.wait()
        return answer(request.body)

    def open(self) -> None:
        self.waiting.pop(0).set()


async def test_one_container_serves_all_processes_when_they_call_in_turn(make_town: MakeTown) -> None:
    town = await make_town(2, echo=http_stream(echo))
    function = town.deploy("echo")
    first, second = town.satellites
    for number in range(12):
        asked = (town.rig, first, second)[number % 3]
        sink = await asked.ask(function, body=b"%d" % number)
        assert sink.outcome == b"%d" % number
    assert town.rig.executor.made == 1


async def test_a_place_is_kept_for_the_next_calls(make_town: MakeTown) -> None:
    town = await make_town(1, echo=http_stream(echo))
    function, (satellite,) = town.deploy("echo"), town.satellites
    for _ in range(5):
        await satellite.ask(function)
    assert [type(message) for message in satellite.said] == [m.Claim]


async def test_an_idle_place_goes_back_soon(make_town: MakeTown) -> None:
    town = await make_town(1, echo=http_stream(echo))
    function, (satellite,) = town.deploy("echo"), town.satellites
    await satellite.ask(function)
    (container,) = town.rig.agent.made
    assert container.state is ContainerState.BUSY
    await wait_until(lambda: container.state is ContainerState.IDLE)
    await town.settled()


async def test_with_all_of_them_busy_each_process_gets_containers_of_its_own(make_town: MakeTown) -> None:
    gate = Gate()
    town = await make_town(2, gate=http_stream(gate))
    function = town.deploy("gate")
    for asked in (town.rig, *town.satellites):
        asked.call(function)
        asked.call(function)
    await wait_until(lambda: len(gate.waiting) == 6)
    assert town.rig.executor.made == 6
    while gate.waiting:
        gate.open()


async def test_all_processes_stand_in_one_line(make_town: MakeTown) -> None:
    gate = Gate()
    town = await make_town(2, gate=http_stream(gate))
    function = town.deploy("gate", max_concurrency=1)
    first, second = town.satellites
    sinks = []
    for number, asked in enumerate((town.rig, first, second, town.rig, second, first, town.rig)):
        sinks.append(asked.call(function, body=b"%d" % number)[1])
        await asyncio.sleep(0.02)  # what is said takes turns of the loop; this is many
    for count in range(7):
        await wait_until(lambda count=count: len(gate.bodies) == count + 1)
        await asyncio.sleep(0.02)
        gate.open()
    for sink in sinks:
        await sink.ended.wait()
    assert gate.bodies == [b"%d" % number for number in range(7)]
    assert town.rig.executor.made == 1


async def test_a_line_of_calls_in_all_processes_is_served_by_one_container(make_town: MakeTown) -> None:
    town = await make_town(2, echo=http_stream(echo))
    function = town.deploy("echo", max_concurrency=1)
    asked = (town.rig, *town.satellites)
    sinks = await asyncio.gather(*(asked[number % 3].ask(function, body=b"%d" % number) for number in range(90)))
    assert [sink.outcome for sink in sinks] == [b"%d" % number for number in range(90)]
    assert town.rig.executor.made == 1


async def test_several_calls_in_a_container_can_be_of_several_processes(make_town: MakeTown) -> None:
    gate = Gate()
    town = await make_town(2, gate=http_stream(gate))
    function = town.deploy("gate", concurrency=3)
    calls = [asked.call(function) for asked in (town.rig, *town.satellites)]
    await wait_until(lambda: len(gate.waiting) == 3)
    assert town.rig.executor.made == 1
    invocation, sink = calls[1]
    town.satellites[0].agent.stop(invocation, ClientGoneError("gone"))
    await sink.ended.wait()
    assert len(town.rig.executor.running) == 1, "the calls of others go on"
    for _ in range(3):
        gate.open()
    assert [await ended(other) for other in (calls[0][1], calls[2][1])] == [b"hello", b"hello"]


async def ended(sink: Any) -> object:
    async with asyncio.timeout(10):
        await sink.ended.wait()
    return sink.outcome


async def test_a_call_that_takes_too_long_is_dead_before_its_caller_hears(make_town: MakeTown) -> None:
    town = await make_town(1, hang=http_stream(hang))
    function, (satellite,) = town.deploy("hang"), town.satellites
    invocation, sink = satellite.call(function)
    await wait_until(lambda: invocation.running_since)
    satellite.agent.stop(invocation, CallTimeoutError())
    assert await ended(sink) == "timeout"
    assert sink.live_at_end == 0
    await town.settled()


async def test_the_primary_says_why_a_container_died(make_town: MakeTown) -> None:
    town = await make_town(1, hang=http_stream(hang))
    function, (satellite,) = town.deploy("hang"), town.satellites
    invocation, sink = satellite.call(function)
    await wait_until(lambda: invocation.running_since)
    town.rig.executor.running[0].end(137, is_oom=True)
    assert await ended(sink) == "oom"
    assert town.ooms == 1
    await town.settled()


async def test_a_call_that_is_cancelled_in_line_wants_no_container(make_town: MakeTown) -> None:
    gate = Gate()
    town = await make_town(1, gate=http_stream(gate))
    function, (satellite,) = town.deploy("gate", max_concurrency=1), town.satellites
    satellite.call(function)
    await wait_until(lambda: gate.waiting)
    invocation, sink = satellite.call(function)
    await wait_until(lambda: "1 in line" in repr(town.lender))
    satellite.agent.stop(invocation, CallCancelledError())
    assert await ended(sink) == "cancelled"
    await wait_until(lambda: "0 in line" in repr(town.lender))
    gate.open()


async def test_a_call_waits_no_longer_than_it_would_in_the_primary(make_town: MakeTown) -> None:
    gate = Gate()
    town = await make_town(1, gate=http_stream(gate))
    function, (satellite,) = town.deploy("gate", max_concurrency=1), town.satellites
    satellite.agent._queue_timeout_s = 0.2
    town.rig.call(function)
    await wait_until(lambda: gate.waiting)
    assert (await satellite.ask(function)).outcome == "no_capacity"
    gate.open()


async def test_what_a_container_writes_is_in_the_log_of_the_call_there(make_town: MakeTown) -> None:
    async def talk(process: Process) -> None:
        async def speak(request: FunctionRequest) -> bytes:
            process.write_error(b"in " + request.body + b"\n")
            return answer(b"ok")

        process.write_error(b"starting\n")
        await http_stream(speak)(process)

    town = await make_town(1, talk=talk)
    function, (satellite,) = town.deploy("talk"), town.satellites
    logs = []
    for body in (b"a", b"b"):
        invocation, sink = satellite.call(function, body=body)
        await sink.ended.wait()
        await wait_until(lambda invocation=invocation: invocation.log and b"in " in invocation.log.getvalue())
        assert invocation.log is not None
        logs.append(invocation.log.getvalue())
    assert logs == [b"starting\nin a\n", b"in b\n"]


async def test_a_line_of_a_container_with_several_calls_of_one_process_is_logged_once(make_town: MakeTown) -> None:
    speak: list[Process] = []
    gate = Gate()

    async def talk(process: Process) -> None:
        speak.append(process)
        await http_stream(gate)(process)

    town = await make_town(2, talk=talk)
    function = town.deploy("talk", concurrency=4)
    calls = [asked.call(function) for asked in (*town.satellites, town.satellites[0], town.rig)]
    await wait_until(lambda: len(gate.waiting) == 4)
    line = b"about " + calls[2][0].id.encode() + b"\n"
    speak[0].write_error(line)
    await wait_until(lambda: calls[2][0].log)
    speak[0].write_error(b"about all\n")
    await wait_until(lambda: all(call.log and call.log.getvalue().endswith(b"all\n") for call, _ in calls))
    assert calls[2][0].log.getvalue() == line + b"about all\n"
    for _ in calls:
        gate.open()
    for _, sink in calls:
        await ended(sink)


async def test_places_of_a_function_that_was_replaced_go_back_at_once(make_town: MakeTown) -> None:
    town = await make_town(1, echo=http_stream(echo))
    function, (satellite,) = town.deploy("echo"), town.satellites
    await satellite.ask(function)
    changed = town.deploy("echo", memory_mib=64)
    assert (await satellite.ask(changed)).outcome == b"hello"
    old, new = town.rig.agent.made
    await wait_until(lambda: old.state is ContainerState.DEAD)
    assert new.function.key == changed.key


async def test_a_dead_satellites_containers_die_and_nobody_elses(make_town: MakeTown) -> None:
    gate = Gate()
    town = await make_town(2, gate=http_stream(gate))
    function = town.deploy("gate")
    doomed, other = town.satellites
    doomed.call(function)
    await wait_until(lambda: len(gate.waiting) == 1)
    _, sink = other.call(function)
    await wait_until(lambda: len(gate.waiting) == 2)
    await doomed.die()
    await wait_until(lambda: len(town.rig.executor.running) == 1)
    for _ in range(2):
        gate.open()
    assert await ended(sink) == b"hello"


async def test_a_satellite_that_does_not_answer_a_recall_is_not_waited_for(make_town: MakeTown) -> None:
    town = await make_town(1, echo=http_stream(echo))
    function, (satellite,) = town.deploy("echo"), town.satellites
    await satellite.ask(function)
    satellite.agent.sweep = satellite.agent.recall = lambda *_: None  # type: ignore[method-assign]
    assert (await town.rig.ask(function)).outcome == b"hello"
    assert town.rig.executor.made == 2
    await satellite.die()


@pytest.mark.parametrize("seed", range(12))
async def test_the_books_balance_whatever_happens(make_town: MakeTown, seed: int) -> None:
    chance = random.Random(seed)

    async def moody(request: FunctionRequest) -> bytes:
        await asyncio.sleep(chance.choice((0, 0, 0.001, 0.01)))
        return b"" if request.body == b"break" else answer(request.body)

    town = await make_town(
        3,
        {"memory_mib": 700, "max_waiting": 1000, "queue_timeout_s": 30.0},
        moody=http_stream(moody),
        echo=http_stream(echo),
    )
    functions = [
        town.deploy("moody", concurrency=chance.choice((1, 3)), max_concurrency=chance.choice((0, 1, 2))),
        town.deploy("echo", max_concurrency=chance.choice((0, 1))),
    ]
    calls = []
    for step in range(200):
        alive = [satellite for satellite in town.satellites if satellite.is_alive]
        asked = chance.choice((town.rig, *alive))
        body = chance.choice((b"break", *[b"%d" % step] * 9))
        invocation, sink = asked.call(chance.choice(functions), body=body)
        calls.append((asked, invocation, sink, body))
        if chance.random() < 0.1:
            owner, victim, *_ = chance.choice(calls)
            error = chance.choice((ClientGoneError("gone"), CallCancelledError(), CallTimeoutError()))
            owner.agent.stop(victim, error)
        if chance.random() < 0.03:
            functions[0] = town.deploy("moody", memory_mib=chance.choice((64, 96, 128)))
        if step == 120:
            await alive[0].die()
        if chance.random() < 0.3:
            await asyncio.sleep(chance.choice((0, 0, 0.002, 0.02)))
    for owner, _, sink, body in calls:
        if getattr(owner, "is_alive", True):
            assert await ended(sink) in (body, "protocol", "killed", "cancelled", "client_gone", "timeout")
    await wait_until(lambda: not town.lender._loans)
    await town.settled()
