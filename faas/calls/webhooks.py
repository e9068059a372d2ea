"""Telling the ends of calls to who asked for it.

    the call ends in its row -> a delivery is made -> claimed by one node -> POST -> delivered
                                                        ^                      |
                                                        +------ backoff -------+-> failed, after some hours

At least once: a node that dies in the middle of a try leaves the delivery to another one, when its claim runs out.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace
from datetime import timedelta
from random import random
from typing import TYPE_CHECKING, Any, Protocol

from faas.clock import unix_s, utc_now
from faas.errors import DeliveryNotFoundError, FaasError
from faas.models import CallStatus
from faas.webhooks import DeliveryStatus, signature_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from faas.calls.lookup import Lookup
    from faas.calls.webhook_sender import Outcome
    from faas.models import Call
    from faas.store.engine import Store
    from faas.webhooks import Delivery

__all__ = ["Sender", "WebhookTeller"]

logger = logging.getLogger(__name__)

POLL_S = 1.0
"""How often a node looks for ends to tell and for tries that are due."""

PAGE = 32
"""Messages that a node sends at the same time."""

CLAIM_S = 60.0
"""Longer than a try takes: only a node that died loses its claim."""

MAX_TRIES = 10
FIRST_DELAY_S = 5.0
GROWTH = 3.0
MAX_DELAY_S = 7200.0
"""5 s, 15 s, 45 s ... two hours: some five hours in all, enough for a receiver to be mended."""

JITTER = 0.2
"""Share of a delay that is drawn at random, so that the messages of an outage do not come back all at once."""

_EVENTS = {
    CallStatus.SUCCESS: "call.succeeded",
    CallStatus.ERROR: "call.failed",
    CallStatus.CANCELLED: "call.cancelled",
}


class Sender(Protocol):
    """Sends one message."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        """Try once; never raises for what the receiver does."""


class WebhookTeller:
    """Sends what is due, and knows what was sent."""

    def __init__(
        self,
        store: Store,
        lookup: Lookup,
        *,
        render: Callable[[Call], Any],
        sender: Callable[[], Sender],
    ) -> None:
        """`render` makes a call's record what the API shows of it; `sender` is asked for when there is work."""
        self._calls = store.calls
        self._deliveries = store.deliveries
        self._lookup = lookup
        self._render = render
        self._sender = sender

    async def tell_forever(self) -> None:
        """Send, now and then, what is due."""
        while True:
            try:
                count = await self.tell_due()
            except FaasError as error:
                logger.warning("webhooks_failed", extra={"error": error.message})
                count = 0
            if count < PAGE:
                await asyncio.sleep(POLL_S)

    async def tell_due(self) -> int:
        """Make the deliveries of calls that have ended and try all that are due, a page of them; returns how many."""
        await self._deliveries.open_due(now=utc_now(), last_try=MAX_TRIES, limit=PAGE)
        claimed = await self._deliveries.claim(now=utc_now(), lease_s=CLAIM_S, limit=PAGE)
        if claimed:
            await asyncio.gather(*[self._try(delivery) for delivery in claimed])
        return len(claimed)

    async def deliveries_of(self, call_id: str) -> list[Delivery]:
        """What was sent about a call and what became of it; raises as `Lookup.get`."""
        await self._lookup.now(call_id)
        return await self._deliveries.of_call(call_id)

    async def redeliver(self, call_id: str, number: int) -> Delivery:
        """Send it again, at once and with all tries before it; raises as `Lookup.get`, `DeliveryNotFoundError`."""
        await self._lookup.now(call_id)
        delivery = await self._deliveries.redeliver(call_id, number, now=utc_now(), tries=MAX_TRIES)
        if delivery is None:
            raise DeliveryNotFoundError
        return delivery

    async def _try(self, delivery: Delivery) -> None:
        try:
            await self._send(delivery)
        except FaasError as error:
            # Its claim runs out, then it is tried again.
            logger.warning("webhook_not_tried", extra={"call_id": delivery.call_id, "error": error.message})

    async def _send(self, delivery: Delivery) -> None:
        call = await self._calls.get(delivery.call_id)
        if call is None or call.webhooks is None:
            return  # purged since, and the delivery with it
        body = _message(call, self._render(call))
        timestamp_s = int(unix_s())
        headers = {
            "content-type": "application/json",
            "user-agent": "faas",
            "webhook-id": delivery.message_id,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": signature_of(call.webhooks.secret, delivery.message_id, timestamp_s, body),
        }
        outcome = await self._sender().post(delivery.url, headers, body)
        settled = _settled(delivery, outcome, now=utc_now(), draw=random())  # noqa: S311 - spread, not secret
        await self._deliveries.settle(settled)
        if settled.status is DeliveryStatus.FAILED:
            logger.warning("webhook_given_up", extra={"call_id": call.id, "number": delivery.number})


def _message(call: Call, record: Any) -> bytes:
    ended_at = call.completed_at or call.created_at
    message = {"type": _EVENTS[call.status], "timestamp": ended_at.isoformat(), "data": record}
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()


def _settled(delivery: Delivery, outcome: Outcome, *, now: datetime, draw: float) -> Delivery:
    """The delivery after a try; `draw` from [0, 1) spreads the next one."""
    tried = replace(delivery, status_code=outcome.status_code, error=outcome.error)
    if outcome.is_delivered:
        return replace(tried, status=DeliveryStatus.DELIVERED, completed_at=now, next_try_at=None)
    if outcome.is_final or delivery.tries >= delivery.last_try:
        return replace(tried, status=DeliveryStatus.FAILED, completed_at=now, next_try_at=None)
    return replace(tried, next_try_at=now + timedelta(seconds=_delay_s(delivery, draw)))


def _delay_s(delivery: Delivery, draw: float) -> float:
    failed_in_a_row = MAX_TRIES - (delivery.last_try - delivery.tries)
    longest_s = min(MAX_DELAY_S, FIRST_DELAY_S * GROWTH ** (failed_in_a_row - 1))
    return longest_s * (1 - JITTER * draw)
