"""What the control API stands on, handed to `build_app`; handlers ask for it with `Depends`, there is no global."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Protocol

from fastapi import Depends, Request

from faas.calls.events import Watch
from faas.calls.following import Told
from faas.calls.history import Position
from faas.catalog import Catalog
from faas.models import Bulk, Call, CallFilter, CallLog, CallRequest, CallResult, CallStatus, Route
from faas.schedules.schedules import Schedules
from faas.webhooks import Delivery

__all__ = [
    "CatalogDep",
    "Control",
    "ControlDep",
    "DeadLetterBox",
    "DeadLettersDep",
    "Deliveries",
    "DeliveriesDep",
    "Following",
    "FollowingDep",
    "Lookup",
    "LookupDep",
    "OutsideWorkers",
    "OutsideWorkersDep",
    "ReadinessCheck",
    "SchedulesDep",
    "Services",
    "ServicesDep",
    "Stats",
]

ReadinessCheck = Callable[[], Awaitable[None]]
"""Returns when its part can take work, raises (a `FaasError` with the reason) when it can't."""


class Stats(Protocol):
    """Calls of this node: waiting, running, ended since it started."""

    @property
    def queue(self) -> int:
        """Accepted, not yet started."""

    @property
    def running(self) -> int:
        """In a container now."""

    @property
    def complete(self) -> int:
        """Ended, in whatever way."""


class Lookup(Protocol):
    """What is known of calls."""

    async def get(self, call_id: str, *, wait_s: float = 0) -> Call:
        """The record, after the call's end or `wait_s`; raises `CallNotFoundError`, `CallExpiredError`."""

    async def result(self, call_id: str) -> CallResult:
        """What a sync caller would have got; raises `CallNotFinishedError` too."""

    async def log(self, call_id: str, *, attempt: int | None = None) -> CallLog:
        """What it wrote to standard error, in all attempts or in one; raises `InvalidRequestError` for one too many."""

    async def list_calls(
        self,
        app_name: str,
        *,
        status: CallStatus | None,
        path: str | None,
        since: datetime | None,
        until: datetime | None,
        cursor: str | None,
        limit: int,
    ) -> tuple[list[Call], str | None]:
        """A page, newest first, and the cursor of the next; raises `InvalidRequestError` for a bad cursor."""

    async def stats(self) -> Stats:
        """How much there is to do."""


class Control(Protocol):
    """Ends calls."""

    async def cancel(self, call_id: str) -> Call:
        """End it; its container is dead when this returns. An ended call stays as it is."""

    async def cancel_many(self, meant: CallFilter, *, limit: int, cursor: str | None) -> Bulk:
        """End a page of those that have not ended."""


class DeadLetterBox(Protocol):
    """Runs ended calls again."""

    async def retry(self, call_id: str) -> Call:
        """Accept a new call with its request; raises `CallNotEndedError`, `CallRetriedError`, `RequestNotKeptError`."""

    async def list_calls(self, meant: CallFilter, *, limit: int, cursor: str | None) -> tuple[list[Call], str | None]:
        """A page of dead letters, newest first, and the cursor of the next."""

    async def redrive(self, meant: CallFilter, *, limit: int, cursor: str | None) -> Bulk:
        """Retry a page of them."""

    async def purge(self, meant: CallFilter, *, limit: int, cursor: str | None) -> Bulk:
        """Delete a page of them."""


class Following(Protocol):
    """Tells what happens to calls while it happens."""

    def follow(self, call_id: str, after: Position) -> AsyncGenerator[list[Told], None]:
        """What is beyond a position, until the call has ended; an empty list now and then, when nothing happens."""

    def follow_log(self, call_id: str) -> AsyncGenerator[bytes, None]:
        """A call's log until the call has ended."""

    def watch(self, app_name: str) -> AbstractContextManager[Watch]:
        """What happens to an app's queued calls from now on."""


class Deliveries(Protocol):
    """Who was told of calls' ends."""

    async def deliveries_of(self, call_id: str) -> list[Delivery]:
        """In the order in which they were made; raises `CallNotFoundError`, `CallExpiredError`."""

    async def redeliver(self, call_id: str, number: int) -> Delivery:
        """Send one again; raises `DeliveryNotFoundError` too."""


class OutsideWorkers(Protocol):
    """Calls for workers that are not ours."""

    async def lease(self) -> tuple[Call, Route, CallRequest] | None:
        """Give one queued call to one."""

    async def finish(self, call_id: str) -> None:
        """It has run it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything the handlers need."""

    catalog: Catalog
    lookup: Lookup
    control: Control
    following: Following
    dead_letters: DeadLetterBox
    schedules: Schedules
    outside: OutsideWorkers
    deliveries: Deliveries
    render_metrics: Callable[[], Awaitable[bytes]]
    readiness: Mapping[str, ReadinessCheck] = field(default_factory=dict)


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def _catalog(request: Request) -> Catalog:
    return _services(request).catalog


def _lookup(request: Request) -> Lookup:
    return _services(request).lookup


def _control(request: Request) -> Control:
    return _services(request).control


def _following(request: Request) -> Following:
    return _services(request).following


def _dead_letters(request: Request) -> DeadLetterBox:
    return _services(request).dead_letters


def _schedules(request: Request) -> Schedules:
    return _services(request).schedules


def _outside(request: Request) -> OutsideWorkers:
    return _services(request).outside


def _deliveries(request: Request) -> Deliveries:
    return _services(request).deliveries


ServicesDep = Annotated[Services, Depends(_services)]
CatalogDep = Annotated[Catalog, Depends(_catalog)]
ControlDep = Annotated[Control, Depends(_control)]
FollowingDep = Annotated[Following, Depends(_following)]
DeadLettersDep = Annotated[DeadLetterBox, Depends(_dead_letters)]
DeliveriesDep = Annotated[Deliveries, Depends(_deliveries)]
LookupDep = Annotated[Lookup, Depends(_lookup)]
SchedulesDep = Annotated[Schedules, Depends(_schedules)]
OutsideWorkersDep = Annotated[OutsideWorkers, Depends(_outside)]
