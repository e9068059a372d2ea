"""What the store promises about idempotency keys, the same on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from faas.clock import utc_now
from faas.ids import new_id
from faas.store.idempotency import ClaimedKey
from tests.support.samples import a_call, a_request

if TYPE_CHECKING:
    from faas.store.engine import Store

NOW = utc_now()
LATER = NOW + timedelta(seconds=30)


def a_claim(**changes: Any) -> ClaimedKey:
    values: dict[str, Any] = {
        "app_name": "demo",
        "path": "/hello",
        "key": "k",
        "fingerprint": "f" * 64,
        "call_id": new_id(),
        "created_at": NOW,
        "held_until": LATER,
    }
    return ClaimedKey(**{**values, **changes})


async def test_of_many_who_claim_a_key_at_the_same_time_one_gets_it(store: Store) -> None:
    claims = [a_claim() for _ in range(8)]
    found = await asyncio.gather(*(store.idempotency_keys.claim(one, NOW) for one in claims))
    assert len(set(found)) == 1
    assert found[0] in claims


async def test_a_key_is_one_of_an_app_and_a_route(store: Store) -> None:
    for other in (a_claim(), a_claim(app_name="b"), a_claim(path="/b"), a_claim(key="b")):
        assert await store.idempotency_keys.claim(other, NOW) == other


async def test_a_settled_key_stands_for_its_call_for_good(store: Store) -> None:
    first = a_claim()
    await store.idempotency_keys.claim(first, NOW)
    await store.idempotency_keys.settle(first.call_id)
    found = await store.idempotency_keys.claim(a_claim(), LATER + timedelta(hours=1))
    assert found == replace(first, held_until=None)


async def test_a_released_key_is_free(store: Store) -> None:
    first, second = a_claim(), a_claim()
    await store.idempotency_keys.claim(first, NOW)
    await store.idempotency_keys.release(first.call_id)
    assert await store.idempotency_keys.find(first) is None
    assert await store.idempotency_keys.claim(second, NOW) == second


async def test_a_key_that_nobody_holds_any_more_is_taken_over_by_one(store: Store) -> None:
    await store.idempotency_keys.claim(a_claim(), NOW)
    claims = [a_claim(held_until=LATER + timedelta(seconds=30), fingerprint="e" * 64) for _ in range(8)]
    found = await asyncio.gather(*(store.idempotency_keys.claim(one, LATER) for one in claims))
    winners = set(found) - {None}
    assert len(winners) == 1
    assert winners <= set(claims)


async def test_a_key_that_is_held_longer_is_not_taken_over(store: Store) -> None:
    first = a_claim()
    await store.idempotency_keys.claim(first, NOW)
    much_later = LATER + timedelta(seconds=30)
    await store.idempotency_keys.hold([first.call_id], much_later)
    assert await store.idempotency_keys.claim(a_claim(), LATER) == replace(first, held_until=much_later)


async def test_a_key_whose_call_was_written_down_is_never_taken_over(store: Store) -> None:
    first = a_claim()
    await store.idempotency_keys.claim(first, NOW)
    await store.calls.insert(a_call(id=first.call_id), a_request())
    found = await store.idempotency_keys.claim(a_claim(), LATER)
    assert found == replace(first, held_until=None)


async def test_old_keys_are_purged_unless_their_call_is_under_way(store: Store) -> None:
    held, old, young = a_claim(key="held"), a_claim(key="old"), a_claim(key="young", created_at=LATER)
    for claim in (held, old, young):
        await store.idempotency_keys.claim(claim, NOW)
    await store.idempotency_keys.settle(old.call_id)
    await store.idempotency_keys.settle(young.call_id)
    assert await store.idempotency_keys.purge(before=LATER, limit=10) == 1
    left = [await store.idempotency_keys.find(claim) is not None for claim in (held, old, young)]
    assert left == [True, False, True]
