"""Routes compiled for running: what the hot path reads instead of the database."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote_to_bytes

from faas.errors import AppNotFoundError, RouteNotFoundError
from faas.models import CallType, FormatName, clean_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from faas.counters import RouteMetrics
    from faas.models import App, PullPolicy, Route
    from faas.retry_policy import RetryPolicy
    from faas.webhooks import Webhooks
    from faas.wire.headers import Headers

__all__ = ["Function", "FunctionTable", "RouteCounters", "compile_function"]

RUN_PREFIX = b"/r/"


class RouteCounters(Protocol):
    """Who keeps the counters of all routes."""

    def for_route(self, app_name: str, path: str, call_type: CallType) -> RouteMetrics:
        """A route's counters for one type of call, made at first use."""

    def forget_route(self, app_name: str, path: str) -> None:
        """A route is gone."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Function:
    """One route of one app, as it is run. Compared by identity; `key` says which may share containers."""

    key: str
    """Hash of everything that could make two containers differ; an update that changes it drains the old ones, any
    other lets them stay."""
    app_name: str
    path: str
    image: str
    image_digest: str
    pull: PullPolicy
    format: FormatName
    is_async: bool
    memory_mib: int
    cpus: float
    timeout_s: int
    idle_timeout_s: int
    stream_idle_s: int
    max_concurrency: int
    concurrency: int
    """Calls at the same time in one container."""
    min_warm: int
    freeze_s: float
    """0: never."""
    retries: RetryPolicy | None
    """When its failed async calls run again."""
    webhooks: Webhooks | None
    """Who is told of the ends of its async calls."""
    config: Mapping[str, str]
    """The app's configuration, then the route's over it."""
    response_headers: tuple[tuple[bytes, bytes], ...]
    """The route's own headers, first value of each, added to every answer of the function."""
    jwt_key: str
    sync_metrics: RouteMetrics
    async_metrics: RouteMetrics

    def __str__(self) -> str:
        return f"{self.app_name}{self.path}"

    def add_headers(self, headers: Headers) -> Headers:
        """An answer's headers with the route's own, which are over the function's."""
        own = self.response_headers
        if not own:
            return headers
        names = {name for name, _ in own}
        return [header for header in headers if header[0] not in names] + list(own)


def compile_function(app: App, route: Route, counters: RouteCounters) -> Function:
    """The function that a route of an app is, with its counters at hand."""
    config = {**app.config, **route.config}
    identity = [
        route.app_name,
        route.path,
        route.image,
        route.image_digest,
        route.format.value,
        route.memory_mib,
        route.cpus,
        route.concurrency,
        sorted(config.items()),
    ]
    return Function(
        key=hashlib.sha256(json.dumps(identity).encode()).hexdigest(),
        app_name=route.app_name,
        path=route.path,
        image=route.image,
        image_digest=route.image_digest,
        pull=route.pull,
        format=route.format,
        is_async=route.type is CallType.ASYNC,
        memory_mib=route.memory_mib,
        cpus=route.cpus,
        timeout_s=route.timeout_s,
        idle_timeout_s=route.idle_timeout_s,
        stream_idle_s=route.stream_idle_s,
        max_concurrency=route.max_concurrency,
        concurrency=route.concurrency if route.format is FormatName.HTTP_STREAM else 1,
        min_warm=route.min_warm,
        freeze_s=route.freeze_ms / 1000,
        retries=route.retries,
        webhooks=route.webhooks,
        config=config,
        response_headers=tuple(
            (name.lower().encode("latin-1"), values[0].encode("latin-1"))
            for name, values in route.headers.items()
            if values
        ),
        jwt_key=route.jwt_key,
        sync_metrics=counters.for_route(route.app_name, route.path, CallType.SYNC),
        async_metrics=counters.for_route(route.app_name, route.path, CallType.ASYNC),
    )


class FunctionTable:
    """All functions of the installation, in memory.

    `on_changed` hears of each that is new or changed, `on_retired` the key of each that was replaced or removed.
    """

    def __init__(self, counters: RouteCounters) -> None:
        self.on_changed: Callable[[Function], None] = lambda _function: None
        self.on_retired: Callable[[str], None] = lambda _key: None
        self._counters = counters
        self._functions: dict[tuple[str, str], Function] = {}
        self._by_raw_path: dict[bytes, Function] = {}
        self._apps: set[str] = set()

    def __len__(self) -> int:
        return len(self._functions)

    # --- the catalog tells of changes

    def app_changed(self, app: App) -> None:
        """An app exists."""
        self._apps.add(app.name)

    def app_removed(self, app_name: str) -> None:
        """An app, whose routes are gone already, is gone."""
        self._apps.discard(app_name)

    def route_changed(self, app: App, route: Route) -> None:
        """A route was made or changed, or its app's configuration was."""
        self._apps.add(app.name)
        new = compile_function(app, route, self._counters)
        old = self._functions.get((route.app_name, route.path))
        self._functions[route.app_name, route.path] = new
        self._by_raw_path[_raw_path(new)] = new
        self.on_changed(new)
        if old is not None and old.key != new.key:
            self.on_retired(old.key)

    def route_removed(self, app_name: str, path: str) -> None:
        """A route is gone."""
        old = self._functions.pop((app_name, path), None)
        if old is not None:
            del self._by_raw_path[_raw_path(old)]
            self.on_retired(old.key)
            self._counters.forget_route(app_name, path)

    # --- look-ups

    def match(self, raw_path: bytes) -> Function:
        """The function at `/r/{app}/{path...}` as it stands in a request line, without its query.

        Raises `AppNotFoundError`, `RouteNotFoundError`.
        """
        function = self._by_raw_path.get(raw_path)
        if function is not None:
            return function
        decoded = unquote_to_bytes(raw_path[len(RUN_PREFIX) :]).decode("utf-8", "replace")
        app_name, _, rest = decoded.partition("/")
        return self.get(app_name, clean_path(rest))

    def key_at(self, app_name: str, path: str) -> str:
        """The key of a route's function, empty when there is no such route."""
        function = self._functions.get((app_name, path))
        return function.key if function is not None else ""

    def get(self, app_name: str, path: str) -> Function:
        """The function of a route; raises `AppNotFoundError`, `RouteNotFoundError`."""
        function = self._functions.get((app_name, path))
        if function is not None:
            return function
        if app_name not in self._apps:
            raise AppNotFoundError
        raise RouteNotFoundError("Route not found on that application")


def _raw_path(function: Function) -> bytes:
    return RUN_PREFIX + function.app_name.encode() + function.path.encode()
