"""The table of apps."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, select, update

from faas.clock import utc_now
from faas.errors import AppExistsError, AppHasRoutesError, AppNotFoundError
from faas.models import App
from faas.store.tables import apps, routes

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Row

    from faas.store.database import Database

__all__ = ["Apps", "add_app", "has_app"]


class Apps:
    """Apps by name. Names are unique; an app lives at least as long as its routes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self) -> list[App]:
        """All, by name."""
        return await self._database.read(
            lambda connection: [_app(row) for row in connection.execute(select(apps).order_by(apps.c.name))]
        )

    async def get(self, name: str) -> App:
        """The app; `AppNotFoundError`."""
        return await self._database.read(lambda connection: _get(connection, name))

    async def insert(self, app: App) -> App:
        """Add it, with the instants it gets; `AppExistsError`."""

        def work(connection: Connection) -> App:
            added = add_app(self._database, connection, app)
            if added is None:
                raise AppExistsError
            return added

        return await self._database.write(work)

    async def update(self, name: str, change: Callable[[App], App]) -> App:
        """Replace it by `change` of what it is now, nobody else's change in between; `AppNotFoundError`.

        What `change` raises passes through and leaves the app as it was. Name and creation stay. It may be called
        more than once.
        """

        def work(connection: Connection) -> App:
            present = _get(connection, name, is_locking=True)
            changed = replace(change(present), name=present.name, created_at=present.created_at, updated_at=utc_now())
            connection.execute(update(apps).where(apps.c.name == name).values(_values(changed)))
            return changed

        return await self._database.write(work)

    async def delete(self, name: str) -> None:
        """Remove it; `AppNotFoundError`, `AppHasRoutesError`."""

        def work(connection: Connection) -> None:
            _get(connection, name, is_locking=True)
            if connection.execute(select(routes.c.path).where(routes.c.app_name == name).limit(1)).first():
                raise AppHasRoutesError
            connection.execute(delete(apps).where(apps.c.name == name))

        await self._database.write(work)


def add_app(database: Database, connection: Connection, app: App) -> App | None:
    """Add an app inside a transaction; None when the name is taken."""
    now = utc_now()
    added = replace(app, created_at=app.created_at or now, updated_at=app.updated_at or now)
    statement = database.insert_new(apps)
    return added if connection.execute(statement, _values(added)).rowcount == 1 else None


def has_app(connection: Connection, name: str, *, is_keeping: bool = False) -> bool:
    """Whether the app exists; `is_keeping` makes that stay true until the transaction ends."""
    statement = select(apps.c.name).where(apps.c.name == name)
    if is_keeping:
        statement = statement.with_for_update(read=True, key_share=True)
    return connection.execute(statement).first() is not None


def _get(connection: Connection, name: str, *, is_locking: bool = False) -> App:
    statement = select(apps).where(apps.c.name == name)
    # SQLite has no row locks and needs none: it has one writer.
    row = connection.execute(statement.with_for_update() if is_locking else statement).first()
    if row is None:
        raise AppNotFoundError
    return _app(row)


def _app(row: Row[Any]) -> App:
    return App(name=row.name, config=row.config, created_at=row.created_at, updated_at=row.updated_at)


def _values(app: App) -> dict[str, object]:
    return {
        "name": app.name,
        "config": dict(app.config),
        "created_at": app.created_at,
        "updated_at": app.updated_at,
    }
