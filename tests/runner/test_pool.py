"""Which container runs which call, and who must go to make room: every decision, without a container."""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from faas.errors import EngineError, FaasError, NoCapacityError
from faas.models import FormatName
from faas.runner import pool as pool_module
from faas.runner import shortage as shortage_module
from faas.runner.call_log import LogBuffer
from faas.runner.capacity import Capacity
from faas.runner.container import ContainerState
from faas.runner.invocation import LaunchTimings
from faas.runner.pool import Pool
from tests.support.audit import audit_pool
from tests.support.rig import a_function, an_invocation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from faas.runner.capacity import Reservation
    from faas.runner.function_pool import FunctionPool
    from faas.runner.functions import Function
    from faas.runner.invocation import Invocation


@dataclass(eq=False)
class FakeContainer:
    """As much of a hot container as the pool looks at."""

    pool: FunctionPool
    reservation: Reservation
    ended: asyncio.Future[None]
    state: ContainerState = ContainerState.STARTING
    generation: int = 0
    idle_since: float = 0.0
    calls: int = 0
    running: int = 0
    invocations: list[Invocation] = field(default_factory=list)
    timings: LaunchTimings = field(default_factory=LaunchTimings)
    start_log: LogBuffer = field(default_factory=lambda: LogBuffer(0))

    @property
    def function(self) -> Function:
        return self.pool.function

    @property
    def invocation(self) -> Invocation | None:
        """Of a container that runs one call at a time."""
        return self.invocations[0] if self.invocations else None

    def take_slot(self) -> FakeContainer:
        return self

    def run(self, invocation: Invocation) -> None:
        assert self.state in (ContainerState.STARTING, ContainerState.IDLE, ContainerState.BUSY)
        assert not self.ended.done(), "nobody runs on a dead container"
        self.calls += 1
        self.invocations.append(invocation)
        assert len(self.invocations) <= self.running <= self.pool.concurrency


@dataclass(eq=False)
class Node:
    """A pool whose containers are made, used and ended by the test."""

    now: float = 100.0
    total_mib: int = 1000
    max_waiting: int = 100
    starting: list[FakeContainer] = field(default_factory=list)
    stopping: list[FakeContainer] = field(default_factory=list)
    freezing: list[FakeContainer] = field(default_factory=list)
    thawing: list[FakeContainer] = field(default_factory=list)
    cold: list[tuple[Invocation, Reservation]] = field(default_factory=list)
    refused: list[tuple[Invocation, FaasError]] = field(default_factory=list)
    made: list[FakeContainer] = field(default_factory=list)
    evicted: int = 0

    def __post_init__(self) -> None:
        self.capacity = Capacity(self.total_mib)
        self.pool = Pool(self.capacity, self, self, max_waiting=self.max_waiting, on_evicted=self._count)  # type: ignore[arg-type]

    def _count(self) -> None:
        self.evicted += 1

    # --- PoolUser

    def launch(self, pool: FunctionPool, reservation: Reservation) -> Any:
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        container = FakeContainer(pool, reservation, ended)
        self.starting.append(container)
        self.made.append(container)
        return container

    def freeze(self, container: Any) -> None:
        self.freezing.append(container)

    def thaw(self, container: Any) -> None:
        self.thawing.append(container)

    def run_cold(self, invocation: Invocation, reservation: Reservation) -> None:
        self.cold.append((invocation, reservation))

    def dispose(self, container: Any) -> None:
        self.stopping.append(container)

    def refuse(self, invocation: Invocation, error: FaasError) -> None:
        self.refused.append((invocation, error))

    # --- what the test does

    def submit(self, function: Function, *, wait_s: float = 30.0) -> Invocation:
        invocation = an_invocation(function)
        self.pool.submit(invocation, self.now + wait_s)
        return invocation

    def ready(self, container: FakeContainer | None = None) -> FakeContainer:
        """Let a container get ready; the first one, unless one is named."""
        container = container or self.starting[0]
        self.starting.remove(container)
        self.pool.launched(container)  # type: ignore[arg-type]
        return container

    def fail(self) -> Invocation | None:
        """The first launch fails; returns the call that heard of it."""
        container, told = self.starting.pop(0), len(self.refused)
        self.pool.launch_failed(container, EngineError("no space left on device"))  # type: ignore[arg-type]
        return self.refused.pop()[0] if len(self.refused) > told else None

    def answer(self, container: FakeContainer) -> None:
        """The oldest call of a container has its answer."""
        del container.invocations[0]
        self.pool.release(container)  # type: ignore[arg-type]

    def stop(self, container: FakeContainer) -> None:
        container.invocations.clear()
        self.pool.stop(container)  # type: ignore[arg-type]

    def die(self, container: FakeContainer) -> None:
        container.ended.set_result(None)
        self.pool.died(container)  # type: ignore[arg-type]

    def gone(self, container: FakeContainer | None = None) -> None:
        container = container or self.stopping[0]
        self.stopping.remove(container)
        self.pool.disposed(container)  # type: ignore[arg-type]

    def warm(self, function: Function) -> FakeContainer:
        """A container that has served a call and is idle."""
        self.submit(function)
        container = self.ready()
        self.answer(container)
        assert container.state is ContainerState.IDLE
        return container

    @property
    def busy(self) -> list[FakeContainer]:
        return [container for container in self.made if container.invocation is not None]

    @property
    def idle(self) -> list[FakeContainer]:
        return [container for pool in self.pool for container in pool.idle]  # type: ignore[misc]

    @property
    def lines(self) -> list[str]:
        return [repr(pool) for pool in self.pool]


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    node = Node()
    for module in (pool_module, shortage_module):
        monkeypatch.setattr(module, "monotonic", lambda: node.now)
    return node


EMPTY = "<Pool 0 functions, <Capacity 0 of 1000 MiB used>, 0 short of memory>"


# --- idle and waiting


async def test_the_container_used_last_is_used_first(node: Node) -> None:
    function = a_function()
    for _ in range(3):
        node.submit(function)
    first, second, third = (node.ready() for _ in range(3))
    for container in (second, third, first):
        node.answer(container)
    invocation = node.submit(function)
    assert first.invocation is invocation
    assert (second.state, third.state) == (ContainerState.IDLE, ContainerState.IDLE)


async def test_calls_are_served_in_the_order_they_came(node: Node) -> None:
    function = a_function(max_concurrency=1)
    invocations = [node.submit(function) for _ in range(4)]
    container = node.ready()
    served = [container.invocation]
    for _ in range(3):
        node.answer(container)
        served.append(container.invocation)
    assert served == invocations


async def test_containers_are_made_while_fewer_are_on_their_way_than_calls_wait(node: Node) -> None:
    function = a_function(memory_mib=100)
    for _ in range(3):
        node.submit(function)
    assert node.lines == ["<FunctionPool demo/echo [Calls: 3 waiting | Containers: 3 live, 0 idle, 3 starting]>"]
    container = node.ready()
    node.answer(container)
    node.answer(container)
    node.answer(container)
    assert node.lines == ["<FunctionPool demo/echo [Calls: 0 waiting | Containers: 3 live, 1 idle, 2 starting]>"]
    for _ in range(3):
        node.submit(function)
    assert len(node.made) == 3, "one runs, two are on their way for two calls"


async def test_no_more_containers_than_max_concurrency_are_made(node: Node) -> None:
    function = a_function(memory_mib=10, max_concurrency=2)
    for _ in range(5):
        node.submit(function)
    assert node.lines == ["<FunctionPool demo/echo [Calls: 5 waiting | Containers: 2 live, 0 idle, 2 starting]>"]
    first = node.ready()
    node.stop(first)
    assert len(node.made) == 2, "a container that is being ended still counts"
    node.gone()
    assert len(node.made) == 3


async def test_a_line_has_an_end(node: Node) -> None:
    node = Node(max_waiting=2)
    function = a_function(max_concurrency=1)
    node.submit(function)
    node.submit(function)
    with pytest.raises(NoCapacityError, match="2 calls wait for this function already"):
        node.submit(function)


async def test_what_can_never_fit_is_refused_at_once_and_leaves_nothing(node: Node) -> None:
    with pytest.raises(NoCapacityError, match="needs 1001 MiB, this node has 1000 MiB"):
        node.submit(a_function(memory_mib=1001))
    assert repr(node.pool) == EMPTY


async def test_a_call_whose_deadline_passes_in_line_is_refused_with_the_reason(node: Node) -> None:
    function = a_function(max_concurrency=1)
    node.submit(function, wait_s=5)
    late, patient = node.submit(function, wait_s=5), node.submit(function, wait_s=math.inf)
    node.now += 6
    node.pool.sweep()
    # The first in line is as good as served: its container is on its way, and has a deadline of its own.
    assert [(invocation, error.message) for invocation, error in node.refused] == [
        (late, "Timed out - server too busy: 1 of `max_concurrency` 1 containers are in use")
    ]
    container = node.ready()
    node.answer(container)
    assert container.invocation is patient


async def test_a_call_is_withdrawn_from_the_line_once(node: Node) -> None:
    function = a_function(max_concurrency=1)
    node.submit(function)
    invocation = node.submit(function)
    assert node.pool.withdraw(invocation)
    assert not node.pool.withdraw(invocation)
    node.answer(node.ready())
    assert [container.state for container in node.made] == [ContainerState.IDLE]


async def test_cold_calls_have_a_container_each(node: Node) -> None:
    function = a_function(format=FormatName.DEFAULT, memory_mib=400)
    invocations = [node.submit(function) for _ in range(3)]
    assert [invocation for invocation, _ in node.cold] == invocations[:2]
    node.pool.cold_ended(function, node.cold[0][1])
    assert [invocation for invocation, _ in node.cold] == invocations
    for _, reservation in node.cold[1:]:
        node.pool.cold_ended(function, reservation)
    assert repr(node.pool) == EMPTY


# --- the end of containers


async def test_surplus_containers_end_when_they_were_idle_too_long(node: Node) -> None:
    function = a_function(idle_timeout_s=10)
    node.submit(function)
    node.submit(function)
    old, young = node.ready(), node.ready()
    node.answer(old)
    node.now += 6
    node.answer(young)
    node.now += 5
    node.pool.sweep()
    assert node.stopping == [old]
    node.now += 6
    node.pool.sweep()
    assert node.stopping == [old, young]
    node.gone()
    node.gone()
    assert repr(node.pool) == EMPTY


async def test_a_failed_launch_fails_one_call_and_the_next_one_gets_another_try(node: Node) -> None:
    function = a_function(max_concurrency=1)
    first, second = node.submit(function), node.submit(function)
    assert node.fail() is first
    assert len(node.made) == 1, "its memory is not free yet"
    node.gone()
    assert node.fail() is second
    node.gone()
    assert repr(node.pool) == EMPTY


async def test_a_failed_launch_that_nobody_waits_for_fails_nobody(node: Node) -> None:
    invocation = node.submit(a_function())
    node.pool.withdraw(invocation)
    assert node.fail() is None
    node.gone()
    assert repr(node.pool) == EMPTY


async def test_a_container_that_died_under_its_call_serves_nobody_else(node: Node) -> None:
    function = a_function(max_concurrency=1)
    node.submit(function)
    waiting = node.submit(function)
    container = node.ready()
    container.ended.set_result(None)
    node.answer(container)
    assert node.stopping == [container]
    node.gone()
    assert node.ready().invocation is waiting


# --- retiring


async def test_retiring_ends_idle_containers_now_and_busy_ones_after_their_call(node: Node) -> None:
    function = a_function()
    node.submit(function)
    node.submit(function)
    idle, busy = node.ready(), node.ready()
    node.answer(idle)
    node.pool.retire(function.key)
    assert node.stopping == [idle]
    waiting = node.submit(function)
    node.answer(busy)
    assert node.stopping == [idle, busy]
    assert node.ready().invocation is waiting


async def test_a_container_on_its_way_when_its_function_was_retired_serves_its_one_call(node: Node) -> None:
    function = a_function(max_concurrency=1)
    first, second = node.submit(function), node.submit(function)
    node.pool.retire(function.key)
    container = node.ready()
    assert container.invocation is first
    node.answer(container)
    assert node.stopping == [container]
    node.gone()
    assert node.ready().invocation is second


async def test_a_container_on_its_way_when_its_function_was_retired_is_not_kept_idle(node: Node) -> None:
    function = a_function()
    invocation = node.submit(function)
    node.pool.retire(function.key)
    node.pool.withdraw(invocation)
    assert node.ready().state is ContainerState.STOPPING


async def test_a_function_that_is_changed_and_changed_back_gets_no_container_of_before(node: Node) -> None:
    function = a_function()
    node.submit(function)
    before = node.ready()
    node.pool.retire(function.key)
    same_again = a_function()
    assert same_again.key == function.key
    node.submit(same_again)
    node.answer(before)
    assert before.state is ContainerState.STOPPING
    after = node.ready()
    node.answer(after)
    assert after.state is ContainerState.IDLE


async def test_retiring_what_is_not_there_does_nothing(node: Node) -> None:
    node.pool.retire("no such key")
    assert repr(node.pool) == EMPTY


# --- memory


async def test_idle_containers_of_other_functions_make_room_the_longest_idle_first(node: Node) -> None:
    functions = [a_function(f"f{number}", memory_mib=300) for number in range(3)]
    idle = []
    for function in functions:
        idle.append(node.warm(function))
        node.now += 1
    node.submit(a_function("big", memory_mib=500))
    assert node.stopping == idle[:2]
    assert node.evicted == 2
    assert len(node.made) == 3, "room comes when they are dead"
    node.gone()
    node.gone()
    assert len(node.made) == 4
    assert repr(node.pool) == "<Pool 2 functions, <Capacity 800 of 1000 MiB used>, 0 short of memory>"


async def test_nothing_is_evicted_when_it_would_not_make_enough_room(node: Node) -> None:
    node.submit(a_function("busy", memory_mib=600))
    node.ready()
    idle = node.warm(a_function("idle", memory_mib=300))
    node.submit(a_function("big", memory_mib=500))
    assert idle.state is ContainerState.IDLE
    assert not node.stopping


async def test_what_is_being_ended_already_counts_as_room(node: Node) -> None:
    first = node.warm(a_function("first", memory_mib=500))
    second = node.warm(a_function("second", memory_mib=500))
    node.submit(a_function("big", memory_mib=500))
    node.submit(a_function("big", memory_mib=500, path="/big"))
    assert node.stopping == [first]
    node.gone()
    assert node.stopping == [second]
    assert len(node.starting) == 1


async def test_a_function_never_evicts_its_own_containers(node: Node) -> None:
    function = a_function(memory_mib=600)
    node.warm(function)
    node.submit(function)
    node.submit(function)
    assert node.evicted == 0


async def test_a_container_that_becomes_idle_is_evicted_for_who_lacks_memory(node: Node) -> None:
    node.submit(a_function("one", memory_mib=600))
    container = node.ready()
    node.submit(a_function("two", memory_mib=600))
    node.answer(container)
    assert node.stopping == [container]
    node.gone()
    assert [str(made.function) for made in node.starting] == ["demo/two"]


async def test_smaller_functions_pass_who_lacks_memory_for_a_while_and_then_no_more(node: Node) -> None:
    node.submit(a_function("busy", memory_mib=600))
    node.ready()
    node.submit(a_function("big", memory_mib=900))
    node.submit(a_function("small", memory_mib=100))
    assert len(node.starting) == 1, "it passes at first"
    node.now += 2
    node.submit(a_function("other", memory_mib=100))
    assert len(node.starting) == 1, "then memory is kept for the first in line"
    node.stop(node.busy[0])
    node.stop(node.ready())
    node.gone()
    node.gone()
    assert sorted(str(made.function) for made in node.starting) == ["demo/big", "demo/other"]


async def test_who_waits_behind_a_giant_that_gives_up_is_served_at_once(node: Node) -> None:
    node.submit(a_function("busy", memory_mib=600))
    node.ready()
    giant = node.submit(a_function("giant", memory_mib=900))
    node.now += 2
    node.submit(a_function("small", memory_mib=100))
    assert not node.starting
    node.pool.withdraw(giant)
    assert [str(made.function) for made in node.starting] == ["demo/small"]


async def test_who_waits_behind_a_giant_whose_deadline_passes_is_served_at_once(node: Node) -> None:
    node.submit(a_function("busy", memory_mib=600))
    node.ready()
    node.submit(a_function("giant", memory_mib=900), wait_s=3)
    node.now += 2
    node.submit(a_function("small", memory_mib=100))
    node.now += 2
    node.pool.sweep()
    assert [str(made.function) for made in node.starting] == ["demo/small"]


async def test_a_function_whose_waiting_call_was_served_by_a_container_of_its_own_lacks_nothing(node: Node) -> None:
    function = a_function("one", memory_mib=600)
    node.submit(function)
    node.submit(function)
    container = node.ready()
    node.now += 2
    node.answer(container)
    assert repr(node.pool) == "<Pool 1 functions, <Capacity 600 of 1000 MiB used>, 0 short of memory>"
    node.submit(a_function("small", memory_mib=100))
    assert [str(made.function) for made in node.starting] == ["demo/small"]


async def test_closing_ends_what_is_idle_and_what_becomes_idle(node: Node) -> None:
    idle = node.warm(a_function("idle"))
    node.submit(a_function("busy"))
    busy = node.ready()
    node.submit(a_function("starting"))
    node.pool.close()
    assert node.stopping == [idle]
    node.answer(busy)
    node.answer(node.ready())
    assert len(node.stopping) == 3
    for _ in range(3):
        node.gone()
    assert repr(node.pool) == EMPTY


# --- everything at once


class Life(Node):
    """Thousands of random steps, and what must hold after each of them."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self.functions = [
            a_function("tiny", memory_mib=50, idle_timeout_s=3),
            a_function("small", memory_mib=100, idle_timeout_s=10, freeze_ms=500),
            a_function("single", memory_mib=200, max_concurrency=1, idle_timeout_s=5),
            a_function("shared", memory_mib=80, max_concurrency=3, concurrency=3, idle_timeout_s=5, freeze_ms=1000),
            a_function("wide", memory_mib=60, concurrency=10, idle_timeout_s=5),
            a_function("kept", memory_mib=40, min_warm=2, concurrency=2, idle_timeout_s=3, freeze_ms=500),
            a_function("big", memory_mib=500, max_concurrency=2, idle_timeout_s=5),
            a_function("giant", memory_mib=850, idle_timeout_s=1),
            a_function("cold", memory_mib=150, format=FormatName.DEFAULT),
            a_function("cold2", memory_mib=300, max_concurrency=1, format=FormatName.DEFAULT),
        ]
        self.open: set[Invocation] = set()
        self.rush = self.random.choice([3, 7, 14])
        """How many calls come, beside how many end: few leave containers idle, many leave no memory."""

    def some(self, of: Iterable[Any]) -> Any:
        choices = list(of)
        return self.random.choice(choices) if choices else None

    def step(self) -> None:
        steps = {
            self.do_submit: self.rush,
            self.do_ready: 6,
            self.do_answer: 11,
            self.do_break: 1,
            self.do_drain: 0.5,
            self.do_fail: 1,
            self.do_die: 1,
            self.do_gone: 6,
            self.do_thaw: 4,
            self.do_fail_to_freeze: 0.5,
            self.do_cold_end: 4,
            self.do_withdraw: 1,
            self.do_adopt: 0.5,
            self.do_retire: 0.3,
            self.do_prepare: 0.5,
            self.do_time: 3,
        }
        self.random.choices(list(steps), list(steps.values()))[0]()

    def do_submit(self) -> None:
        invocation = an_invocation(self.some(self.functions))
        self.open.add(invocation)
        try:
            self.pool.submit(invocation, self.now + self.random.choice([2, 10, math.inf]))
        except NoCapacityError:
            self.open.discard(invocation)

    def do_ready(self) -> None:
        if self.starting:
            self.ready(self.some(self.starting))

    def do_answer(self) -> None:
        if container := self.some(self.busy):
            self.random.shuffle(container.invocations)
            self.open.discard(container.invocation)
            if self.random.random() < 0.05 and not container.ended.done():
                container.ended.set_result(None)
                self.pool.died(container)  # type: ignore[arg-type]
            self.answer(container)

    def do_break(self) -> None:
        if container := self.some(self.busy):
            self.open.difference_update(container.invocations)
            self.stop(container)

    def do_drain(self) -> None:
        if container := self.some(self.busy):
            self.pool.drain(container)  # type: ignore[arg-type]

    def do_fail(self) -> None:
        if self.starting:
            self.random.shuffle(self.starting)
            self.open.discard(self.fail())  # type: ignore[arg-type]

    def do_die(self) -> None:
        if (container := self.some([*self.idle, *self.frozen, *self.thawing])) and not container.ended.done():
            self.die(container)

    def do_gone(self) -> None:
        if self.stopping:
            self.gone(self.some(self.stopping))

    def do_thaw(self) -> None:
        if container := self.some(self.thawing):
            self.thawing.remove(container)
            if self.random.random() < 0.1:
                self.pool.thaw_failed(container)
            else:
                self.pool.thawed(container)

    def do_fail_to_freeze(self) -> None:
        if container := self.some(self.freezing):
            self.freezing.remove(container)
            self.pool.freeze_failed(container)

    def do_cold_end(self) -> None:
        if entry := self.some(self.cold):
            self.cold.remove(entry)
            self.open.discard(entry[0])
            self.pool.cold_ended(entry[0].function, entry[1])

    def do_withdraw(self) -> None:
        if entry := self.some(entry for pool in self.pool for entry in pool.waiting):
            assert self.pool.withdraw(entry[0])
            self.open.discard(entry[0])

    def do_adopt(self) -> None:
        self.pool.adopt(self.some(self.functions))

    def do_retire(self) -> None:
        self.pool.retire(self.some(self.functions).key)

    def do_prepare(self) -> None:
        function = self.some(one for one in self.functions if one.format is not FormatName.DEFAULT)
        self.pool.launch_ahead(function, self.random.randrange(4))

    def do_time(self) -> None:
        self.now += self.random.choice([0.01, 0.5, 2.0])
        self.pool.sweep()
        for invocation, _ in self.refused:
            self.open.discard(invocation)
        self.refused.clear()

    @property
    def frozen(self) -> list[FakeContainer]:
        return [container for pool in self.pool for container in pool.frozen]  # type: ignore[misc]

    def check(self) -> None:
        self.made[:] = [one for one in self.made if one.state is not ContainerState.DEAD]
        audit_pool(self.pool, self.made, self.cold)  # type: ignore[arg-type]
        waiting = {invocation for pool in self.pool for invocation, _ in pool.waiting}
        running = {call for one in self.busy for call in one.invocations} | {invocation for invocation, _ in self.cold}
        assert self.open == waiting | running, "every call is in line or runs"
        assert not waiting & running
        assert all(one.running == len(one.invocations) for one in self.busy)
        for pool in self.pool:
            assert all(older.idle_since <= younger.idle_since for older, younger in pairwise(pool.idle))

    def finish(self) -> None:
        """Let everything come to its end."""
        for function in self.functions:
            self.pool.retire(function.key)
        while self.starting or self.stopping or self.busy or self.cold or self.thawing:
            self.do_ready()
            self.do_answer()
            self.do_cold_end()
            self.do_thaw()
            self.do_gone()
            self.check()
        self.pool.close()
        while self.stopping:
            self.do_gone()


@pytest.mark.parametrize("seed", range(10))
async def test_thousands_of_random_steps_lose_no_call_and_no_memory(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    life = Life(seed)
    for module in (pool_module, shortage_module):
        monkeypatch.setattr(module, "monotonic", lambda: life.now)
    for _ in range(2000):
        life.step()
        life.check()
    life.finish()
    assert not life.open
    assert repr(life.pool) == EMPTY
