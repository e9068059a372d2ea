"""What a request may say of the calls that it means, the same for every operation on many of them."""

from typing import Annotated

from fastapi import Depends, Query
from pydantic import AwareDatetime, BeforeValidator

from faas.models import CallFilter, Reason, clean_path

__all__ = ["BulkLimit", "Cursor", "DeadLetterFilter", "Instant", "PathFilter", "PerPage", "Since", "Until"]

MAX_PER_PAGE = 100

MAX_BULK = 1000
DEFAULT_BULK = 100


def _no_number(text: object) -> object:
    # pydantic takes a bare number for seconds or milliseconds of the Unix epoch, whichever seems right to it.
    if isinstance(text, str) and text.replace(".", "").lstrip("+-").isdigit():
        raise ValueError("should be an instant like 2026-01-31T12:00:00Z")
    return text


Instant = Annotated[AwareDatetime, BeforeValidator(_no_number)]
PerPage = Annotated[int, Query(ge=1, le=MAX_PER_PAGE, description="Calls on a page.")]
BulkLimit = Annotated[
    int, Query(ge=1, le=MAX_BULK, description=f"Calls in one request; {DEFAULT_BULK} when it is not given.")
]
PathFilter = Annotated[str | None, Query(description="Only calls of the route at this path.")]
Since = Annotated[Instant | None, Query(description="Created at this instant or later; RFC 3339, with offset.")]
Until = Annotated[Instant | None, Query(description="Created before this instant; RFC 3339, with offset.")]
Cursor = Annotated[str | None, Query(description="`next_cursor` of the page before.")]


def _dead_letters(
    *,
    app_name: str,
    path: PathFilter = None,
    reason: Annotated[Reason | None, Query(description="Only those that failed for this reason.")] = None,
    since: Since = None,
    until: Until = None,
) -> CallFilter:
    return CallFilter(
        app_name=app_name,
        path=clean_path(path) if path else None,
        reason=reason,
        since=since,
        until=until,
        is_dead_letter=True,
    )


DeadLetterFilter = Annotated[CallFilter, Depends(_dead_letters)]
