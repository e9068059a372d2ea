"""A schedule: when a route is called by the clock, and with what. Rules, clock and firing are in `faas.schedules`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 - dataclasses resolve it at run time
from enum import StrEnum
from urllib.parse import quote

from faas.models import CallRequest

__all__ = ["MissedPolicy", "OverlapPolicy", "Schedule"]


class MissedPolicy(StrEnum):
    """What becomes of firings that nobody could make in time: no node ran, or its clock was set."""

    SKIP = "skip"
    """They are left out."""
    ONCE = "once"
    """One call makes up for all of them."""


class OverlapPolicy(StrEnum):
    """What becomes of a firing while the call of the one before has not ended."""

    ALLOW = "allow"
    """It is made."""
    SKIP = "skip"
    """It is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A route that is called by the clock: each firing is an async call."""

    app_name: str
    name: str
    path: str = ""
    """Of the route."""
    cron: str = ""
    """Five fields or a name such as `@hourly`; empty: by the interval."""
    interval_s: int = 0
    """Seconds from one firing to the next; 0: by cron."""
    timezone: str = "UTC"
    """IANA name of the zone in which cron is meant."""
    method: str = "POST"
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    priority: int = 0
    is_enabled: bool = True
    missed: MissedPolicy = MissedPolicy.SKIP
    overlap: OverlapPolicy = OverlapPolicy.ALLOW
    next_at: datetime | None = None
    """When it is due; None while it is disabled, and when it never is again."""
    last_at: datetime | None = None
    """When the latest firing that was made was due."""
    last_call_id: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def request(self) -> CallRequest:
        """What each firing's call gets; nobody called by any host name, so that is `localhost`."""
        url = f"http://localhost/r/{self.app_name}{quote(self.path)}"
        return CallRequest(method=self.method, url=url, headers=self.headers, body=self.body)
