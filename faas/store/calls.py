"""The table of calls: the truth about what was accepted, what runs and how it ended.

Every change of a status is one conditional statement, so that two who want different things can not both have them:

    insert -> delayed | queued -begin_attempt-> running -finish-> success | error | cancelled
                     |    ^                     |   |
                     |    +- requeue, put_back -+   +- begin_attempt (its node is lost): running, attempt + 1
                     +- end_waiting -> cancelled
                     +- ExpiringCalls.end -> error

`put_back` is in `retrying`, `end_waiting` in `cancelling`. Who ends an attempt (`finish`, `requeue`, `put_back`) names
it; for one that is not the latest nothing changes.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import delete, func, select, text

from faas.clock import utc_now
from faas.models import CallFilter, CallStatus
from faas.store import attempts as attempt_rows
from faas.store import bodies
from faas.store.call_pages import page_of, position_of
from faas.store.call_rows import call_of, values_of
from faas.store.runs import OF_ATTEMPT, Beginning, Ending, begin_many, fence, finish_many
from faas.store.tables import IS_FINAL, IS_UNFINISHED, calls

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from faas.models import Attempt, Call, CallLog, CallRequest, CallResult
    from faas.store.database import Database, Rows
    from faas.store.runs import Begun

__all__ = ["CallRecords", "UnfinishedCall"]

WAITING = (CallStatus.DELAYED.value, CallStatus.QUEUED.value)
DEFAULT_PAGE = 30
SHUT_DOWN = "the node shut down"

# Built once: making a statement takes SQLAlchemy longer than SQLite takes to run it.
_ADD = calls.insert()


class UnfinishedCall(NamedTuple):
    """What a sweeper needs to put a call in line again."""

    call_id: str
    priority: int
    not_before: datetime | None
    app_name: str


class CallRecords:
    """Records of calls with their requests, results, logs and attempts."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._begin = database.batched(begin_many, name="begin")
        self._finish = database.batched(partial(finish_many, database), name="finish")

    # --- a call's life

    async def insert(self, call: Call, request: CallRequest, *, also: Rows = ()) -> None:
        """Accept a call: when this returns, it is on disk with whatever else is to be there."""
        await self._database.add([(_ADD, values_of(call)), bodies.request_row(call.id, request), *also])

    async def delete_unaccepted(self, call_id: str) -> None:
        """Take back an `insert` whose dispatch failed; a call that somebody began stays."""
        statement = delete(calls).where(calls.c.id == call_id, calls.c.status.in_(WAITING), calls.c.attempt == 0)
        await self._database.write(lambda connection: connection.execute(statement).rowcount)

    async def begin(self, call_id: str, *, node: str, started_at: datetime) -> Begun | None:
        """Start the next attempt, also over one whose node is lost; None when the call has ended, expired or is gone.

        The call's own `started_at` stays that of its first attempt; concurrent callers share a transaction.
        """
        return await self._begin(Beginning(call_id=call_id, node=node, started_at=started_at))

    async def begin_attempt(self, call_id: str, *, node: str, started_at: datetime) -> Call | None:
        """As `begin`, for who does not need the request."""
        begun = await self.begin(call_id, node=node, started_at=started_at)
        return None if begun is None else begun.call

    async def finish(self, call: Call, attempt: Attempt, result: CallResult | None, log: CallLog | None) -> bool:
        """End a call as `call` says (a final status); False and no change when the attempt is not the latest.

        The call leaves the embedded queue with it. Concurrent callers share a transaction.
        """
        if not call.status.is_final:
            raise ValueError(f"{call.status} is not the end of a call")
        call = replace(call, completed_at=call.completed_at or utc_now())
        return await self._finish(Ending(call=call, attempt=attempt, result=result, log=log))

    async def replace_log(self, call_id: str, number: int, log: CallLog) -> None:
        """Keep a longer log of an ended attempt: its last lines came late. Nothing for a call that is gone."""

        def work(connection: Connection) -> None:
            if connection.execute(select(calls.c.id).where(calls.c.id == call_id)).first() is not None:
                bodies.replace_log(connection, call_id, number, log)

        await self._database.write(work)

    async def requeue(
        self, call_id: str, attempt_number: int, *, evidence: Attempt | None = None, log: CallLog | None = None
    ) -> bool:
        """Give a running call back that its node can't run to its end; False when the attempt is not the latest.

        Without evidence the attempt ends as one that the node's end cut off.
        """

        def work(connection: Connection) -> bool:
            values = {**fence(call_id, attempt_number), "status": CallStatus.QUEUED.value}
            if connection.execute(OF_ATTEMPT, values).rowcount != 1:
                return False
            if evidence is None:
                attempt_rows.close_open(connection, {call_id: utc_now()}, error=SHUT_DOWN)
            else:
                attempt_rows.end(connection, [(call_id, evidence)])
            bodies.keep_logs(self._database, connection, [(call_id, attempt_number, log)] if log else [])
            return True

        return await self._database.write(work)

    async def record_many(self, records: Sequence[tuple[Call, CallResult | None, CallLog | None]]) -> None:
        """Write calls that have ended already, in one transaction; those that are there stay as they are."""
        if not records:
            return

        def work(connection: Connection) -> None:
            database = self._database
            statement = database.insert_new(calls)
            connection.execute(statement, [values_of(call) for call, _, _ in records])
            tried = [(call.id, attempt) for call, _, _ in records for attempt in call.attempts]
            attempt_rows.keep(database, connection, tried)
            bodies.keep_results(database, connection, [(call.id, result) for call, result, _ in records if result])
            bodies.keep_logs(database, connection, [(call.id, call.attempt, log) for call, _, log in records if log])

        await self._database.write(work)

    # --- looking

    async def get(self, call_id: str) -> Call | None:
        """The record with its attempts."""

        def work(connection: Connection) -> Call | None:
            row = connection.execute(select(calls).where(calls.c.id == call_id)).first()
            if row is None:
                return None
            tried = attempt_rows.attempts_of(connection, [call_id]) if row.attempt else {}
            return call_of(row, tried.get(call_id, ()))

        return await self._database.read(work)

    async def request(self, call_id: str) -> CallRequest | None:
        """What the caller sent."""
        return await self._database.read(lambda connection: bodies.request_of(connection, call_id))

    async def result(self, call_id: str) -> CallResult | None:
        """What a sync caller would have got."""
        return await self._database.read(lambda connection: bodies.result_of(connection, call_id))

    async def logs(self, call_id: str) -> dict[int, CallLog]:
        """What the containers of attempts that have ended wrote, by attempt and in their order."""
        return await self._database.read(lambda connection: bodies.logs_of(connection, call_id))

    async def unfinished(self, *, before: datetime, limit: int, after: str | None = None) -> list[UnfinishedCall]:
        """Calls created before an instant that have not ended, in the order of their ids, those after one id."""
        statement = (
            select(calls.c.id, calls.c.priority, calls.c.not_before, calls.c.app_name)
            .where(text(IS_UNFINISHED), calls.c.created_at < before)
            .order_by(calls.c.id)
            .limit(limit)
        )
        if after is not None:
            statement = statement.where(calls.c.id > after)
        return await self._database.read(
            lambda connection: [UnfinishedCall(*row) for row in connection.execute(statement)]
        )

    async def count_by_status(self) -> dict[CallStatus, int]:
        """How many calls there are in each status; every status is in it."""
        statement = select(calls.c.status, func.count()).group_by(calls.c.status)

        def work(connection: Connection) -> dict[CallStatus, int]:
            counted = {CallStatus(status): count for status, count in connection.execute(statement)}
            return {status: counted.get(status, 0) for status in CallStatus}

        return await self._database.read(work)

    async def page(self, meant: CallFilter, *, cursor: str | None, limit: int) -> tuple[list[Call], str | None]:
        """A page of the calls that a filter means, newest first, and the cursor of the next (None: this was the last).

        `InvalidRequestError` for a cursor that is none.
        """
        before_id = position_of(cursor)
        return await self._database.read(
            lambda connection: page_of(connection, meant, before_id=before_id, limit=limit)
        )

    async def list(
        self,
        app_name: str,
        *,
        status: CallStatus | None = None,
        path: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        cursor: str | None = None,
        limit: int = DEFAULT_PAGE,
    ) -> tuple[list[Call], str | None]:
        """As `page`; `since` and `until` are about `created_at`, both included."""
        statuses = () if status is None else (status,)
        meant = CallFilter(app_name=app_name, statuses=statuses, path=path, since=since, until=until)
        return await self.page(meant, cursor=cursor, limit=limit)

    # --- forgetting

    async def purge(self, *, before: datetime, limit: int) -> int:
        """Delete up to `limit` ended calls created before an instant with all that is theirs; returns how many."""
        old = select(calls.c.id).where(text(IS_FINAL), calls.c.created_at < before)
        statement = delete(calls).where(calls.c.id.in_(old.order_by(calls.c.created_at).limit(limit)))
        return await self._database.write(lambda connection: connection.execute(statement).rowcount)
