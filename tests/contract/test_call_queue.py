"""What every call queue promises: in SQL on SQLite and PostgreSQL, and in Redis."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import TYPE_CHECKING

from faas.clock import monotonic, utc_now
from faas.ids import new_id
from faas.queue.base import Depth, Ticket
from tests.contract.queues import LONG_S, SHORT_S, dispatched, ids_of, leased
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from faas.queue.base import CallQueue

# --- order


async def test_an_empty_queue_gives_nothing(queue: CallQueue) -> None:
    assert await leased(queue, 10) == []
    assert await queue.depth() == Depth(waiting=0, delayed=0, leased=0, oldest_waiting_s=0.0)
    assert await queue.known([new_id()]) == set()
    assert await queue.known([]) == set()


async def test_calls_are_leased_in_the_order_of_their_dispatch(queue: CallQueue) -> None:
    ids = [new_id() for _ in range(20)]
    random.Random(1).shuffle(ids)
    for call_id in ids:
        await queue.dispatch(Ticket(call_id=call_id))
    assert ids_of(await leased(queue, 7)) == ids[:7]
    assert ids_of(await leased(queue, 100)) == ids[7:]


async def test_a_higher_priority_always_goes_first(queue: CallQueue) -> None:
    low = await dispatched(queue, 3, priority=0)
    middle = await dispatched(queue, 3, priority=1)
    high = await dispatched(queue, 3, priority=2)
    assert ids_of(await leased(queue, 1)) == high[:1]
    assert ids_of(await leased(queue, 4)) == [*high[1:], *middle[:2]]
    late = await dispatched(queue, 1, priority=2)
    assert ids_of(await leased(queue, 100)) == [*late, *middle[2:], *low]


async def test_a_call_is_in_line_once_however_often_it_is_dispatched(queue: CallQueue, other: CallQueue) -> None:
    call_id = new_id()
    await asyncio.gather(*[each.dispatch(Ticket(call_id=call_id)) for each in (queue, other) * 10])
    [lease] = await leased(queue, 10)
    await queue.dispatch(Ticket(call_id=call_id))
    assert await leased(queue, 10) == []
    assert await queue.ack(lease)
    await queue.dispatch(Ticket(call_id=call_id))
    assert ids_of(await leased(queue, 10)) == [call_id]


async def test_twenty_lessees_of_two_nodes_get_each_of_500_calls_exactly_once(
    queue: CallQueue, other: CallQueue
) -> None:
    ids = [new_id() for _ in range(500)]
    seen: list[str] = []

    async def work(node: CallQueue, number: int) -> None:
        while len(seen) < len(ids):
            for lease in await leased(node, 3, owner=f"node-{number}", wait_s=0.05):
                seen.append(lease.call_id)
                assert await node.ack(lease)

    async def dispatch(node: CallQueue, part: list[str]) -> None:
        await asyncio.gather(
            *[node.dispatch(Ticket(call_id=call_id, priority=index % 3)) for index, call_id in enumerate(part)]
        )

    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(work((queue, other)[number % 2], number))
        group.create_task(dispatch(queue, ids[:250]))
        group.create_task(dispatch(other, ids[250:]))
    assert sorted(seen) == sorted(ids)
    assert (await queue.depth()).leased == 0
    assert await queue.known(ids) == set()


# --- waiting


async def test_a_waiting_lessee_is_woken_by_a_dispatch(queue: CallQueue) -> None:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(leased(queue, wait_s=20))
        await asyncio.sleep(0.05)
        at = monotonic()
        [call_id] = await dispatched(queue)
    assert ids_of(task.result()) == [call_id]
    assert monotonic() - at < 0.5


async def test_a_lessee_of_another_node_sees_a_dispatch_within_a_second_or_so(
    queue: CallQueue, other: CallQueue
) -> None:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(leased(other, wait_s=20))
        await asyncio.sleep(0.05)
        at = monotonic()
        [call_id] = await dispatched(queue)
    assert ids_of(task.result()) == [call_id]
    assert monotonic() - at < 2.0


async def test_a_waiting_lessee_is_woken_by_a_release(queue: CallQueue) -> None:
    [call_id] = await dispatched(queue)
    [lease] = await leased(queue)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(leased(queue, wait_s=20))
        await asyncio.sleep(0.05)
        at = monotonic()
        assert await queue.release(lease)
    assert ids_of(task.result()) == [call_id]
    assert monotonic() - at < 0.5


async def test_waiting_ends_when_the_time_is_over(queue: CallQueue) -> None:
    at = monotonic()
    assert await leased(queue, wait_s=0.2) == []
    assert 0.19 < monotonic() - at < 1.0


async def test_a_lessee_ends_when_it_is_cancelled_at_any_step(queue: CallQueue) -> None:
    for steps in range(60):
        task = asyncio.get_running_loop().create_task(leased(queue, wait_s=60))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        assert (await asyncio.wait([task], timeout=10))[0], f"the cancellation at step {steps} was lost"
        assert task.cancelled()


async def test_cancelled_lessees_take_no_call_along(queue: CallQueue, other: CallQueue) -> None:
    chance = random.Random(1)
    ids: list[str] = []
    for _ in range(30):
        task = asyncio.get_running_loop().create_task(leased(queue, wait_s=10, lease_s=SHORT_S))
        await asyncio.sleep(chance.random() * 0.01)
        if chance.random() < 0.5:
            ids += await dispatched(other)
        task.cancel()
        await asyncio.wait([task])
    back: set[str] = set()

    async def all_are_back() -> bool:
        back.update(ids_of(await leased(queue, 100)))
        return back == set(ids)

    await wait_until(all_are_back)


# --- delays


async def test_a_delayed_call_waits_until_it_is_due(queue: CallQueue) -> None:
    at = monotonic()
    [call_id] = await dispatched(queue, not_before=utc_now() + timedelta(seconds=0.4))
    assert await leased(queue) == []
    depth = await queue.depth()
    assert (depth.waiting, depth.delayed, depth.leased, depth.oldest_waiting_s) == (0, 1, 0, 0.0)
    assert await queue.known([call_id]) == {call_id}
    assert ids_of(await leased(queue, wait_s=10)) == [call_id]
    assert 0.35 < monotonic() - at < 1.0


async def test_a_call_delayed_after_the_lessee_fell_asleep_wakes_it_in_time(queue: CallQueue) -> None:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(leased(queue, wait_s=20))
        await asyncio.sleep(0.05)
        at = monotonic()
        await dispatched(queue, not_before=utc_now() + timedelta(seconds=0.2))
    assert 0.15 < monotonic() - at < 0.7
    assert len(task.result()) == 1


async def test_a_delay_that_is_over_is_none(queue: CallQueue) -> None:
    [call_id] = await dispatched(queue, not_before=utc_now() - timedelta(days=1))
    assert (await queue.depth()).oldest_waiting_s < 5
    assert ids_of(await leased(queue)) == [call_id]


async def test_a_delayed_call_that_is_due_keeps_to_its_priority(queue: CallQueue) -> None:
    low = await dispatched(queue, priority=0)
    high = await dispatched(queue, priority=2, not_before=utc_now() + timedelta(seconds=0.05))
    await asyncio.sleep(0.1)
    assert ids_of(await leased(queue, 2)) == [*high, *low]


async def test_a_delayed_call_is_not_dispatched_twice(queue: CallQueue) -> None:
    [call_id] = await dispatched(queue, not_before=utc_now() + timedelta(hours=1))
    await queue.dispatch(Ticket(call_id=call_id))
    assert await leased(queue) == []


# --- leases


async def test_a_leased_call_is_nobody_elses(queue: CallQueue, other: CallQueue) -> None:
    await dispatched(queue)
    assert len(await leased(queue)) == 1
    assert await leased(queue) == []
    assert await leased(other) == []


async def test_an_expired_lease_comes_back_to_somebody_who_waits(queue: CallQueue, other: CallQueue) -> None:
    [call_id] = await dispatched(queue)
    [lost] = await leased(queue, lease_s=SHORT_S)
    at = monotonic()
    [found] = await leased(other, owner="node-2", wait_s=10)
    assert monotonic() - at < SHORT_S + 1.5
    assert found.call_id == call_id
    assert found.token != lost.token


async def test_an_expired_lease_goes_before_the_line_but_not_before_a_higher_priority(queue: CallQueue) -> None:
    first, second = await dispatched(queue, 2)
    await leased(queue, lease_s=0.05)
    [high] = await dispatched(queue, priority=1)
    await asyncio.sleep(0.1)
    assert ids_of(await leased(queue, 3)) == [high, first, second]


async def test_a_renewed_lease_does_not_expire(queue: CallQueue) -> None:
    ids = await dispatched(queue, 2)
    kept, dropped = await leased(queue, 2, lease_s=SHORT_S)
    assert [kept.call_id, dropped.call_id] == ids
    assert await queue.renew([kept], lease_s=LONG_S) == set()
    [found] = await leased(queue, 2, wait_s=5)
    assert found.call_id == dropped.call_id
    assert await leased(queue, 2) == []


async def test_renewing_names_the_leases_that_are_lost(queue: CallQueue) -> None:
    await dispatched(queue, 3)
    kept, taken, acked = await leased(queue, 3, lease_s=SHORT_S)
    assert await queue.renew([kept], lease_s=LONG_S) == set()
    assert await queue.ack(acked)
    assert ids_of(await leased(queue, 3, wait_s=5)) == [taken.call_id]
    assert await queue.renew([kept, taken, acked], lease_s=LONG_S) == {taken.call_id, acked.call_id}
    assert await queue.renew([], lease_s=LONG_S) == set()


async def test_a_lost_lease_can_neither_ack_nor_release_nor_renew(queue: CallQueue, other: CallQueue) -> None:
    await dispatched(queue)
    [stale] = await leased(queue, lease_s=0.05)
    [present] = await leased(other, wait_s=5)
    assert not await queue.ack(stale)
    assert not await queue.release(stale)
    assert not await queue.release(stale, not_before=utc_now() + timedelta(hours=1))
    assert await queue.renew([stale], lease_s=LONG_S) == {stale.call_id}
    assert await leased(queue) == []
    assert await other.renew([present], lease_s=LONG_S) == set()
    assert await other.ack(present)
    assert not await other.ack(present)


async def test_an_acked_call_is_forgotten(queue: CallQueue) -> None:
    [call_id] = await dispatched(queue)
    [lease] = await leased(queue)
    assert await queue.known([call_id, new_id()]) == {call_id}
    assert await queue.ack(lease)
    assert not await queue.ack(lease)
    assert await queue.known([call_id]) == set()
    assert await queue.depth() == Depth(waiting=0, delayed=0, leased=0, oldest_waiting_s=0.0)


async def test_a_released_call_keeps_its_place(queue: CallQueue) -> None:
    ids = await dispatched(queue, 3)
    first, _ = await leased(queue, 2)
    assert await queue.release(first)
    assert not await queue.release(first)
    assert not await queue.ack(first)
    assert ids_of(await leased(queue, 3)) == [ids[0], ids[2]]


async def test_a_call_released_for_later_waits_until_then(queue: CallQueue) -> None:
    [call_id] = await dispatched(queue, priority=1)
    [lease] = await leased(queue)
    assert await queue.release(lease, not_before=utc_now() + timedelta(seconds=0.3))
    assert await leased(queue) == []
    assert (await queue.depth()).delayed == 1
    [again] = await leased(queue, wait_s=10)
    assert again.call_id == call_id
    assert await queue.ack(again)


async def test_a_nodes_earlier_boot_gives_all_its_leases_back(queue: CallQueue, other: CallQueue) -> None:
    ids = await dispatched(queue, 4)
    await leased(queue, 2, owner="node-1/boot-a/x")
    await leased(queue, 1, owner="node-1/boot-b")
    await leased(queue, 1, owner="NODE-1/boot-a")
    assert await other.release_owned("node-1/boot-a") == 2
    assert await other.release_owned("node-1/boot-a") == 0
    assert await other.release_owned("node_1") == 0
    assert ids_of(await leased(other, 10, owner="node-1/boot-c")) == ids[:2]


# --- looking and forgetting


async def test_the_depth_tells_waiting_delayed_and_leased_apart(queue: CallQueue) -> None:
    await dispatched(queue, 3)
    await dispatched(queue, 2, not_before=utc_now() + timedelta(hours=1))
    first, _ = await leased(queue, 2)
    await dispatched(queue, 2, priority=2)
    depth = await queue.depth()
    assert (depth.waiting, depth.delayed, depth.leased) == (3, 2, 2)
    await queue.release(first)
    depth = await queue.depth()
    assert (depth.waiting, depth.delayed, depth.leased) == (4, 2, 1)


async def test_the_depth_says_how_long_the_oldest_has_waited(queue: CallQueue) -> None:
    [old] = await dispatched(queue)
    await asyncio.sleep(0.3)
    await dispatched(queue, priority=2)
    assert 0.25 < (await queue.depth()).oldest_waiting_s < 5
    assert old in ids_of(await leased(queue, 2))
    assert (await queue.depth()).oldest_waiting_s == 0.0


async def test_a_discarded_call_is_forgotten_in_every_state(queue: CallQueue) -> None:
    [held_id] = await dispatched(queue)
    [lease] = await leased(queue)
    [waiting] = await dispatched(queue)
    [delayed] = await dispatched(queue, not_before=utc_now() + timedelta(hours=1))
    for call_id in (held_id, waiting, delayed, new_id()):
        await queue.discard(call_id)
    assert await queue.known([held_id, waiting, delayed]) == set()
    assert not await queue.ack(lease)
    assert await queue.renew([lease], lease_s=LONG_S) == {held_id}
    assert await leased(queue, 10) == []
    await queue.dispatch(Ticket(call_id=held_id))
    assert ids_of(await leased(queue, 10)) == [held_id]


async def test_what_was_dispatched_outlives_the_node(nodes: tuple[CallQueue, CallQueue]) -> None:
    queue, other = nodes
    [call_id] = await dispatched(queue)
    await queue.close()
    assert ids_of(await leased(other)) == [call_id]
