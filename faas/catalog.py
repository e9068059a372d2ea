"""The rules by which apps and routes change, and nothing else knows them.

Creating a route is a patch on the defaults, so one merge rule serves both verbs (IronFunctions' rule): what the patch
leaves out, or gives as zero or empty, stays as it is. Every accepted change is told to the listener right after its
commit, in the order of the commits: the functions that run are never behind the answer to a change.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Protocol

from faas.errors import AppNotFoundError, ValidationError
from faas.models import App, CallType, FormatName, PullPolicy, Route, clean_path, merge_config

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from enum import StrEnum

    from faas.retry_policy import RetryPolicy
    from faas.runner.executors.base import Image
    from faas.store.engine import Store
    from faas.webhooks import Webhooks

__all__ = [
    "MAX_FREEZE_MS",
    "MAX_MIN_WARM",
    "MAX_PER_CONTAINER",
    "MAX_STREAM_IDLE_S",
    "Catalog",
    "CatalogListener",
    "Limits",
    "RoutePatch",
]

MIN_MEMORY_MIB = 6
"""Docker refuses to create a container with less."""

MAX_PATH = 512
"""Characters; a database index holds no row beyond some 2700 bytes, and no URL needs them."""

MAX_NUMBER = 2**31 - 1
"""What every database and IronFunctions' own types can hold."""

MAX_PER_CONTAINER = 1000
"""Calls at the same time in one container; each has a connection of its own."""

MAX_MIN_WARM = 1000
"""Containers kept ready. Their memory is what limits them; this catches a slip where a node knows no such limit."""

MAX_FREEZE_MS = 86_400_000
MAX_STREAM_IDLE_S = 86_400
"""A day: who wants more means never, which is 0."""

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*\Z")
_ENV_NAME = re.compile(r"[^=]+\Z")

RESERVED_HEADERS = frozenset({
    # They frame the answer: a route that set them would break the connection for the caller.
    "connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    # They are the platform's word, and a caller relies on it.
    "faas-error", "server-timing", "x-call-id",
})  # fmt: skip


class CatalogListener(Protocol):
    """Hears of every change on this node, synchronously; it must not raise."""

    def app_changed(self, app: App) -> None:
        """An app exists, or has a new configuration (each of its routes is told too)."""

    def app_removed(self, app_name: str) -> None:
        """An app, whose routes were gone already, is gone."""

    def route_changed(self, app: App, route: Route) -> None:
        """A route was made or changed, or its app's configuration was."""

    def route_removed(self, app_name: str, path: str) -> None:
        """A route is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a route may ask for; 0 is no limit."""

    node_memory_mib: int = 0
    """All the memory that this node has for functions."""
    max_timeout_s: int = 0
    max_idle_timeout_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutePatch:
    """What a client said about a route, with the domain's names; zero, empty and `None` mean "not said"."""

    image: str = ""
    memory_mib: int = 0
    cpus: float = 0.0
    type: str = ""
    format: str = ""
    pull: str = ""
    max_concurrency: int = 0
    concurrency: int = 0
    min_warm: int = 0
    freeze_ms: int = 0
    stream_idle_s: int = 0
    timeout_s: int = 0
    idle_timeout_s: int = 0
    retries: RetryPolicy | None = None
    webhooks: Webhooks | None = None
    jwt_key: str = ""
    config: Mapping[str, str] | None = None
    headers: Mapping[str, Sequence[str] | None] | None = None
    reset: frozenset[str] = field(default_factory=frozenset)
    """Names of fields here that go back to their default."""

    def merged_into(self, route: Route) -> Route:
        """The route with this patch applied, not yet validated; raises `ValidationError` for unknown words."""
        problems: list[str] = []
        changes: dict[str, Any] = {name: _DEFAULTS[name] for name in self.reset}
        for name in _PLAIN:
            if value := getattr(self, name):
                changes[name] = value
        for name, words, label in _WORDS:
            if text := getattr(self, name):
                if text in list(words):
                    changes[name] = words(text)
                else:
                    problems.append(f"Invalid route {label}: use one of {', '.join(words)}")
        if self.webhooks is not None:
            # Clients send back what they were shown, and that is without the secret.
            known = route.webhooks.secret if route.webhooks else ""
            changes["webhooks"] = replace(self.webhooks, secret=self.webhooks.secret or known)
        if self.config is not None:
            changes["config"] = merge_config(route.config, self.config)
        if self.headers is not None:
            changes["headers"] = merge_headers(route.headers, self.headers)
        if problems:
            raise ValidationError(problems, nesting=2)
        return replace(route, **changes)


_PLAIN = (
    "image", "memory_mib", "cpus", "max_concurrency", "concurrency", "min_warm", "freeze_ms", "stream_idle_s",
    "timeout_s", "idle_timeout_s", "retries", "jwt_key",
)  # fmt: skip
"""Fields whose value is taken as it is given."""

_WORDS: tuple[tuple[str, type[StrEnum], str], ...] = (
    ("type", CallType, "Type"),
    ("format", FormatName, "Format"),
    ("pull", PullPolicy, "Pull"),
)

_DEFAULTS = {item.name: item.default for item in fields(Route)}


def merge_headers(
    old: Mapping[str, tuple[str, ...]], patch: Mapping[str, Sequence[str] | None]
) -> dict[str, tuple[str, ...]]:
    """A given list replaces the header's values, an empty one or `None` deletes it, the others stay.

    Names are compared as HTTP does, without case. IronFunctions appends instead, but sends the first value only, so
    that a changed header never took effect.
    """
    merged = {name.lower(): (name, values) for name, values in old.items()}
    for name, values in patch.items():
        if values:
            merged[name.lower()] = (name, tuple(values))
        else:
            merged.pop(name.lower(), None)
    return dict(merged.values())


async def _prepare_nothing(_app: App, _route: Route) -> None:
    """Where there is nothing to have ready."""


async def _obeyed_at_once() -> None:
    """Where the listener is all who needs to know."""


class Catalog:
    """Apps and routes: read from the store, changed by the rules, told to the listener."""

    def __init__(
        self,
        store: Store,
        *,
        resolve_image: Callable[[str, PullPolicy], Awaitable[Image]],
        limits: Limits,
        listener: CatalogListener,
        prepare: Callable[[App, Route], Awaitable[None]] = _prepare_nothing,
        obeyed: Callable[[], Awaitable[None]] = _obeyed_at_once,
    ) -> None:
        """`prepare` has what a changed route needs ready before the change is made, or raises why that can't be.
        `obeyed` returns when all processes of this node do what the listener has heard."""
        self._apps = store.apps
        self._routes = store.routes
        self._resolve_image = resolve_image
        self._limits = limits
        self._listener = listener
        self._prepare = prepare
        self._obeyed = obeyed
        # From a commit until the listener has heard of it, so that two changes are heard in the order they were made.
        self._change = asyncio.Lock()

    async def load(self) -> None:
        """Tell the listener of everything that is stored."""
        async with self._change:
            apps = {app.name: app for app in await self._apps.list()}
            routes = await self._routes.list()
            for app in apps.values():
                self._listener.app_changed(app)
            for route in routes:
                # An app that another node made in between; its changes are told like all others.
                if route.app_name in apps:
                    self._listener.route_changed(apps[route.app_name], route)

    # --- apps

    async def list_apps(self) -> list[App]:
        """All apps by name."""
        return await self._apps.list()

    async def get_app(self, name: str) -> App:
        """One app; raises `AppNotFoundError`."""
        return await self._apps.get(name)

    async def create_app(self, name: str, config: Mapping[str, str]) -> App:
        """A new app; raises `ValidationError`, `AppExistsError`."""
        app = App(name=name, config=dict(config))
        app.validate()
        _check_app_config(config)
        async with self._change:
            app = await self._apps.insert(app)
            self._listener.app_changed(app)
        await self._obeyed()
        return app

    async def update_app(self, name: str, config: Mapping[str, str]) -> App:
        """Merge a configuration into the app's.

        Raises `ValidationError`, `AppNotFoundError`, `ChangeNotStartedError`.
        """
        _check_app_config(config)
        old = await self._apps.get(name)
        changed = replace(old, config=merge_config(old.config, config))
        for route in await self._routes.list(app_name=name):
            await self._prepare(changed, route)
        async with self._change:
            # Read first: between the commit and the listener nothing may fail.
            routes = await self._routes.list(app_name=name)
            app = await self._apps.update(name, lambda old: replace(old, config=merge_config(old.config, config)))
            self._listener.app_changed(app)
            for route in routes:
                self._listener.route_changed(app, route)
        await self._obeyed()
        return app

    async def delete_app(self, name: str) -> None:
        """Forget an app without routes; raises `AppNotFoundError`, `AppHasRoutesError`."""
        async with self._change:
            await self._apps.delete(name)
            self._listener.app_removed(name)
        await self._obeyed()

    # --- routes

    async def list_routes(self, *, app_name: str | None = None, image: str | None = None) -> list[Route]:
        """Routes by app and path, of one app, of one image; none for an app that is not there."""
        return await self._routes.list(app_name=app_name, image=image)

    async def get_route(self, app_name: str, path: str) -> Route:
        """One route by its path, cleaned; raises `AppNotFoundError`, `RouteNotFoundError`."""
        return await self._routes.get(app_name, clean_path(path))

    async def create_route(self, app_name: str, path: str, patch: RoutePatch) -> Route:
        """A new route, and its app when there is none, with the image found on the engine.

        Raises `ValidationError`, `RouteExistsError`, and what resolving an image raises.
        """
        bare = Route(app_name=app_name, path=path, image="")
        # What a new route is given is kept as it is: an empty value is a variable without text, not a deletion.
        route = replace(patch.merged_into(bare), config=dict(patch.config or {}))
        self._check_route(route)
        App(name=app_name).validate()
        image = await self._resolve_image(route.image, route.pull)
        route = replace(route, path=clean_path(path), image_digest=image.digest)
        async with self._change:
            known_app = await self._find_app(app_name)
            stored, made_app = await self._routes.insert(route)
            # Neither: another node made the app just now.
            app = made_app or known_app or await self._apps.get(app_name)
            self._listener.app_changed(app)
            self._listener.route_changed(app, stored)
        await self._obeyed()
        return stored

    async def update_route(self, app_name: str, path: str, patch: RoutePatch) -> Route:
        """Merge a patch into a route; naming its image, or a pull policy, has the engine look for the image again.

        Raises `ValidationError`, `AppNotFoundError`, `RouteNotFoundError`, `ChangeNotStartedError`, and what resolving
        an image raises.
        """
        path = clean_path(path)
        old = await self.get_route(app_name, path)
        new = patch.merged_into(old)
        self._check_route(new)
        is_image_named = bool(patch.image or patch.pull) or "pull" in patch.reset
        image = await self._resolve_image(new.image, new.pull) if is_image_named else None

        def change(stored: Route) -> Route:
            # Another change may have come in between. What was right with the route of before need not be with this
            # one (`min_warm` with another `format`), and if it brought an image, then the digest is that one's.
            merged = patch.merged_into(stored)
            self._check_route(merged)
            if image is not None and merged.image == new.image:
                merged = replace(merged, image_digest=image.digest)
            return merged

        await self._prepare(await self._apps.get(app_name), change(old))
        async with self._change:
            app = await self._apps.get(app_name)
            route = await self._routes.update(app_name, path, change)
            self._listener.route_changed(app, route)
        await self._obeyed()
        return route

    async def delete_route(self, app_name: str, path: str) -> None:
        """Forget a route; raises `AppNotFoundError`, `RouteNotFoundError`, `RouteHasSchedulesError`."""
        path = clean_path(path)
        async with self._change:
            await self._routes.delete(app_name, path)
            self._listener.route_removed(app_name, path)
        await self._obeyed()

    async def _find_app(self, name: str) -> App | None:
        try:
            return await self._apps.get(name)
        except AppNotFoundError:
            return None

    def _check_route(self, route: Route) -> None:
        problems: list[str] = []
        try:
            route.validate()
        except ValidationError as error:
            problems += error.problems
        problems += _route_problems(route, self._limits)
        if problems:
            raise ValidationError(problems, nesting=2)


def _check_app_config(config: Mapping[str, str]) -> None:
    if problems := _config_problems(config):
        raise ValidationError(problems)


def _route_problems(route: Route, limits: Limits) -> list[str]:
    return [
        *_number_problems(route, limits),
        *(route.retries.problems() if route.retries is not None else []),
        *(route.webhooks.problems() if route.webhooks is not None else []),
        *([f"Path must be {MAX_PATH} characters or less"] if len(route.path) > MAX_PATH else []),
        *(["Path malformed"] if not _is_text(route.path) else []),
        *(["Invalid image: a reference has no spaces or control characters"] if not _is_plain(route.image) else []),
        *(["jwt_key: has a zero byte, or is no Unicode text"] if not _is_text(route.jwt_key) else []),
        *_config_problems(route.config),
        *_header_problems(route.headers),
    ]


def _number_problems(route: Route, limits: Limits) -> list[str]:
    problems = []
    total_mib = limits.node_memory_mib
    if 0 <= route.memory_mib < MIN_MEMORY_MIB:
        problems.append(f"memory: {route.memory_mib} MiB asked, the engine starts nothing below {MIN_MEMORY_MIB}")
    if total_mib and route.memory_mib > total_mib:
        problems.append(f"memory: {route.memory_mib} MiB asked, this node has {total_mib} MiB for all functions")
    elif total_mib and route.min_warm * route.memory_mib > total_mib:
        problems.append(
            f"min_warm: {route.min_warm} containers of {route.memory_mib} MiB asked, "
            f"this node has {total_mib} MiB for all functions"
        )
    for name, value, maximum in (
        ("memory", route.memory_mib, MAX_NUMBER),
        ("max_concurrency", route.max_concurrency, MAX_NUMBER),
        ("concurrency", route.concurrency, MAX_PER_CONTAINER),
        ("min_warm", route.min_warm, MAX_MIN_WARM),
        ("freeze_ms", route.freeze_ms, MAX_FREEZE_MS),
        ("stream_idle_s", route.stream_idle_s, MAX_STREAM_IDLE_S),
        ("timeout", route.timeout_s, limits.max_timeout_s or MAX_NUMBER),
        ("idle_timeout", route.idle_timeout_s, limits.max_idle_timeout_s or MAX_NUMBER),
    ):
        if value > maximum:
            problems.append(f"{name}: {value} asked, at most {maximum} is allowed")
    return problems


def _config_problems(config: Mapping[str, str]) -> list[str]:
    """Names and values become environment variables; a value is never repeated in a message, it may be a secret."""
    problems = []
    for name, value in config.items():
        if not _ENV_NAME.match(name) or not _is_text(name):
            problems.append("config: a name is not empty and has no `=` and no zero byte")
        elif not _is_text(value):
            problems.append(f"config: the value of {name} has a zero byte, or is no Unicode text")
    return problems


def _header_problems(headers: Mapping[str, tuple[str, ...]]) -> list[str]:
    problems = []
    for name, values in headers.items():
        if not _HEADER_NAME.match(name):
            problems.append(f"headers: {name!r} can't be a header's name")
        elif name.lower() in RESERVED_HEADERS:
            problems.append(f"headers: {name} is set by the server, a route can't")
        elif not all(_HEADER_VALUE.match(value) for value in values):
            problems.append(f"headers: a value of {name} has characters that no header can carry")
    return problems


def _is_text(text: str) -> bool:
    """Whether databases, environments and UTF-8 can hold it: JSON can say half a surrogate pair and a zero byte."""
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)


def _is_plain(text: str) -> bool:
    return text.isprintable() and " " not in text
