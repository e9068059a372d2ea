"""What a satellite counts and records, on its way to the primary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from faas.counters import RouteMetrics
from faas.models import CallType
from faas.processes.messages import Records

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from faas.models import Call, CallLog, CallResult
    from faas.processes.messages import Message

__all__ = ["Counters", "ShippingStore"]


class Counters:
    """All routes' counters of one satellite."""

    def __init__(self) -> None:
        self._routes: dict[tuple[str, str, CallType], RouteMetrics] = {}
        self._dropped = 0

    def for_route(self, app_name: str, path: str, call_type: CallType) -> RouteMetrics:
        """A route's counters for one type of call, made at first use."""
        return self._routes.setdefault((app_name, path, call_type), RouteMetrics())

    def forget_route(self, app_name: str, path: str) -> None:
        """A route is gone."""
        for call_type in CallType:
            self._routes.pop((app_name, path, call_type), None)

    def container_oom(self) -> None:
        """The primary counts those: it found out."""

    def records_dropped(self, count: int) -> None:
        """Records were given up under overload."""
        self._dropped += count

    def take(self) -> tuple[tuple[str, str, CallType, RouteMetrics], ...]:
        """What was counted since the last time, of the routes that were called."""
        return tuple((*key, route.take()) for key, route in self._routes.items() if route.codes)

    def take_dropped(self) -> int:
        """How many records were given up since the last time."""
        dropped, self._dropped = self._dropped, 0
        return dropped


class ShippingStore:
    """Where a satellite's recorder writes: the primary has the database."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send

    async def record_many(self, records: Sequence[tuple[Call, CallResult | None, CallLog | None]]) -> None:
        """Send ended sync calls."""
        self._send(Records(calls=tuple(records)))

    async def replace_log(self, call_id: str, number: int, log: CallLog) -> None:
        """Only queued calls' logs are replaced, and those run in the primary."""
        raise NotImplementedError
