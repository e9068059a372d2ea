"""Brings a database to the newest schema; refuses one that a newer faas has already changed."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from faas.errors import SchemaTooNewError
from faas.store.failures import FOREIGN, translated

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["migrate"]

ADVISORY_LOCK = 0x66616173
"""PostgreSQL's lock that nodes which start together take in turn ("faas" in ASCII)."""


async def migrate(engine: AsyncEngine) -> None:
    """Upgrade to the newest revision in one transaction; raises `SchemaTooNewError` and changes nothing then."""
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_upgrade)
    except FOREIGN as error:
        raise translated(error) from error


def _upgrade(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": ADVISORY_LOCK})
    with as_file(files("faas.store") / "migrations") as folder:
        config = Config()
        config.set_main_option("script_location", str(folder).replace("%", "%%"))
        config.attributes["connection"] = connection
        script = ScriptDirectory.from_config(config)
        known = {revision.revision for revision in script.walk_revisions()}
        present = set(MigrationContext.configure(connection).get_current_heads())
        if unknown := present - known:
            raise SchemaTooNewError(", ".join(sorted(unknown)))
        if present != set(script.get_heads()):
            command.upgrade(config, "head")
