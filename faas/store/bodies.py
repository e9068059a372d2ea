"""The big parts of a call, a table each: request, result, logs. Written once, read one at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, select

from faas.models import CallLog, CallRequest, CallResult
from faas.store.tables import attempt_logs, call_requests, call_results

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Insert

    from faas.store.database import Database

__all__ = [
    "keep_logs",
    "keep_results",
    "logs_of",
    "replace_log",
    "request_of",
    "request_row",
    "requests_of",
    "result_of",
]


_ADD_REQUEST = call_requests.insert()


def request_row(call_id: str, request: CallRequest) -> tuple[Insert, dict[str, object]]:
    """The row of what the caller sent, with the statement that adds it."""
    values = {"method": request.method, "url": request.url, "headers": request.headers, "body": request.body}
    return _ADD_REQUEST, {"call_id": call_id, **values}


def keep_results(database: Database, connection: Connection, results: Sequence[tuple[str, CallResult]]) -> None:
    """Add results; the first one of a call stays."""
    if results:
        rows = [
            {
                "call_id": call_id,
                "status_code": result.status_code,
                "headers": result.headers,
                "body": result.body,
                "is_truncated": result.is_truncated,
            }
            for call_id, result in results
        ]
        connection.execute(database.insert_new(call_results), rows)


def keep_logs(database: Database, connection: Connection, logs: Sequence[tuple[str, int, CallLog]]) -> None:
    """Add logs, each with its call and the number of its attempt; the first one of an attempt stays."""
    if logs:
        connection.execute(database.insert_new(attempt_logs), [_log_row(*log) for log in logs])


def replace_log(connection: Connection, call_id: str, number: int, log: CallLog) -> None:
    """Put a longer log of an attempt in the place of the first one."""
    is_it = (attempt_logs.c.call_id == call_id) & (attempt_logs.c.number == number)
    connection.execute(delete(attempt_logs).where(is_it))
    connection.execute(attempt_logs.insert(), _log_row(call_id, number, log))


def _log_row(call_id: str, number: int, log: CallLog) -> dict[str, object]:
    return {"call_id": call_id, "number": number, "data": log.data, "is_truncated": log.is_truncated}


def request_of(connection: Connection, call_id: str) -> CallRequest | None:
    """What the caller sent; None for calls whose request was not kept."""
    return requests_of(connection, [call_id]).get(call_id)


def requests_of(connection: Connection, call_ids: Sequence[str]) -> dict[str, CallRequest]:
    """What the callers sent, by the id of the call; without those that were not kept."""
    if not call_ids:
        return {}
    statement = select(call_requests).where(call_requests.c.call_id.in_(call_ids))
    return {
        row.call_id: CallRequest(method=row.method, url=row.url, headers=row.headers, body=row.body)
        for row in connection.execute(statement)
    }


def result_of(connection: Connection, call_id: str) -> CallResult | None:
    """What the function answered, once it has and if it was kept."""
    row = connection.execute(select(call_results).where(call_results.c.call_id == call_id)).first()
    if row is None:
        return None
    return CallResult(status_code=row.status_code, headers=row.headers, body=row.body, is_truncated=row.is_truncated)


def logs_of(connection: Connection, call_id: str) -> dict[int, CallLog]:
    """What the containers of attempts that have ended wrote, by attempt; those that wrote nothing are not in it."""
    statement = select(attempt_logs).where(attempt_logs.c.call_id == call_id).order_by(attempt_logs.c.number)
    return {row.number: CallLog(data=row.data, is_truncated=row.is_truncated) for row in connection.execute(statement)}
