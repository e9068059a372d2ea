"""The table of attempts: every try at running a call, kept with its evidence."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, select, update

from faas.models import Attempt, Reason, Usage
from faas.store.tables import call_attempts

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from datetime import datetime

    from sqlalchemy import Connection, Row

    from faas.store.database import Database

__all__ = ["attempts_of", "close_open", "end", "keep", "start"]

_KEY = [call_attempts.c.call_id, call_attempts.c.number]
_START = call_attempts.insert()
_END = update(call_attempts).where(
    call_attempts.c.call_id == bindparam("the_call"), call_attempts.c.number == bindparam("the_number")
)
_CLOSE = update(call_attempts).where(
    call_attempts.c.call_id == bindparam("the_call"), call_attempts.c.completed_at.is_(None)
)


def attempts_of(connection: Connection, call_ids: Collection[str]) -> dict[str, tuple[Attempt, ...]]:
    """The attempts of these calls, first to last; calls without any are not in it."""
    found: defaultdict[str, list[Attempt]] = defaultdict(list)
    if call_ids:
        statement = select(call_attempts).where(call_attempts.c.call_id.in_(call_ids)).order_by(*_KEY)
        for row in connection.execute(statement):
            found[row.call_id].append(_attempt(row))
    return {call_id: tuple(attempts) for call_id, attempts in found.items()}


def start(connection: Connection, attempts: Mapping[str, Attempt]) -> None:
    """Add attempts that begin, by the id of their call."""
    if attempts:
        connection.execute(_START, [_values(call_id, attempt) for call_id, attempt in attempts.items()])


def end(connection: Connection, attempts: Iterable[tuple[str, Attempt]]) -> None:
    """Write all that is known of attempts over what was known when they began."""
    rows = [_values(call_id, attempt) for call_id, attempt in attempts]
    for row in rows:
        row["the_call"], row["the_number"] = row.pop("call_id"), row.pop("number")
    if rows:
        connection.execute(_END, rows)


def close_open(connection: Connection, ended_at: Mapping[str, datetime], *, error: str) -> None:
    """End the attempts of these calls of which nobody will hear any more, at the instant given for each."""
    rows = [
        {"the_call": call_id, "completed_at": at, "reason": Reason.KILLED.value, "error": error}
        for call_id, at in ended_at.items()
    ]
    if rows:
        connection.execute(_CLOSE, rows)


def keep(database: Database, connection: Connection, attempts: Iterable[tuple[str, Attempt]]) -> None:
    """Add attempts that have ended; those that are there stay as they are."""
    rows = [_values(call_id, attempt) for call_id, attempt in attempts]
    if rows:
        connection.execute(database.insert_new(call_attempts), rows)


def _attempt(row: Row[Any]) -> Attempt:
    has_usage = row.memory_peak_bytes is not None or row.cpu_s is not None
    return Attempt(
        number=row.number,
        node=row.node,
        started_at=row.started_at,
        completed_at=row.completed_at,
        container_id=row.container_id,
        image_digest=row.image_digest,
        exit_code=row.exit_code,
        reason=Reason(row.reason) if row.reason else None,
        error=row.error,
        is_cold=row.is_cold,
        queue_ms=row.queue_ms,
        start_ms=row.start_ms,
        exec_ms=row.exec_ms,
        usage=Usage(memory_peak_bytes=row.memory_peak_bytes, cpu_s=row.cpu_s) if has_usage else None,
    )


def _values(call_id: str, attempt: Attempt) -> dict[str, object]:
    usage = attempt.usage or Usage()
    return {
        "call_id": call_id,
        "number": attempt.number,
        "node": attempt.node,
        "started_at": attempt.started_at,
        "completed_at": attempt.completed_at,
        "container_id": attempt.container_id,
        "image_digest": attempt.image_digest,
        "exit_code": attempt.exit_code,
        "reason": attempt.reason.value if attempt.reason else None,
        "error": attempt.error,
        "is_cold": attempt.is_cold,
        "queue_ms": attempt.queue_ms,
        "start_ms": attempt.start_ms,
        "exec_ms": attempt.exec_ms,
        "memory_peak_bytes": usage.memory_peak_bytes,
        "cpu_s": usage.cpu_s,
    }
