"""The line of the embedded queue: whose turn it is, as statements on one table.

    in line    `turn` says when; `available_at` since when it could have been leased
    not yet    no turn: it is delayed, or somebody holds it, until `available_at`

Inside a priority apps take turns. A call's turn is one after the last of its own app in line, and never before that of
the first in line: an app with 10,000 calls in line has 10,000 turns, another's call that comes now shares the next one,
and whoever of the two was dispatched first goes first. A call that comes back has turn 0, before all: it had its turn.
Calls whose dispatch two nodes commit at the very same instant may share a turn.

Every step is a look into an index, however long the line is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Double, Integer, Text, bindparam, case, extract, func, null, select, update

from faas.clock import utc_now
from faas.queue.base import MAX_PRIORITY
from faas.store.tables import queued_calls

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection

    from faas.queue.base import Ticket
    from faas.store.database import Database, Rows

__all__ = ["FREE", "RETURNED", "Line"]

FREE: dict[str, Any] = {"owner": "", "token": ""}
RETURNED = 0
"""The turn of a call that was leased before."""

FIRST_TURN = 1
AT_ONCE = 100
"""Calls that one lease lets into the line: those that have become due or whose lease has run out."""

_row = queued_calls.c
_in_line = _row.turn.is_not(None)


class Line:
    """Statements, made once: making one takes SQLAlchemy longer than SQLite takes to run it."""

    def __init__(self, database: Database) -> None:
        self._is_local = database.is_sqlite
        # By the clock of PostgreSQL, which all nodes share; by this machine's on SQLite.
        self.now: ColumnElement[float] = (
            bindparam("the_now", type_=Double)
            if self._is_local
            else extract("epoch", func.statement_timestamp()).cast(Double)
        )
        self._greatest = func.max if self._is_local else func.greatest
        due_at = bindparam("due_at", type_=Double)
        next_turn = self._next_turn(bindparam("the_rank", type_=Integer), bindparam("the_key", type_=Text))
        self._add = database.insert_new(queued_calls).values(
            available_at=self._greatest(due_at, self.now), turn=case((due_at > self.now, null()), else_=next_turn)
        )
        self._next = select(next_turn)
        self._ready = (
            select(_row.place, _row.rank, _row.fairness_key, _row.token)
            .where(_row.turn.is_(None), _row.available_at <= self.now)
            .order_by(_row.available_at, _row.place)
            .limit(AT_ONCE)
            .with_for_update(skip_locked=True)
        )
        self._let_in = update(queued_calls).where(_row.place == bindparam("the_place")).values(FREE)
        self._first = (
            select(_row.place, _row.call_id)
            .where(_in_line)
            .order_by(_row.rank, _row.turn, _row.place)
            .limit(bindparam("the_most", type_=Integer))
            .with_for_update(skip_locked=True)
        )
        self._take = (
            update(queued_calls)
            .where(_row.place.in_(bindparam("the_places", expanding=True)))
            .values(turn=null(), available_at=self.now + bindparam("the_lease_s", type_=Double))
        )
        self._upcoming = select(func.min(_row.available_at) - self.now).where(_row.turn.is_(None))

    def clock(self) -> dict[str, Any]:
        """The parameters of statements with `now` in them."""
        return {"the_now": utc_now().timestamp()} if self._is_local else {}

    def rows(self, ticket: Ticket) -> Rows:
        """What puts a call in line, unless it is there already."""
        rank = MAX_PRIORITY - ticket.priority
        row = {
            "call_id": ticket.call_id,
            "rank": rank,
            "fairness_key": ticket.fairness_key,
            "the_rank": rank,
            "the_key": ticket.fairness_key,
            "due_at": due_at(ticket.not_before),
            **FREE,
            **self.clock(),
        }
        return [(self._add, row)]

    def take(self, connection: Connection, most: int, *, owner: str, token: str, lease_s: float) -> list[str]:
        """Lease the calls whose turn it is; their ids in order."""
        self._let_ready_ones_in(connection)
        first = connection.execute(self._first, {"the_most": most}).all()
        if first:
            held = {"the_places": [row.place for row in first], "owner": owner, "token": token}
            connection.execute(self._take, {**held, "the_lease_s": lease_s, **self.clock()})
        return [row.call_id for row in first]

    def next_ready_s(self, connection: Connection) -> float | None:
        """In how many seconds the next call becomes due, or its lease runs out."""
        return connection.execute(self._upcoming, self.clock()).scalar()

    def _let_ready_ones_in(self, connection: Connection) -> None:
        turns: dict[tuple[int, str], int] = {}
        let_in = []
        for row in connection.execute(self._ready, self.clock()).all():
            turn = RETURNED
            if not row.token:
                whose = (row.rank, row.fairness_key)
                if whose not in turns:
                    values = {"the_rank": row.rank, "the_key": row.fairness_key}
                    turns[whose] = connection.execute(self._next, values).scalar_one()
                turn = turns[whose]
                turns[whose] += 1
            let_in.append({"the_place": row.place, "turn": turn})
        if let_in:
            connection.execute(self._let_in, let_in)

    def _next_turn(self, rank: ColumnElement[int], fairness_key: ColumnElement[str]) -> ColumnElement[int]:
        own = select(func.max(_row.turn) + 1).where(_in_line, _row.rank == rank, _row.fairness_key == fairness_key)
        first = select(func.min(_row.turn)).where(_row.rank == rank, _row.turn >= FIRST_TURN)
        return self._greatest(
            func.coalesce(own.scalar_subquery(), FIRST_TURN), func.coalesce(first.scalar_subquery(), FIRST_TURN)
        )


def due_at(not_before: datetime | None) -> float:
    """Seconds since the epoch; 0 is at once."""
    return 0.0 if not_before is None else not_before.timestamp()
