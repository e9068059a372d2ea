"""The paths of the public API, with names escaped so that none can name something else."""

from __future__ import annotations

import re
from urllib.parse import quote

from faas.cli.errors import ClientError

__all__ = ["app_url", "call_url", "route_url", "run_url", "schedule_url"]

_PATH_SAFE = "/-._~!$&'()*+,;=@"
"""What may stand in a path as it is; a literal `%` or `?` of a route's path is escaped."""

_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


def app_url(name: str) -> str:
    """An app."""
    return f"/v1/apps/{_segment(name)}"


def route_url(app: str, path: str) -> str:
    """A route, by its path as it is stored."""
    return f"{app_url(app)}/routes{quote(path, safe=_PATH_SAFE)}"


def schedule_url(app: str, name: str) -> str:
    """A schedule."""
    return f"{app_url(app)}/schedules/{_segment(name)}"


def call_url(call_id: str) -> str:
    """A call."""
    return f"/v1/calls/{_segment(call_id)}"


def run_url(app: str, target: str) -> str:
    """Where a function answers; `target` is a path as in a URL: with a query, perhaps escaped already."""
    escaped = quote(_STRAY_PERCENT.sub("%25", target.partition("#")[0]), safe=_PATH_SAFE + "%?:")
    return f"/r/{_segment(app)}{escaped}"


def _segment(text: str) -> str:
    """One part of a path; empty, `.` and `..` would name something else, so they never leave this machine."""
    if text in ("", ".", ".."):
        raise ClientError(f"'{text}' can't be a name", code="bad_name")
    return quote(text, safe="-._~")
