"""Whatever happens to calls and containers, and whenever: nothing is lost or left, and the next call is served.

Each test does the same thing again and again, and disturbs it one step of the event loop later each time.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from faas.errors import CallCancelledError, CallTimeoutError, ClientGoneError, FaasError
from faas.models import FormatName
from faas.runner import function_pool as function_pool_module
from faas.runner import keeper as keeper_module
from faas.runner import slot as slot_module
from tests.support.programs import answer, http_stream, stdio_http
from tests.support.rig import a_function
from tests.support.steps import Steps, at_every_step

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from faas.runner.functions import Function
    from faas.runner.invocation import Invocation
    from tests.runner.conftest import MakeRig
    from tests.support.inprocess import Process
    from tests.support.programs import FunctionRequest
    from tests.support.rig import KeepingSink, Rig

    Call = tuple[Invocation, KeepingSink]

pytestmark = pytest.mark.stepped

CROWD = 5
BODY = b"hello"


async def echo(request: FunctionRequest) -> bytes:
    await asyncio.sleep(0)
    return answer(request.body)


async def cat(process: Process) -> None:
    while data := await process.stdin.read(3):
        process.write(data)
        await asyncio.sleep(0)


PROGRAMS = {"stream": http_stream(echo, pieces=3), "stdio": stdio_http(echo, pieces=3), "cold": cat}

KINDS = {
    "http-stream": {"image": "stream", "max_concurrency": 1},
    "http-stream-3": {"image": "stream", "max_concurrency": 1, "concurrency": 3},
    "http": {"image": "stdio", "format": FormatName.HTTP, "max_concurrency": 1},
    "default": {"image": "cold", "format": FormatName.DEFAULT, "max_concurrency": 2},
}
HOT = ["http-stream", "http-stream-3", "http"]

BEGINNINGS = [
    *((kind, beginning) for kind in HOT for beginning in ("cold", "warm", "frozen")),
    ("http-stream", "reopened"),
    ("http-stream-3", "reopened"),
    ("default", "cold"),
]
"""Every kind of function, and what its first call finds: nothing, an idle container, a paused one, one whose connection
is too old."""

STOPS = [ClientGoneError("the client hung up"), CallCancelledError(), CallTimeoutError()]


class Parts:
    """The body, arriving in parts."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in (BODY[:2], BODY[2:4], BODY[4:]):
            await asyncio.sleep(0)
            yield part


def function_of(kind: str, beginning: str = "warm") -> Function:
    freeze_ms = 1 if beginning == "frozen" else 0
    return a_function(**{**KINDS[kind], "freeze_ms": freeze_ms})  # type: ignore[arg-type]


async def begin(rig: Rig, function: Function, beginning: str) -> None:
    """Come to where a run begins, whatever the one before has left."""
    await rig.quiet()
    if beginning == "cold":
        rig.agent.keeper.retire(function.key)
    elif function.format is not FormatName.DEFAULT:
        assert (await rig.ask(function)).outcome == BODY
    if beginning == "frozen":
        freeze(rig)
    await rig.quiet()


def freeze(rig: Rig) -> None:
    """Let all idle containers of functions with `freeze_ms` be paused."""
    for pool in rig.agent.pool:
        for container in pool.idle:
            container.idle_since -= 1
    rig.agent.pool.sweep()


def start(rig: Rig, function: Function, count: int) -> list[Call]:
    """Calls that come at the same time; the bodies of every other one are still arriving."""
    streamed = {"body": b"", "stream": Parts(), "content_length": len(BODY)}
    return [rig.call(function, **(streamed if number % 2 else {})) for number in range(count)]


def kill_all(rig: Rig) -> None:
    """Let all containers die, by no deed of the node's."""
    for container in rig.executor.running:
        container.end()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "DIAGNOSIS_S", 0.005)
    monkeypatch.setattr(function_pool_module, "FIRST_RETRY_S", 0.0)


@pytest.fixture
async def rig(make_rig: MakeRig, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Rig:
    if "reopened" in request.node.name:
        monkeypatch.setattr(slot_module, "MAX_CONNECTION_IDLE_S", -1.0)
    return await make_rig(limits={"max_spares": 2}, **PROGRAMS)


async def disturb_calls(
    rig: Rig,
    function: Function,
    beginning: str,
    disturb: Callable[[Invocation], object],
    check: Callable[[int, Sequence[Call]], None],
) -> None:
    """Disturb one of several calls of a function, another one each time."""

    async def once(steps: Steps) -> None:
        await begin(rig, function, beginning)
        calls = start(rig, function, CROWD)
        victim = steps.at % CROWD
        await steps.run(lambda: disturb(calls[victim][0]))
        check(victim, calls)
        assert (await rig.ask(function)).outcome == BODY
        await rig.quiet()

    assert await at_every_step(rig, once, first=1 + len(beginning))


@pytest.mark.parametrize("error", STOPS, ids=lambda error: error.code)
@pytest.mark.parametrize(("kind", "beginning"), BEGINNINGS)
async def test_a_call_is_stopped(rig: Rig, kind: str, beginning: str, error: FaasError) -> None:
    function = function_of(kind, beginning)

    def check(victim: int, calls: Sequence[Call]) -> None:
        outcomes = [sink.outcome for _, sink in calls]
        assert outcomes.pop(victim) in (error.code, BODY)
        if function.concurrency == 1 or isinstance(error, ClientGoneError):
            assert set(outcomes) <= {BODY}
        else:
            assert set(outcomes) <= {BODY, "killed"}, "only who was in the same container shares its end"

    await disturb_calls(rig, function, beginning, lambda call: rig.agent.stop(call, error), check)


@pytest.mark.parametrize(("kind", "beginning"), BEGINNINGS)
async def test_the_function_is_retired(rig: Rig, kind: str, beginning: str) -> None:
    function = function_of(kind, beginning)

    def check(_victim: int, calls: Sequence[Call]) -> None:
        assert {sink.outcome for _, sink in calls} == {BODY}

    await disturb_calls(rig, function, beginning, lambda _call: rig.agent.keeper.retire(function.key), check)


@pytest.mark.parametrize(("kind", "beginning"), BEGINNINGS)
async def test_all_containers_die(rig: Rig, kind: str, beginning: str) -> None:
    function = function_of(kind, beginning)

    def check(_victim: int, calls: Sequence[Call]) -> None:
        assert {sink.outcome for _, sink in calls} <= {BODY, "killed", "start_failed"}

    await disturb_calls(rig, function, beginning, lambda _call: kill_all(rig), check)


@pytest.mark.parametrize("kind", HOT)
@pytest.mark.parametrize("disturb", ["call", "die", "retire"])
async def test_a_container_is_being_paused(rig: Rig, kind: str, disturb: str) -> None:
    function = function_of(kind, "frozen")

    async def once(steps: Steps) -> None:
        await begin(rig, function, "warm")
        calls: list[Call] = []

        def act() -> None:
            match disturb:
                case "call":
                    calls.extend(start(rig, function, 2))
                case "die":
                    kill_all(rig)
                case "retire":
                    rig.agent.keeper.retire(function.key)

        freeze(rig)
        await steps.run(act)
        assert {sink.outcome for _, sink in calls} <= {BODY}
        assert (await rig.ask(function)).outcome == BODY
        await rig.quiet()

    assert await at_every_step(rig, once)


@pytest.mark.parametrize("kind", HOT)
@pytest.mark.parametrize("disturb", ["call", "die", "retire"])
async def test_containers_are_started_to_be_kept_warm(rig: Rig, kind: str, disturb: str) -> None:
    function = a_function(**{**KINDS[kind], "max_concurrency": 3, "min_warm": 2})  # type: ignore[arg-type]

    async def once(steps: Steps) -> None:
        rig.agent.keeper.retire(function.key)
        await rig.quiet()
        calls: list[Call] = []

        def act() -> None:
            match disturb:
                case "call":
                    calls.extend(start(rig, function, 2))
                case "die":
                    kill_all(rig)
                case "retire":
                    rig.agent.keeper.retire(function.key)
                    rig.agent.pool.adopt(function)

        rig.agent.pool.adopt(function)
        rig.agent.pool.sweep()
        await steps.run(act)
        assert {sink.outcome for _, sink in calls} <= {BODY}
        rig.agent.pool.sweep()
        await rig.quiet()
        (pool,) = rig.agent.pool
        assert len(pool.idle) >= 2
        assert (await rig.ask(function)).outcome == BODY
        await rig.quiet()

    assert await at_every_step(rig, once)


@pytest.mark.parametrize("kind", HOT)
@pytest.mark.parametrize("disturb", ["cancel", "die", "retire", "call"])
async def test_a_change_is_being_prepared(rig: Rig, kind: str, disturb: str) -> None:
    old = function_of(kind)
    new = a_function(**{**KINDS[kind], "config": {"VERSION": "2"}})  # type: ignore[arg-type]

    async def once(steps: Steps) -> None:
        await begin(rig, old, "warm")
        rig.agent.keeper.retire(new.key)
        await rig.quiet()
        preparing = asyncio.ensure_future(rig.agent.keeper.prepare(new, old.key))
        calls: list[Call] = []

        def act() -> None:
            match disturb:
                case "cancel":
                    preparing.cancel()
                case "die":
                    kill_all(rig)
                case "retire":
                    rig.agent.keeper.retire(old.key)
                case "call":
                    calls.extend(start(rig, new, 2))

        await steps.run(act, until=preparing)
        with suppress(asyncio.CancelledError, FaasError):
            await preparing
        assert {sink.outcome for _, sink in calls} <= {BODY}
        assert (await rig.ask(old)).outcome == BODY
        assert (await rig.ask(new)).outcome == BODY
        await rig.quiet()

    assert await at_every_step(rig, once)
