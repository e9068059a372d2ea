"""What the store promises about webhook deliveries, the same on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from faas.clock import utc_now
from faas.models import CallStatus
from faas.webhooks import Delivery, DeliveryStatus, Webhooks
from tests.support.samples import a_call, a_request

if TYPE_CHECKING:
    from faas.models import Call
    from faas.store.engine import Store

WEBHOOKS = Webhooks(on_success="http://a.example/yes", on_failure="http://a.example/no", secret="whsec_x")


async def accepted(store: Store, webhooks: Webhooks | None = WEBHOOKS) -> Call:
    call = a_call(webhooks=webhooks)
    await store.calls.insert(call, a_request())
    return call


async def ended(store: Store, status: CallStatus = CallStatus.SUCCESS, webhooks: Webhooks | None = WEBHOOKS) -> Call:
    call = await accepted(store, webhooks)
    running = await store.calls.begin_attempt(call.id, node="n", started_at=utc_now())
    assert running is not None
    done = running.ended(status, completed_at=utc_now())
    assert await store.calls.finish(done, running.attempts[-1], None, None)
    return done


async def open_due(store: Store) -> int:
    return await store.deliveries.open_due(now=utc_now(), last_try=3, limit=10)


async def claim(store: Store, *, lease_s: float = 60, after_s: float = 0) -> list[Delivery]:
    now = utc_now() + timedelta(seconds=after_s)
    return await store.deliveries.claim(now=now, lease_s=lease_s, limit=10)


async def test_every_way_to_end_is_told_once_to_who_asked_for_it(store: Store) -> None:
    succeeded = await ended(store)
    failed = await ended(store, CallStatus.ERROR)
    cancelled = await accepted(store)
    assert await store.cancelling.end_waiting([cancelled.id], utc_now()) == {cancelled.id}
    expired = a_call(webhooks=WEBHOOKS, expires_at=utc_now())
    await store.calls.insert(expired, a_request())
    assert await store.expiring.end(now=utc_now(), limit=10)
    await accepted(store)
    await ended(store, webhooks=None)
    assert sum(await asyncio.gather(open_due(store), open_due(store), open_due(store))) == 4
    assert await open_due(store) == 0
    told = {delivery.call_id: delivery for delivery in await claim(store)}
    assert {call_id: delivery.url for call_id, delivery in told.items()} == {
        succeeded.id: WEBHOOKS.on_success,
        failed.id: WEBHOOKS.on_failure,
        cancelled.id: WEBHOOKS.on_failure,
        expired.id: WEBHOOKS.on_failure,
    }
    assert {(delivery.number, delivery.tries, delivery.last_try) for delivery in told.values()} == {(1, 1, 3)}


async def test_an_end_that_nobody_asked_for_makes_no_delivery(store: Store) -> None:
    call = await ended(store, CallStatus.ERROR, replace(WEBHOOKS, on_failure=""))
    assert await open_due(store) == 1
    assert await store.deliveries.of_call(call.id) == []
    assert await open_due(store) == 0


async def test_one_node_tries_until_its_claim_runs_out(store: Store) -> None:
    await ended(store)
    await open_due(store)
    claims = await asyncio.gather(*[claim(store) for _ in range(5)])
    assert sorted(len(some) for some in claims) == [0, 0, 0, 0, 1]
    assert await claim(store, after_s=59) == []
    (again,) = await claim(store, after_s=61)
    assert again.tries == 2


async def test_only_the_latest_try_says_what_became_of_it(store: Store) -> None:
    call = await ended(store)
    await open_due(store)
    (stale,) = await claim(store, lease_s=0)
    (latest,) = await claim(store)
    at = utc_now()
    failed = replace(latest, status_code=500, error="The receiver answered 500", next_try_at=at)
    assert await store.deliveries.settle(failed)
    assert not await store.deliveries.settle(replace(stale, status=DeliveryStatus.DELIVERED))
    assert await store.deliveries.of_call(call.id) == [failed]
    (third,) = await claim(store)
    done = replace(third, status=DeliveryStatus.DELIVERED, completed_at=at, status_code=204, error="", next_try_at=None)
    assert await store.deliveries.settle(done)
    assert not await store.deliveries.settle(done)
    assert await claim(store, after_s=1000) == []
    assert await store.deliveries.of_call(call.id) == [done]


async def test_a_delivery_is_sent_again_on_demand(store: Store) -> None:
    call = await ended(store)
    await open_due(store)
    (tried,) = await claim(store)
    await store.deliveries.settle(
        replace(tried, status=DeliveryStatus.FAILED, next_try_at=None, completed_at=utc_now())
    )
    again = await store.deliveries.redeliver(call.id, 1, now=utc_now(), tries=3)
    assert again is not None
    assert (again.status, again.completed_at, again.last_try) == (DeliveryStatus.PENDING, None, 4)
    assert [delivery.tries for delivery in await claim(store)] == [2]
    assert await store.deliveries.redeliver(call.id, 2, now=utc_now(), tries=3) is None


async def test_deliveries_go_with_their_call(store: Store) -> None:
    call = await ended(store)
    await open_due(store)
    assert await store.calls.purge(before=utc_now() + timedelta(seconds=1), limit=10) == 1
    assert await store.deliveries.of_call(call.id) == []
    assert await claim(store) == []
