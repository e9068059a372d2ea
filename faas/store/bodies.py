"""The big parts of a call, a table each: request, result, log. Written once, read one at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, select

from faas.models import CallLog, CallRequest, CallResult
from faas.store.tables import call_logs, call_requests, call_results

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Insert

    from faas.store.database import Database

__all__ = [
    "keep_logs",
    "keep_results",
    "log_of",
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


def keep_logs(database: Database, connection: Connection, logs: Sequence[tuple[str, CallLog]]) -> None:
    """Add logs; the first one of a call stays."""
    if logs:
        rows = [{"call_id": call_id, "data": log.data, "is_truncated": log.is_truncated} for call_id, log in logs]
        connection.execute(database.insert_new(call_logs), rows)


def replace_log(connection: Connection, call_id: str, log: CallLog) -> None:
    """Put a longer log in the place of the first one."""
    connection.execute(delete(call_logs).where(call_logs.c.call_id == call_id))
    connection.execute(call_logs.insert(), {"call_id": call_id, "data": log.data, "is_truncated": log.is_truncated})


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


def log_of(connection: Connection, call_id: str) -> CallLog | None:
    """What the containers wrote, once the call has ended and if it was kept."""
    row = connection.execute(select(call_logs).where(call_logs.c.call_id == call_id)).first()
    return None if row is None else CallLog(data=row.data, is_truncated=row.is_truncated)
