"""Apps take turns: one app's flood does not hold up another's call."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

from faas.clock import utc_now
from tests.contract.queues import dispatched, ids_of, leased
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from faas.queue.base import CallQueue

FLOOD = 300


async def taken(queue: CallQueue, count: int) -> list[str]:
    """The next calls, leased one by one as by workers with one free slot."""
    return [(await leased(queue))[0].call_id for _ in range(count)]


async def test_a_single_call_waits_at_most_one_turn_of_another_apps_flood(queue: CallQueue) -> None:
    flood = await dispatched(queue, FLOOD, fairness_key="flood")
    await taken(queue, FLOOD // 2)
    [single] = await dispatched(queue, fairness_key="small")
    assert single in await taken(queue, 2)
    assert await taken(queue, 3) == flood[FLOOD // 2 + 1 :][:3]


async def test_a_lease_of_many_calls_takes_turns_too(queue: CallQueue) -> None:
    flood = await dispatched(queue, FLOOD, fairness_key="flood")
    small = await dispatched(queue, 3, fairness_key="small")
    first = ids_of(await leased(queue, 8))
    assert set(first[:6]) == {*flood[:3], *small}
    assert [call_id for call_id in first if call_id in small] == small, "inside an app the oldest goes first"
    assert first[6:] == flood[3:5]


async def test_floods_of_three_apps_move_on_together(queue: CallQueue) -> None:
    apps = {name: await dispatched(queue, 20, fairness_key=name) for name in ("a", "b", "c")}
    await taken(queue, 6)
    late = await dispatched(queue, 20, fairness_key="late")
    served = await taken(queue, 40)
    for ids in (*apps.values(), late):
        assert sum(call_id in ids for call_id in served) in (9, 10, 11)


async def test_an_app_that_always_comes_back_does_not_starve_who_is_in_line(queue: CallQueue) -> None:
    await dispatched(queue, 20, fairness_key="a")
    flood = await dispatched(queue, 20, fairness_key="z")
    served: list[str] = []
    for _ in range(30):
        await dispatched(queue, fairness_key="m")
        served += await taken(queue, 1)
    assert sum(call_id in flood for call_id in served) in (9, 10, 11)


async def test_turns_are_taken_inside_a_priority_only(queue: CallQueue) -> None:
    low = await dispatched(queue, 3, fairness_key="small")
    high = await dispatched(queue, 5, fairness_key="flood", priority=1)
    assert await taken(queue, 6) == [*high, low[0]]


async def test_a_call_that_runs_long_gives_its_app_no_turns_to_save(queue: CallQueue) -> None:
    flood = await dispatched(queue, FLOOD, fairness_key="flood")
    await taken(queue, 50)  # held all the while
    late = await dispatched(queue, 50, fairness_key="late")
    served = await taken(queue, 20)
    assert sum(call_id in late for call_id in served) == 10
    assert sum(call_id in flood for call_id in served) == 10


async def test_delayed_calls_that_are_due_together_are_no_flood_either(queue: CallQueue) -> None:
    due = utc_now() + timedelta(seconds=0.5)
    flood = await dispatched(queue, 20, fairness_key="flood", not_before=due)

    async def are_due() -> bool:
        return (await queue.depth()).waiting == len(flood)

    await wait_until(are_due)
    first = await taken(queue, 2)
    small = await dispatched(queue, 2, fairness_key="small")
    assert first == flood[:2]
    assert set(await taken(queue, 4)) == {*flood[2:4], *small}


async def test_the_turns_of_discarded_calls_are_nobodys(queue: CallQueue, other: CallQueue) -> None:
    flood = await dispatched(queue, 5, fairness_key="flood")
    gone = await dispatched(queue, 5, fairness_key="gone")
    await asyncio.gather(*[other.discard(call_id) for call_id in gone])
    assert await taken(queue, 5) == flood
    assert await leased(queue) == []
