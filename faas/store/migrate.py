"""Brings a database to the newest schema; refuses one that a newer faas has already changed.

An empty database is made as `tables.py` draws it and marked with the revision that this is. Alembic changes one that
is older: only then is it imported, because with its template engine it takes 9 MiB.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import TYPE_CHECKING

from sqlalchemy import Column, MetaData, PrimaryKeyConstraint, String, Table, insert, inspect, select, text

from faas.errors import SchemaTooNewError
from faas.store.tables import REVISION, metadata

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["bring_up_to_date"]

ADVISORY_LOCK = 0x66616173
"""PostgreSQL's lock that nodes which start together take in turn ("faas" in ASCII)."""

# As Alembic makes it.
_alembic_version = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


def bring_up_to_date(connection: Connection) -> None:
    """Make or upgrade the schema, in the caller's transaction; raises `SchemaTooNewError`."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": ADVISORY_LOCK})
    if not inspect(connection).has_table(_alembic_version.name):
        metadata.create_all(connection)
        _alembic_version.create(connection)
        connection.execute(insert(_alembic_version).values(version_num=REVISION))
    elif connection.execute(select(_alembic_version.c.version_num)).scalars().all() != [REVISION]:
        _upgrade(connection)


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    with as_file(files("faas.store") / "migrations") as folder:
        config = Config()
        config.set_main_option("script_location", str(folder).replace("%", "%%"))
        config.attributes["connection"] = connection
        script = ScriptDirectory.from_config(config)
        known = {revision.revision for revision in script.walk_revisions()}
        present = set(MigrationContext.configure(connection).get_current_heads())
        if unknown := present - known:
            raise SchemaTooNewError(", ".join(sorted(unknown)))
        command.upgrade(config, "head")
