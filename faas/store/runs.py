"""A call's run in the tables: how an attempt begins and how it ends its call, for many calls in one transaction.

A run is two writes, whatever the number of calls in each; what a single call costs falls to the work on its rows.
An ended call leaves the embedded queue in the very transaction that ends it; with any other queue there is no such row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, delete, func, literal, or_, select, text, update

from faas.models import Attempt, CallStatus
from faas.store import attempts as attempt_rows
from faas.store import bodies
from faas.store.call_rows import call_of, result_values
from faas.store.columns import UtcDateTime
from faas.store.tables import IS_UNFINISHED, calls, queued_calls

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from faas.models import Call, CallLog, CallRequest, CallResult
    from faas.store.database import Database

__all__ = ["OF_ATTEMPT", "Beginning", "Begun", "Ending", "begin_many", "fence", "finish_many"]

LOST = "lost"

# Built once: making a statement takes SQLAlchemy longer than SQLite takes to run it.
_START = bindparam("the_start", type_=UtcDateTime)
_BEGIN = (
    update(calls)
    .where(
        calls.c.id.in_(bindparam("the_ids", expanding=True)),
        text(IS_UNFINISHED),
        # One that has not begun in time never will; a later attempt is no beginning.
        or_(calls.c.expires_at.is_(None), calls.c.attempt > 0, calls.c.expires_at > _START),
    )
    .values(
        status=CallStatus.RUNNING.value,
        attempt=calls.c.attempt + 1,
        started_at=func.coalesce(calls.c.started_at, _START),
    )
    .returning(calls)
)
OF_ATTEMPT = update(calls).where(
    calls.c.id == bindparam("the_id"),
    calls.c.status == literal(CallStatus.RUNNING.value),
    calls.c.attempt == bindparam("the_attempt"),
)
"""The fence: changes a call only while this attempt of it is the one that runs."""

# In the order of their ids, so that two nodes never wait for each other.
_RUNNING = (
    select(calls.c.id, calls.c.attempt)
    .where(calls.c.id.in_(bindparam("the_ids", expanding=True)), calls.c.status == literal(CallStatus.RUNNING.value))
    .order_by(calls.c.id)
    .with_for_update()
)
_FORGET = delete(queued_calls).where(queued_calls.c.call_id.in_(bindparam("the_ids", expanding=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """An attempt that a node wants to begin."""

    call_id: str
    node: str
    started_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A call whose next attempt has begun, with what the function is to get."""

    call: Call
    request: CallRequest | None
    """None when it was not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How an attempt ends its call."""

    call: Call
    """In its final state."""
    attempt: Attempt
    result: CallResult | None
    log: CallLog | None


def fence(call_id: str, number: int) -> dict[str, object]:
    """The parameters of `OF_ATTEMPT`."""
    return {"the_id": call_id, "the_attempt": number}


def begin_many(connection: Connection, wanted: Sequence[Beginning]) -> list[Begun | None]:
    """Start the next attempt of each call, also over one whose node is lost; None where it has ended or expired.

    A call's own `started_at` stays that of its first attempt.
    """
    begun: list[Begun | None] = []
    for some in _without_repeats(wanted):
        found = _begin(connection, some)
        begun += [found.get(one.call_id) for one in some]
    return begun


def _begin(connection: Connection, wanted: Sequence[Beginning]) -> dict[str, Begun]:
    ids = [one.call_id for one in wanted]
    first_start = min(one.started_at for one in wanted)
    rows = {row.id: row for row in connection.execute(_BEGIN, {"the_ids": ids, "the_start": first_start})}
    if len(rows) < len(ids):
        connection.execute(_FORGET, {"the_ids": [call_id for call_id in ids if call_id not in rows]})
    again = {one.call_id: one.started_at for one in wanted if one.call_id in rows and rows[one.call_id].attempt > 1}
    attempt_rows.close_open(connection, again, error=LOST)
    started = {
        one.call_id: Attempt(number=rows[one.call_id].attempt, node=one.node, started_at=one.started_at)
        for one in wanted
        if one.call_id in rows
    }
    attempt_rows.start(connection, started)
    tried = attempt_rows.attempts_of(connection, again)
    requests = bodies.requests_of(connection, list(rows))
    return {
        call_id: Begun(
            call=call_of(rows[call_id], tried.get(call_id, (attempt,))),
            request=requests.get(call_id),
        )
        for call_id, attempt in started.items()
    }


def finish_many(database: Database, connection: Connection, endings: Sequence[Ending]) -> list[bool]:
    """End calls with all that is kept of them; False, and no change, where the attempt is not the latest."""
    ids = [one.call.id for one in endings]
    running = {row.id: row.attempt for row in connection.execute(_RUNNING, {"the_ids": ids})}
    ended = [one for one in endings if running.get(one.call.id) == one.attempt.number]
    # Of two who say the same the first is heard, as if they had come one after the other.
    heard = {one.call.id: one for one in reversed(ended)}
    answers = [heard.get(one.call.id) is one for one in endings]
    if not heard:
        return answers
    ended = list(heard.values())
    connection.execute(OF_ATTEMPT, [_values(one) for one in ended])
    attempt_rows.end(connection, [(one.call.id, _ended(one)) for one in ended])
    bodies.keep_results(database, connection, [(one.call.id, one.result) for one in ended if one.result])
    bodies.keep_logs(database, connection, [(one.call.id, one.attempt.number, one.log) for one in ended if one.log])
    connection.execute(_FORGET, {"the_ids": list(heard)})
    return answers


def _values(ending: Ending) -> dict[str, object]:
    call = ending.call
    return {
        **fence(call.id, ending.attempt.number),
        "status": call.status.value,
        "completed_at": call.completed_at,
        "reason": call.reason.value if call.reason else None,
        "error": call.error,
        "is_dead_letter": call.is_dead_letter,
        **result_values(ending.result.info if ending.result else call.result),
    }


def _ended(ending: Ending) -> Attempt:
    return replace(ending.attempt, completed_at=ending.attempt.completed_at or ending.call.completed_at)


def _without_repeats(wanted: Iterable[Beginning]) -> Iterator[list[Beginning]]:
    """The same in order, cut before each call that comes again: one statement begins one attempt of a call."""
    some: dict[str, Beginning] = {}
    for one in wanted:
        if one.call_id in some:
            yield list(some.values())
            some = {}
        some[one.call_id] = one
    if some:
        yield list(some.values())
