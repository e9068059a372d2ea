"""The table of routes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from sqlalchemy import delete, select, update

from faas.clock import utc_now
from faas.errors import AppNotFoundError, RouteExistsError, RouteHasSchedulesError, RouteNotFoundError
from faas.models import App, CallType, FormatName, PullPolicy, Route
from faas.retry_policy import RetryPolicy
from faas.store.apps import add_app, has_app
from faas.store.tables import routes, schedules
from faas.webhooks import Webhooks

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import ColumnElement, Connection, Row

    from faas.store.database import Database

__all__ = ["Routes", "keep_route"]


class Routes:
    """Routes by app and path."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, *, app_name: str | None = None, image: str | None = None) -> list[Route]:
        """By app and path: all, one app's, those of one image; empty also when there is no such app."""
        statement = select(routes).order_by(routes.c.app_name, routes.c.path)
        if app_name is not None:
            statement = statement.where(routes.c.app_name == app_name)
        if image is not None:
            statement = statement.where(routes.c.image == image)
        return await self._database.read(lambda connection: [_route(row) for row in connection.execute(statement)])

    async def get(self, app_name: str, path: str) -> Route:
        """The route; `AppNotFoundError`, `RouteNotFoundError`."""
        return await self._database.read(lambda connection: _get(connection, app_name, path))

    async def insert(self, route: Route) -> tuple[Route, App | None]:
        """Add it, and its app where there is none (then that is the second value); `RouteExistsError`."""

        def work(connection: Connection) -> tuple[Route, App | None]:
            app = self._ensure_app(connection, route.app_name)
            now = utc_now()
            added = replace(route, created_at=route.created_at or now, updated_at=route.updated_at or now)
            statement = self._database.insert_new(routes)
            if connection.execute(statement, _values(added)).rowcount != 1:
                raise RouteExistsError
            return added, app

        return await self._database.write(work)

    async def update(self, app_name: str, path: str, change: Callable[[Route], Route]) -> Route:
        """Replace it by `change` of what it is now, nobody else's change in between; errors as `get`.

        What `change` raises passes through and leaves the route as it was. App, path and creation stay. It may be
        called more than once.
        """

        def work(connection: Connection) -> Route:
            present = _get(connection, app_name, path, is_locking=True)
            changed = replace(
                change(present),
                app_name=present.app_name,
                path=present.path,
                created_at=present.created_at,
                updated_at=utc_now(),
            )
            connection.execute(update(routes).where(_is(app_name, path)).values(_values(changed)))
            return changed

        return await self._database.write(work)

    async def delete(self, app_name: str, path: str) -> None:
        """Remove it; `AppNotFoundError`, `RouteNotFoundError`, `RouteHasSchedulesError`. The app stays."""
        in_use = select(schedules.c.name).where(schedules.c.app_name == app_name, schedules.c.path == path).limit(1)

        def work(connection: Connection) -> None:
            _get(connection, app_name, path, is_locking=True)
            if connection.execute(in_use).first():
                raise RouteHasSchedulesError
            connection.execute(delete(routes).where(_is(app_name, path)))

        await self._database.write(work)

    def _ensure_app(self, connection: Connection, name: str) -> App | None:
        while True:
            added = add_app(self._database, connection, App(name=name))
            # On PostgreSQL the app that was in the way may be deleted at this very moment: then add it after all.
            if added is not None or has_app(connection, name, is_keeping=True):
                return added


def keep_route(connection: Connection, app_name: str, path: str) -> None:
    """Have the route stay until the transaction ends; `AppNotFoundError`, `RouteNotFoundError`."""
    statement = select(routes.c.path).where(_is(app_name, path)).with_for_update(read=True, key_share=True)
    if connection.execute(statement).first() is None:
        _raise_missing(connection, app_name)


def _is(app_name: str, path: str) -> ColumnElement[bool]:
    return (routes.c.app_name == app_name) & (routes.c.path == path)


def _get(connection: Connection, app_name: str, path: str, *, is_locking: bool = False) -> Route:
    statement = select(routes).where(_is(app_name, path))
    row = connection.execute(statement.with_for_update() if is_locking else statement).first()
    if row is None:
        _raise_missing(connection, app_name)
    return _route(row)


def _raise_missing(connection: Connection, app_name: str) -> NoReturn:
    raise RouteNotFoundError if has_app(connection, app_name) else AppNotFoundError


def _route(row: Row[Any]) -> Route:
    return Route(
        app_name=row.app_name,
        path=row.path,
        image=row.image,
        image_digest=row.image_digest,
        memory_mib=row.memory_mib,
        cpus=row.cpus,
        type=CallType(row.type),
        format=FormatName(row.format),
        max_concurrency=row.max_concurrency,
        concurrency=row.concurrency,
        min_warm=row.min_warm,
        freeze_ms=row.freeze_ms,
        stream_idle_s=row.stream_idle_s,
        timeout_s=row.timeout_s,
        idle_timeout_s=row.idle_timeout_s,
        retries=None if row.retries is None else RetryPolicy.from_json(row.retries),
        webhooks=None if row.webhooks is None else Webhooks.from_json(row.webhooks),
        pull=PullPolicy(row.pull),
        config=row.config,
        headers={name: tuple(values) for name, values in row.headers.items()},
        jwt_key=row.jwt_key,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _values(route: Route) -> dict[str, object]:
    values = {column.name: getattr(route, column.name) for column in routes.columns}
    values["config"] = dict(route.config)
    values["retries"] = None if route.retries is None else route.retries.to_json()
    values["webhooks"] = None if route.webhooks is None else route.webhooks.to_json()
    values["headers"] = {name: list(lines) for name, lines in route.headers.items()}
    return values
