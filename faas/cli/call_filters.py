"""Which of an app's calls a command means, as options; and going through all of them, page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from faas.cli.values import parse_instant, route_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from faas.cli.client import BulkJSON, CallJSON, CallPage

__all__ = ["Limit", "PathFilter", "Since", "Until", "bulk", "collect", "query_of"]

PAGE_SIZE = 100
BULK_SIZE = 1000
"""The server's limits."""

PathFilter = Annotated[str | None, typer.Option(parser=route_path, metavar="PATH", help="Only this route's.")]
Since = Annotated[
    str | None, typer.Option(parser=parse_instant, metavar="TIME", help="From then on: an instant, or 5m, 2h, 1d.")
]
Until = Annotated[
    str | None, typer.Option(parser=parse_instant, metavar="TIME", help="Up to then: an instant, or 5m, 2h, 1d.")
]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, metavar="N", help="At most so many.")]


def query_of(**filters: object) -> dict[str, str]:
    """The filters that were given, as the API takes them."""
    return {name: str(value) for name, value in filters.items() if value is not None}


def collect(fetch: Callable[[Mapping[str, str]], CallPage], query: Mapping[str, str], limit: int) -> list[CallJSON]:
    """Up to `limit` calls, over as many pages as it takes."""
    found: list[CallJSON] = []
    cursor = ""
    while len(found) < limit:
        page_query = {**query, "per_page": str(min(limit - len(found), PAGE_SIZE))}
        if cursor:
            page_query["cursor"] = cursor
        page = fetch(page_query)
        found += page["calls"]
        cursor = page["next_cursor"]
        if not cursor:
            break
    return found


def bulk(act: Callable[[Mapping[str, str]], BulkJSON], query: Mapping[str, str]) -> BulkJSON:
    """Do something about all calls that are meant, over as many requests as it takes; returns the sums."""
    done: BulkJSON = {"count": 0, "skipped": 0}
    cursor: str | None = ""
    while cursor is not None:
        page_query = {**query, "limit": str(BULK_SIZE)}
        if cursor:
            page_query["cursor"] = cursor
        page = act(page_query)
        done = {"count": done["count"] + page["count"], "skipped": done["skipped"] + page["skipped"]}
        cursor = page.get("next_cursor")
    return done
