"""Pages of an app's calls: which ones a filter means, newest first."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, text

from faas.errors import InvalidRequestError
from faas.store import attempts as attempt_rows
from faas.store.call_rows import call_of
from faas.store.tables import IS_DEAD_LETTER, calls

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection

    from faas.models import Call, CallFilter

__all__ = ["page_of", "position_of"]


def page_of(
    connection: Connection, meant: CallFilter, *, before_id: str | None, limit: int
) -> tuple[list[Call], str | None]:
    """Up to `limit` calls older than one, and the cursor of the next page (None: this was the last)."""
    # One more than asked for tells whether there is a next page.
    statement = select(calls).where(*_conditions(meant)).order_by(calls.c.id.desc()).limit(limit + 1)
    if before_id is not None:
        statement = statement.where(calls.c.id < before_id)
    rows = connection.execute(statement).all()
    page = rows[:limit]
    tried = attempt_rows.attempts_of(connection, [row.id for row in page])
    is_more = len(rows) > limit and bool(page)
    return [call_of(row, tried.get(row.id, ())) for row in page], _cursor_of(page[-1].id) if is_more else None


def position_of(cursor: str | None) -> str | None:
    """The id that a cursor stands for; raises `InvalidRequestError` for one that is none."""
    if cursor is None:
        return None
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise InvalidRequestError("`cursor` is not one that a listing returned") from error


def _cursor_of(call_id: str) -> str:
    return base64.urlsafe_b64encode(call_id.encode()).decode().rstrip("=")


def _conditions(meant: CallFilter) -> list[ColumnElement[bool]]:
    conditions: list[Any] = [calls.c.app_name == meant.app_name]
    if len(meant.statuses) == 1:
        conditions.append(calls.c.status == meant.statuses[0].value)
    elif meant.statuses:
        conditions.append(calls.c.status.in_([status.value for status in meant.statuses]))
    if meant.is_dead_letter:
        conditions.append(text(IS_DEAD_LETTER))
    if meant.path is not None:
        conditions.append(calls.c.path == meant.path)
    if meant.reason is not None:
        conditions.append(calls.c.reason == meant.reason.value)
    if meant.since is not None:
        conditions.append(calls.c.created_at >= meant.since)
    if meant.until is not None:
        conditions.append(calls.c.created_at <= meant.until)
    return conditions
