"""The runner's books, checked against what is there: who counts what must find the same.

`audit_pool` and `audit` hold between any two callbacks of the event loop, `audit_settled` when no task of the agent's
is left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from faas.runner.container import ContainerState
from faas.runner.invocation import Invocation, State
from faas.runner.slot import Slot

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from faas.runner.capacity import Reservation
    from faas.runner.container import HotContainer
    from faas.runner.function_pool import FunctionPool
    from faas.runner.pool import Pool
    from tests.support.inprocess import InProcessExecutor
    from tests.support.rig import RecordedAgent

__all__ = ["audit", "audit_pool", "audit_settled"]

_WITH_ROOM = (ContainerState.IDLE, ContainerState.BUSY)
_GONE = (ContainerState.STOPPING, ContainerState.DEAD)


def audit_pool(pool: Pool, made: Iterable[HotContainer], cold: Iterable[tuple[Invocation, Reservation]]) -> None:
    """Counts, levels and memory are what the containers say; `made` holds all hot ones that are not dead, `cold` the
    calls that have a container of their own."""
    hot = [one for one in made if one.state is not ContainerState.DEAD]
    cold_keys = [call.function.key for call, _ in cold]
    cold_mib = sum(reservation.memory_mib for _, reservation in cold)
    hot_mib = sum(one.reservation.memory_mib for one in hot)
    assert pool._capacity.used_mib == hot_mib + cold_mib <= pool._capacity.total_mib
    stopping_mib = sum(one.reservation.memory_mib for one in hot if one.state is ContainerState.STOPPING)
    assert pool._stopping_mib == stopping_mib
    assert {id(one.pool) for one in hot} <= {id(one) for one in pool}, "a container's pool was forgotten"
    for function_pool in pool:
        of_it = [one for one in hot if one.pool is function_pool]
        cold_count = cold_keys.count(function_pool.function.key)
        _audit_function(function_pool, of_it, cold_count, is_closed=pool.is_closed)
        is_short = function_pool in set(pool._short)
        is_coming = function_pool.starting or function_pool.stopping or function_pool.busy
        assert not function_pool.waiting or is_coming or is_short, f"calls wait for nothing: {function_pool}"
        # What did not start is tried again when it is gone.
        may_grow = function_pool.has_room and not is_short and not function_pool.stopping and not pool.is_closed
        assert function_pool.is_served or not may_grow, f"a container could be made: {function_pool}"
    for short in pool._short:
        assert pool.find(short.function.key) is short
        assert not short.is_served, "it lacks no memory"


def _audit_function(pool: FunctionPool, hot: Sequence[HotContainer], cold: int, *, is_closed: bool) -> None:
    limit = pool.function.max_concurrency
    assert pool.live == len(hot) + cold
    assert limit == 0 or pool.live <= limit
    assert pool.starting == sum(one.state is ContainerState.STARTING for one in hot)
    assert pool.stopping == sum(one.state is ContainerState.STOPPING for one in hot)
    assert set(pool.frozen) == {one for one in hot if one.state is ContainerState.FROZEN}
    for running, level in enumerate(pool.levels):
        # A closed pool keeps a container that became busy after the end out of its levels.
        expected = {one for one in hot if _has_room(pool, one) and one.running == running}
        assert set(level) <= expected if is_closed else set(level) == expected, (running, level, expected)
    lowest = next((running for running, level in enumerate(pool.levels) if level), pool.concurrency)
    assert pool._lowest <= lowest
    assert not pool.waiting or lowest == pool.concurrency, f"calls wait beside a container with room: {pool}"
    assert not pool.is_unused, "it should be forgotten"
    for container in hot:
        _audit_container(container)


def _audit_container(container: HotContainer) -> None:
    assert 0 <= container.running <= container.pool.concurrency
    if container.state in (ContainerState.STARTING, ContainerState.IDLE, ContainerState.FROZEN):
        assert not container.running
    elif container.state is ContainerState.BUSY:
        assert container.running, "busy with nothing"


def _has_room(pool: FunctionPool, container: HotContainer) -> bool:
    return (
        container.state in _WITH_ROOM
        and container.running < pool.concurrency
        and container.generation == pool.generation
    )


def audit(agent: RecordedAgent) -> None:
    """Every call that has not ended is in line or runs, in one place; every taken place has its call, or is lent."""
    calls = set(agent.running.values())
    waiting = {entry[0] for pool in agent.pool for entry in pool.waiting if isinstance(entry[0], Invocation)}
    hot = {call for call in calls if isinstance(call.runner, Slot)}
    cold = [(call, reservation) for call, reservation in agent.cold if reservation._capacity is not None]
    audit_pool(agent.pool, agent.made, cold)
    assert waiting <= calls
    for call in waiting:
        assert call.state is State.WAITING
        assert call.runner is None
        assert call.stop is None, "a stopped call is in line no more"
    assert calls - waiting - hot <= {call for call, _ in agent.cold}, "nobody looks after a call"
    for container in agent.made:
        _audit_places(container, hot)


def _audit_places(container: HotContainer, hot: Iterable[Invocation]) -> None:
    slots = [call.runner for call in hot if isinstance(call.runner, Slot) and call.runner.container is container]
    assert len(slots) == len(set(slots)), "a place has two calls"
    assert not set(slots) & set(container._free_slots), "the place of a running call is free"
    if container.state not in _GONE:
        assert container.running == len(slots) + len(container.loans)
        assert len(container.slots) == len(container._free_slots) + len(slots)


def audit_settled(agent: RecordedAgent, executor: InProcessExecutor) -> None:
    """Nothing is under way but calls that wait for their functions: what the engine has is what the agent knows."""
    assert not len(agent._tasks)
    audit(agent)
    engines = {spare.engine.id for spare in agent.keeper.spares._spares.values()}
    folders = {spare.socket_dir.name for spare in agent.keeper.spares._spares.values() if spare.socket_dir is not None}
    for container in agent.made:
        if container.state is ContainerState.DEAD:
            _audit_dead(container)
            continue
        assert container.state not in (ContainerState.STARTING, ContainerState.STOPPING)
        assert container.engine is not None
        engines.add(container.engine.id)
        if container.socket_dir_or_none is not None:
            folders.add(container.socket_dir_or_none.name)
        for slot in container.slots:
            assert (slot.invocation is None) == (slot in container._free_slots)
    assert agent.keeper.containers == engines == set(executor.containers)
    assert agent.keeper.socket_dirs == folders


def _audit_dead(container: HotContainer) -> None:
    for slot in container.slots:
        assert slot.invocation is None, "a call runs in a dead container"
        assert slot.channel is None or not slot.channel.is_usable, "a connection to a dead container is open"
