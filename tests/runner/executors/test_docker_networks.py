"""The pool of network namespaces: what is made when, who gets which, what happens when a holder ends. Offline."""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import TYPE_CHECKING

import pytest

from faas.errors import EngineError, EngineUnavailableError
from faas.runner.executors import docker_networks
from faas.runner.executors.docker_networks import Namespace, NetworkPool, State
from faas.tasks import TaskSet
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from faas.errors import FaasError

    MakePool = Callable[..., NetworkPool]

CALM_S = 0.02
NOTHING_HAPPENS_S = 5 * CALM_S


class FakeHolders:
    """Holders without an engine."""

    def __init__(self) -> None:
        self.running: dict[str, str] = {}
        """Id -> name."""
        self.making: list[asyncio.Future[str | None]] = []
        self.most_at_once = 0
        self.made = 0
        self.removed: list[str] = []
        self.is_held = False
        """Whether `make` waits for `finish`."""
        self.error: FaasError | None = None
        self.is_supported = True
        self._names: dict[asyncio.Future[str | None], str] = {}
        self._callbacks: dict[str, Callable[[], None]] = {}
        self._ids = (f"holder-{number}" for number in itertools.count(1))

    def make(self, name: str = "") -> asyncio.Future[str | None]:
        making: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self.made += 1
        self.making.append(making)
        self._names[making] = name
        self.most_at_once = max(self.most_at_once, len(self.making))
        if not self.is_held:
            asyncio.get_running_loop().call_soon(self.finish)
        return making

    def finish(self) -> None:
        making = self.making.pop(0)
        if self.error is not None:
            making.set_exception(self.error)
        elif not self.is_supported:
            making.set_result(None)
        else:
            holder_id = next(self._ids)
            self.running[holder_id] = self._names[making]
            making.set_result(holder_id)

    async def remove(self, holder_id: str) -> None:
        self.removed.append(holder_id)
        self.running.pop(holder_id, None)

    def on_end(self, holder_id: str, callback: Callable[[], None]) -> None:
        self._callbacks[holder_id] = callback

    def end(self, holder_id: str) -> None:
        """Somebody killed it."""
        del self.running[holder_id]
        self._callbacks[holder_id]()


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_networks, "CALM_S", CALM_S)
    monkeypatch.setattr(docker_networks, "SURPLUS_INTERVAL_S", 0.0)
    monkeypatch.setattr(docker_networks, "RETRY_DELAYS_S", (0.01,))


@pytest.fixture
def holders() -> FakeHolders:
    return FakeHolders()


@pytest.fixture
async def make_pool(holders: FakeHolders) -> AsyncIterator[MakePool]:
    """Makes open pools; none of their tasks fails."""
    failures: list[BaseException] = []
    async with TaskSet("test", on_failure=failures.append) as tasks:

        def make(target: int = 2, *, is_reusable: bool = True) -> NetworkPool:
            pool = NetworkPool(holders, target=target, is_reusable=is_reusable, tasks=tasks)
            pool.open()
            return pool

        yield make
    assert not failures


async def until_free(pool: NetworkPool, free: int) -> None:
    await wait_until(lambda: f" {free} of " in repr(pool))


def take(pool: NetworkPool, container_id: str) -> Namespace:
    namespace = pool.take()
    assert namespace is not None
    pool.used_by(container_id, namespace)
    return namespace


# --- keeping as many as wanted


async def test_as_many_as_wanted_are_made_one_after_the_other(make_pool: MakePool, holders: FakeHolders) -> None:
    pool = make_pool(3)
    assert pool.take() is None
    await until_free(pool, 3)
    await asyncio.sleep(NOTHING_HAPPENS_S)
    assert (holders.made, holders.most_at_once) == (3, 1)


async def test_what_is_used_is_made_up_for(make_pool: MakePool, holders: FakeHolders) -> None:
    pool = make_pool(2)
    await until_free(pool, 2)
    first, second = take(pool, "a"), take(pool, "b")
    assert first.mode != second.mode
    assert pool.take() is None
    await until_free(pool, 2)
    assert repr(pool) == "<NetworkPool 2 of 2 free, 2 used>"


async def test_nothing_is_made_while_a_container_is_started(make_pool: MakePool, holders: FakeHolders) -> None:
    pool = make_pool(1)
    with pool.start_under_way(), pool.start_under_way():
        await asyncio.sleep(NOTHING_HAPPENS_S)
        assert holders.made == 0
    await until_free(pool, 1)


async def test_starts_that_follow_each_other_are_no_calm_moment(
    make_pool: MakePool, holders: FakeHolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_networks, "CALM_S", 0.5)
    pool = make_pool(1)
    for _ in range(60):
        with pool.start_under_way():
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.005)
    assert holders.made == 0
    await until_free(pool, 1)


async def test_the_one_that_rested_longest_is_next(make_pool: MakePool) -> None:
    pool = make_pool(3)
    await until_free(pool, 3)
    used = [take(pool, name) for name in "abc"]
    for name in "bca":
        pool.release(name)
    assert [pool.take() for _ in range(3)] == [used[1], used[2], used[0]]


async def test_more_than_twice_as_many_as_wanted_are_not_kept(make_pool: MakePool, holders: FakeHolders) -> None:
    pool = make_pool(1)
    for name in "abcd":
        await until_free(pool, 1)
        take(pool, name)
    for name in "abcd":
        pool.release(name)
    await wait_until(lambda: len(holders.running) == 2)
    await asyncio.sleep(NOTHING_HAPPENS_S)
    assert repr(pool) == "<NetworkPool 2 of 1 free, 0 used>"


async def test_nothing_is_made_for_a_target_of_zero(make_pool: MakePool, holders: FakeHolders) -> None:
    pool = make_pool(0)
    await asyncio.sleep(NOTHING_HAPPENS_S)
    assert pool.take() is None
    assert holders.made == 0


# --- using one


async def test_a_namespace_is_free_again_when_its_container_is_gone(make_pool: MakePool) -> None:
    pool = make_pool(1)
    await until_free(pool, 1)
    namespace = take(pool, "a")
    await until_free(pool, 1)
    pool.release("a")
    pool.release("a")
    pool.release("never heard of")
    assert repr(pool) == "<NetworkPool 2 of 1 free, 0 used>"
    assert namespace in (pool.take(), pool.take())


async def test_a_namespace_in_which_nothing_was_made_is_free_again(make_pool: MakePool) -> None:
    pool = make_pool(1)
    await until_free(pool, 1)
    namespace = pool.take()
    assert namespace is not None
    pool.give_back(namespace)
    assert pool.take() is namespace


async def test_what_is_not_reusable_serves_one_container_only(make_pool: MakePool, holders: FakeHolders) -> None:
    pool = make_pool(1, is_reusable=False)
    await until_free(pool, 1)
    holder_id = take(pool, "a").holder_id
    pool.release("a")
    await wait_until(lambda: holders.removed == [holder_id])
    assert holder_id not in pool
    await until_free(pool, 1)


# --- holders that end


async def test_a_holder_that_ended_is_not_handed_out_and_another_is_made(
    make_pool: MakePool, holders: FakeHolders
) -> None:
    pool = make_pool(1)
    await until_free(pool, 1)
    [holder_id] = holders.running
    assert holder_id in pool
    holders.end(holder_id)
    assert holder_id not in pool
    assert pool.take() is None
    await until_free(pool, 1)
    assert holders.removed == [holder_id]


async def test_the_user_hears_that_its_namespace_was_lost(make_pool: MakePool, holders: FakeHolders) -> None:
    pool = make_pool(1)
    await until_free(pool, 1)
    namespace = take(pool, "a")
    heard: list[str] = []
    namespace.on_lost = lambda: heard.append("lost")
    holders.end(namespace.holder_id)
    assert heard == ["lost"]
    pool.release("a")
    await until_free(pool, 1)
    assert pool.take() is not namespace


async def test_another_holder_takes_the_place_under_the_name_of_the_old_ones_id(
    make_pool: MakePool, holders: FakeHolders
) -> None:
    pool = make_pool(1)
    await until_free(pool, 1)
    namespace = take(pool, "a")
    await pool.revive(namespace)
    assert holders.made == 1, "nothing is to be done for one that is well"
    lost_id = namespace.holder_id
    holders.end(lost_id)
    await pool.revive(namespace)
    assert holders.running[namespace.holder_id] == lost_id
    assert namespace.holder_id in pool
    pool.release("a")
    assert namespace.state is State.FREE


async def test_a_user_that_leaves_while_a_holder_is_made_for_it_leaves_a_free_one(
    make_pool: MakePool, holders: FakeHolders
) -> None:
    pool = make_pool(1)
    await until_free(pool, 1)
    namespace = take(pool, "a")
    await until_free(pool, 1)
    holders.end(namespace.holder_id)
    holders.is_held = True
    reviving = asyncio.ensure_future(pool.revive(namespace))
    await wait_until(lambda: holders.making)
    reviving.cancel()
    pool.release("a")
    assert repr(pool) == "<NetworkPool 1 of 1 free, 0 used>"
    holders.finish()
    await until_free(pool, 2)
    assert namespace in (pool.take(), pool.take())


# --- engines that fail


async def test_an_engine_that_is_down_is_tried_again_and_complained_of_once(
    make_pool: MakePool, holders: FakeHolders, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger=docker_networks.__name__)
    holders.error = EngineUnavailableError("nobody there")
    pool = make_pool(1)
    await wait_until(lambda: holders.made >= 4)
    holders.error = None
    await until_free(pool, 1)
    assert [record.message for record in caplog.records] == ["network_pool_stalled", "network_pool_back"]


async def test_an_engine_that_can_have_no_holders_is_asked_once(
    make_pool: MakePool, holders: FakeHolders, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger=docker_networks.__name__)
    holders.is_supported = False
    pool = make_pool(3)
    await wait_until(lambda: caplog.records)
    await asyncio.sleep(NOTHING_HAPPENS_S)
    assert holders.made == 1
    assert pool.take() is None
    assert [record.message for record in caplog.records] == ["network_pool_off"]


# --- its end


async def test_closing_removes_what_nobody_uses_and_what_is_still_in_the_making(
    make_pool: MakePool, holders: FakeHolders
) -> None:
    pool = make_pool(2)
    await until_free(pool, 2)
    used = take(pool, "a")
    holders.is_held = True
    await wait_until(lambda: holders.making)
    closing = asyncio.ensure_future(pool.close())
    await asyncio.sleep(0)
    holders.finish()
    await closing
    await pool.close()
    assert list(holders.running) == [used.holder_id]
    await asyncio.sleep(NOTHING_HAPPENS_S)
    assert holders.made == 3


async def test_a_holder_that_can_not_be_removed_is_left_to_the_reaper(
    make_pool: MakePool, holders: FakeHolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_holder_id: str) -> None:
        raise EngineError("device or resource busy")

    monkeypatch.setattr(holders, "remove", refuse)
    pool = make_pool(1)
    await until_free(pool, 1)
    [holder_id] = holders.running
    await pool.close()
    assert holder_id not in pool
