"""Stand-ins for what is below the control API and is tested elsewhere: the engine's images and the life of calls."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from faas.api.app import build_app
from faas.calls.events import Watch
from faas.errors import (
    CallNotFinishedError,
    CallNotFoundError,
    DeliveryNotFoundError,
    ImageNotAvailableError,
    InvalidRequestError,
)
from faas.metrics import Metrics
from faas.models import (
    App,
    Bulk,
    Call,
    CallFilter,
    CallLog,
    CallRequest,
    CallResult,
    CallStatus,
    CallType,
    PullPolicy,
    Reason,
    Route,
)
from faas.runner.executors.base import Image

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from fastapi import FastAPI

    from faas.api.services import Stats
    from faas.calls.following import Told
    from faas.calls.history import Position
    from faas.catalog import Catalog
    from faas.schedules.schedules import Schedules
    from faas.webhooks import Delivery

CREATED_AT = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)


async def resolve_image(reference: str, pull: PullPolicy) -> Image:
    """Every image is there but `missing`."""
    if reference == "missing":
        raise ImageNotAvailableError("The image missing is not on the engine: pull access denied")
    return Image(reference=reference, digest=f"sha256:{reference}")


class SilentListener:
    """Nobody runs functions here."""

    def app_changed(self, app: App) -> None:
        pass

    def app_removed(self, app_name: str) -> None:
        pass

    def route_changed(self, app: App, route: Route) -> None:
        pass

    def route_removed(self, app_name: str, path: str) -> None:
        pass


@dataclass(frozen=True)
class Counts:
    queue: int = 3
    running: int = 2
    complete: int = 1


def make_call(call_id: str, **fields: Any) -> Call:
    """A queued call of `demo/hello`."""
    defaults: dict[str, Any] = {
        "app_name": "demo",
        "path": "/hello",
        "type": CallType.ASYNC,
        "status": CallStatus.QUEUED,
        "created_at": CREATED_AT,
    }
    return Call(id=call_id, **(defaults | fields))


@dataclass
class FakeDeadLetters:
    """Dead letters of its own; notes what it was asked."""

    calls: dict[str, Call] = field(default_factory=dict)
    failure: Exception | None = None
    asked: tuple[str, CallFilter, int, str | None] | None = None

    async def retry(self, call_id: str) -> Call:
        if self.failure is not None:
            raise self.failure
        return make_call("new", retry_of=call_id)

    async def list_calls(self, meant: CallFilter, *, limit: int, cursor: str | None) -> tuple[list[Call], str | None]:
        self.asked = ("list", meant, limit, cursor)
        return list(self.calls.values()), None

    async def redrive(self, meant: CallFilter, *, limit: int, cursor: str | None) -> Bulk:
        self.asked = ("redrive", meant, limit, cursor)
        return Bulk(count=3, skipped=1, next_cursor="next")

    async def purge(self, meant: CallFilter, *, limit: int, cursor: str | None) -> Bulk:
        self.asked = ("purge", meant, limit, cursor)
        return Bulk(count=4, skipped=0, next_cursor=None)


@dataclass
class FakeCalls:
    """Calls in dictionaries; notes what it was asked."""

    calls: dict[str, Call] = field(default_factory=dict)
    results: dict[str, CallResult] = field(default_factory=dict)
    logs: dict[str, CallLog] = field(default_factory=dict)
    tasks: list[tuple[Call, Route, CallRequest]] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    waited_s: float | None = None
    attempt_asked: int | None = None
    listed: dict[str, Any] = field(default_factory=dict)
    deliveries: dict[str, list[Delivery]] = field(default_factory=dict)
    redelivered: list[tuple[str, int]] = field(default_factory=list)
    failure: Exception | None = None
    bulk_asked: tuple[str, CallFilter, int, str | None] | None = None

    def _find(self, call_id: str) -> Call:
        if self.failure is not None:
            raise self.failure
        if call_id not in self.calls:
            raise CallNotFoundError
        return self.calls[call_id]

    async def get(self, call_id: str, *, wait_s: float = 0) -> Call:
        self.waited_s = wait_s
        return self._find(call_id)

    async def result(self, call_id: str) -> CallResult:
        self._find(call_id)
        if call_id not in self.results:
            raise CallNotFinishedError("The call has not ended yet")
        return self.results[call_id]

    async def log(self, call_id: str, *, attempt: int | None = None) -> CallLog:
        self._find(call_id)
        self.attempt_asked = attempt
        return self.logs.get(call_id, CallLog(data=b""))

    async def cancel(self, call_id: str) -> Call:
        call = self._find(call_id)
        if not call.status.is_final:
            call = call.ended(CallStatus.CANCELLED, completed_at=CREATED_AT, reason=Reason.CLIENT_REQUEST)
            self.calls[call_id] = call
        return call

    async def cancel_many(self, meant: CallFilter, *, limit: int, cursor: str | None) -> Bulk:
        self.bulk_asked = ("cancel", meant, limit, cursor)
        return Bulk(count=2, skipped=1, next_cursor="next")

    async def list_calls(self, app_name: str, *, cursor: str | None, **filters: Any) -> tuple[list[Call], str | None]:
        if cursor == "garbage":
            raise InvalidRequestError("cursor: not one that this server gave")
        self.listed = {"app_name": app_name, "cursor": cursor, **filters}
        return list(self.calls.values()), "next" if self.calls else None

    async def deliveries_of(self, call_id: str) -> list[Delivery]:
        self._find(call_id)
        return self.deliveries.get(call_id, [])

    async def redeliver(self, call_id: str, number: int) -> Delivery:
        for delivery in await self.deliveries_of(call_id):
            if delivery.number == number:
                self.redelivered.append((call_id, number))
                return delivery
        raise DeliveryNotFoundError

    async def stats(self) -> Stats:
        return Counts()

    async def lease(self) -> tuple[Call, Route, CallRequest] | None:
        if self.failure is not None:
            raise self.failure
        return self.tasks.pop(0) if self.tasks else None

    async def finish(self, call_id: str) -> None:
        self.finished.append(self._find(call_id).id)


@dataclass
class FakeFollowing:
    """Streams of what a test wants told."""

    told: list[list[Told]] = field(default_factory=list)
    log: list[bytes] = field(default_factory=list)
    watch_: Watch = field(default_factory=Watch)
    after: Position | None = None
    failure: Exception | None = None
    closed: int = 0
    """How many streams have ended, or were left."""

    async def follow(self, call_id: str, after: Position) -> AsyncGenerator[list[Told], None]:
        self.after = after
        try:
            for batch in self.told:
                yield batch
            if self.failure is not None:
                raise self.failure
        finally:
            self.closed += 1

    async def follow_log(self, call_id: str) -> AsyncGenerator[bytes, None]:
        for lines in self.log:
            yield lines

    @contextmanager
    def watch(self, app_name: str) -> Iterator[Watch]:
        try:
            yield self.watch_
        finally:
            self.closed += 1


def make_app(catalog: Catalog, schedules: Schedules, calls: FakeCalls, **changes: Any) -> FastAPI:
    """The application on stand-ins; `changes` are arguments of `build_app`."""
    defaults: dict[str, Any] = {
        "dead_letters": FakeDeadLetters(),
        "following": FakeFollowing(),
        "render_metrics": Metrics().render,
        "readiness": {},
    }
    parts = dict.fromkeys(("lookup", "control", "outside", "deliveries"), calls)
    return build_app(catalog=catalog, schedules=schedules, **parts, **(defaults | changes))
