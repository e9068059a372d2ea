"""The table of idempotency keys: its unique row is the lock that lets one of several equal requests run, on any node.

    claim -> held (a node runs the first call, or is accepting it) -> settle -> kept, until purged
               |     `- hold, again and again                 `- release -> gone: nothing had begun
               `- nobody has held it for a while -> the next claim takes it over

A key that nobody holds any more, but whose call has a record, is not taken over: that call has run, or will.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from sqlalchemy import and_, bindparam, delete, select, update

from faas.store.columns import UtcDateTime
from faas.store.tables import calls, idempotency_keys

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from sqlalchemy import Connection

    from faas.store.database import Database

__all__ = ["ClaimedKey", "IdempotencyKeys"]

_keys = idempotency_keys
_OF_KEY = and_(
    _keys.c.app_name == bindparam("the_app"), _keys.c.path == bindparam("the_path"), _keys.c.key == bindparam("the_key")
)
_FIND = select(_keys).where(_OF_KEY)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedKey:
    """A key of a route, with the call that it stands for."""

    app_name: str
    path: str
    key: str
    fingerprint: str
    """Of the request; another one may not use the key."""
    call_id: str
    created_at: datetime
    held_until: datetime | None
    """None once the call is accepted (async) or has ended (sync)."""


class IdempotencyKeys:
    """Claims, and what became of them. Claims that concern the same key see each other, on all nodes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, wanted: ClaimedKey, now: datetime) -> ClaimedKey | None:
        """Whose the key is now: `wanted` itself, or an earlier claim. None when that was released meanwhile."""

        def work(connection: Connection) -> ClaimedKey | None:
            connection.execute(self._database.insert_new(_keys), asdict(wanted))
            found = _find(connection, wanted)
            if found is None or found.held_until is None or found.held_until > now:
                return found
            return _inherit(connection, found, wanted)

        return await self._database.write(work)

    async def find(self, like: ClaimedKey) -> ClaimedKey | None:
        """Whose the key is."""
        return await self._database.read(lambda connection: _find(connection, like))

    async def hold(self, call_ids: Collection[str], until: datetime) -> None:
        """Hold the keys of calls longer."""
        statement = update(_keys).where(_keys.c.call_id.in_(sorted(call_ids)), _keys.c.held_until.is_not(None))
        await self._database.write(lambda connection: connection.execute(statement.values(held_until=until)).rowcount)

    async def settle(self, call_id: str) -> None:
        """The call is accepted, or has ended: the key stands for it from now on."""
        statement = update(_keys).where(_keys.c.call_id == call_id).values(held_until=None)
        await self._database.write(lambda connection: connection.execute(statement).rowcount)

    async def release(self, call_id: str) -> None:
        """The call never began: the key is as if nobody had used it."""
        statement = delete(_keys).where(_keys.c.call_id == call_id)
        await self._database.write(lambda connection: connection.execute(statement).rowcount)

    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete up to `limit` keys that were claimed before an instant and are not held; returns how many."""
        old = select(_keys.c.call_id).where(_keys.c.created_at < before, _keys.c.held_until.is_(None))
        statement = delete(_keys).where(_keys.c.call_id.in_(old.order_by(_keys.c.created_at).limit(limit)))
        return await self._database.write(lambda connection: connection.execute(statement).rowcount)


def _find(connection: Connection, like: ClaimedKey) -> ClaimedKey | None:
    values = {"the_app": like.app_name, "the_path": like.path, "the_key": like.key}
    row = connection.execute(_FIND, values).first()
    return None if row is None else ClaimedKey(**row._mapping)


def _inherit(connection: Connection, lapsed: ClaimedKey, wanted: ClaimedKey) -> ClaimedKey | None:
    """What becomes of a key whose holder has died; None when somebody else was faster."""
    has_record = connection.execute(select(calls.c.id).where(calls.c.id == lapsed.call_id)).first() is not None
    values = {"held_until": None} if has_record else asdict(wanted)
    statement = update(_keys).where(
        _keys.c.call_id == lapsed.call_id,
        _keys.c.held_until == bindparam("lapsed_at", lapsed.held_until, type_=UtcDateTime),
    )
    if connection.execute(statement.values(**values)).rowcount != 1:
        return None
    return _find(connection, wanted)
