"""What the control API stands on, handed to `build_app`; handlers ask for it with `Depends`, there is no global."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Protocol

from fastapi import Depends, Request

from faas.catalog import Catalog
from faas.models import Call, CallLog, CallRequest, CallResult, CallStatus, Route

__all__ = ["Calls", "CallsDep", "CatalogDep", "ReadinessCheck", "Services", "ServicesDep", "Stats"]

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


class Calls(Protocol):
    """The life of calls, as far as this API reads and ends them."""

    async def get(self, call_id: str, *, wait_s: float = 0) -> Call:
        """The record, after the call's end or `wait_s`; raises `CallNotFoundError`, `CallExpiredError`."""

    async def result(self, call_id: str) -> CallResult:
        """What a sync caller would have got; raises `CallNotFinishedError` too."""

    async def log(self, call_id: str) -> CallLog:
        """What it wrote to standard error."""

    async def cancel(self, call_id: str) -> Call:
        """End it; its container is dead when this returns. An ended call stays as it is."""

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

    async def lease_task(self) -> tuple[Call, Route, CallRequest] | None:
        """Give one queued call to a worker outside."""

    async def finish_task(self, call_id: str) -> None:
        """The worker outside has run it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything the handlers need."""

    catalog: Catalog
    calls: Calls
    render_metrics: Callable[[], Awaitable[bytes]]
    readiness: Mapping[str, ReadinessCheck] = field(default_factory=dict)


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def _catalog(request: Request) -> Catalog:
    return _services(request).catalog


def _calls(request: Request) -> Calls:
    return _services(request).calls


ServicesDep = Annotated[Services, Depends(_services)]
CatalogDep = Annotated[Catalog, Depends(_catalog)]
CallsDep = Annotated[Calls, Depends(_calls)]
