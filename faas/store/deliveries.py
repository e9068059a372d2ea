"""The table of webhook deliveries: a message about the end of a call, and what became of it.

A call that has somebody to tell is `untold` from its acceptance on, in its own row: whatever statement ends it, its end
is told. One transaction makes the delivery and the call told, so that it is told once.

    untold call, ended -open_due-> pending -claim-> pending, tries + 1 -settle-> delivered | failed | pending, later
                                                                                    `- redeliver -> pending

`settle` names the try that it speaks for; of one that is not the latest it changes nothing.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, func, select, text, update

from faas.models import CallStatus
from faas.store.columns import UtcDateTime
from faas.store.tables import IS_DUE_DELIVERY, IS_UNTOLD, calls, webhook_deliveries
from faas.webhooks import Delivery, DeliveryStatus, Webhooks

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection, Row

    from faas.store.database import Database

__all__ = ["Deliveries"]

_TABLE = webhook_deliveries
_UNTOLD = select(calls.c.id).where(text(IS_UNTOLD)).order_by(calls.c.id).limit(bindparam("max_count"))
_TELL = (
    update(calls)
    .where(calls.c.id == bindparam("the_id"), text(IS_UNTOLD))
    .values(is_untold=False)
    .returning(calls.c.status, calls.c.webhooks)
)
_DUE = (
    select(_TABLE.c.call_id, _TABLE.c.number)
    .where(text(IS_DUE_DELIVERY), _TABLE.c.next_try_at <= bindparam("now", type_=UtcDateTime))
    .order_by(_TABLE.c.next_try_at)
    .limit(bindparam("max_count"))
)
_CLAIM = (
    update(_TABLE)
    .where(
        _TABLE.c.call_id == bindparam("the_id"),
        _TABLE.c.number == bindparam("the_number"),
        text(IS_DUE_DELIVERY),
        _TABLE.c.next_try_at <= bindparam("now", type_=UtcDateTime),
    )
    .values(tries=_TABLE.c.tries + 1, next_try_at=bindparam("until", type_=UtcDateTime))
    .returning(_TABLE)
)


class Deliveries:
    """Messages to be sent, and those that were."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open_due(self, *, now: datetime, last_try: int, limit: int) -> int:
        """Make the deliveries of up to `limit` calls that have ended and are untold; returns of how many calls."""

        # Mostly there are none, and a read does not wait for SQLite's one writer.
        untold = await self._database.read(
            lambda connection: list(connection.execute(_UNTOLD, {"max_count": limit}).scalars())
        )

        def work(connection: Connection) -> int:
            told = 0
            for call_id in untold:
                row = connection.execute(_TELL, {"the_id": call_id}).first()
                if row is not None:
                    told += 1
                    _open(connection, call_id, row, now=now, last_try=last_try)
            return told

        return await self._database.write(work) if untold else 0

    async def claim(self, *, now: datetime, lease_s: float, limit: int) -> list[Delivery]:
        """Begin a try of up to `limit` that are due; nobody else may try them for `lease_s`."""
        due = await self._database.read(
            lambda connection: list(connection.execute(_DUE, {"now": now, "max_count": limit}))
        )
        until = now + timedelta(seconds=lease_s)

        def work(connection: Connection) -> list[Delivery]:
            claimed = []
            for call_id, number in due:
                values = {"the_id": call_id, "the_number": number, "now": now, "until": until}
                if (row := connection.execute(_CLAIM, values).first()) is not None:
                    claimed.append(_delivery(row))
            return claimed

        return await self._database.write(work) if due else []

    async def settle(self, delivery: Delivery) -> bool:
        """Write what became of the latest try; False and no change when `delivery.tries` is not its number."""
        statement = (
            update(_TABLE)
            .where(
                _TABLE.c.call_id == delivery.call_id,
                _TABLE.c.number == delivery.number,
                _TABLE.c.tries == delivery.tries,
                _TABLE.c.status == DeliveryStatus.PENDING.value,
            )
            .values(
                status=delivery.status.value,
                next_try_at=delivery.next_try_at,
                completed_at=delivery.completed_at,
                status_code=delivery.status_code,
                error=delivery.error,
            )
        )
        return await self._database.write(lambda connection: connection.execute(statement).rowcount == 1)

    async def redeliver(self, call_id: str, number: int, *, now: datetime, tries: int) -> Delivery | None:
        """Have it sent at once, with so many tries before it; None when there is no such delivery."""
        statement = (
            update(_TABLE)
            .where(_TABLE.c.call_id == call_id, _TABLE.c.number == number)
            .values(
                status=DeliveryStatus.PENDING.value,
                next_try_at=now,
                completed_at=None,
                last_try=_TABLE.c.tries + tries,
            )
            .returning(_TABLE)
        )

        def work(connection: Connection) -> Delivery | None:
            row = connection.execute(statement).first()
            return None if row is None else _delivery(row)

        return await self._database.write(work)

    async def of_call(self, call_id: str) -> list[Delivery]:
        """A call's deliveries in their order."""
        statement = select(_TABLE).where(_TABLE.c.call_id == call_id).order_by(_TABLE.c.number)
        return await self._database.read(lambda connection: [_delivery(row) for row in connection.execute(statement)])


def _open(connection: Connection, call_id: str, call: Row[Any], *, now: datetime, last_try: int) -> None:
    webhooks = Webhooks.from_json(call.webhooks)
    url = webhooks.on_success if call.status == CallStatus.SUCCESS.value else webhooks.on_failure
    if not url:
        return
    taken = select(func.coalesce(func.max(_TABLE.c.number), 0)).where(_TABLE.c.call_id == call_id)
    values = {
        "call_id": call_id,
        "number": connection.execute(taken).scalar_one() + 1,
        "url": url,
        "status": DeliveryStatus.PENDING.value,
        "created_at": now,
        "tries": 0,
        "last_try": last_try,
        "next_try_at": now,
        "error": "",
    }
    connection.execute(_TABLE.insert(), values)


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        call_id=row.call_id,
        number=row.number,
        url=row.url,
        status=DeliveryStatus(row.status),
        created_at=row.created_at,
        tries=row.tries,
        last_try=row.last_try,
        next_try_at=row.next_try_at,
        completed_at=row.completed_at,
        status_code=row.status_code,
        error=row.error,
    )
