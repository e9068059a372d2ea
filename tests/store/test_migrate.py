"""The schema: the same whether it was drawn at once or migrated, and never downgraded."""

from __future__ import annotations

import asyncio
import stat
import subprocess
import sys
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, insert, inspect, make_url, text

from faas.clock import utc_now
from faas.errors import SchemaTooNewError, StoreUnavailableError
from faas.models import App, FormatName
from faas.store.engine import open_store
from faas.store.tables import apps, metadata, routes
from tests.support.samples import a_route
from tests.support.services import free_port

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest) -> str:
    name = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    url: str = request.getfixturevalue(name)
    return url


def execute(statement: str) -> Callable[[Connection], list[tuple[object, ...]]]:
    """A unit of work for a database."""

    def work(connection: Connection) -> list[tuple[object, ...]]:
        result = connection.execute(text(statement))
        return [tuple(row) for row in result] if result.returns_rows else []

    return work


def schema_of(connection: Connection) -> dict[str, object]:
    """All that the database says of its tables."""
    inspector = inspect(connection)
    schema: dict[str, object] = {
        table: {
            "columns": {
                column["name"]: {**column, "type": repr(column["type"])} for column in inspector.get_columns(table)
            },
            "key": inspector.get_pk_constraint(table),
            "references": inspector.get_foreign_keys(table),
            "unique": inspector.get_unique_constraints(table),
            "indexes": {
                index["name"]: {**index, "dialect_options": {name: str(value) for name, value in options.items()}}
                for index in inspector.get_indexes(table)
                for options in [index.get("dialect_options", {})]
            },
        }
        for table in inspector.get_table_names()
    }
    return schema


async def test_a_new_database_and_a_migrated_one_are_the_same(database_url: str) -> None:
    revision = execute("SELECT version_num FROM alembic_version")
    async with open_store(database_url) as store:
        new = await store.database.read(schema_of)
        drawn = await store.database.read(revision)
        # Back to where Alembic has everything to do.
        await store.database.write(metadata.drop_all)
        await store.database.write(execute("DELETE FROM alembic_version"))
    async with open_store(database_url) as store:
        migrated = await store.database.read(schema_of)
        newest = await store.database.read(revision)
    assert set(metadata.tables) < set(new)
    assert migrated == new
    assert newest == drawn, "`REVISION` in faas/store/tables.py is to name the newest migration"


def go_back_to_first_schema(connection: Connection) -> None:
    """An empty database as the first revision left it."""
    metadata.drop_all(connection)
    connection.execute(text("DROP TABLE alembic_version"))
    with as_file(files("faas.store") / "migrations") as folder:
        config = Config()
        config.set_main_option("script_location", str(folder))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")


async def test_routes_of_the_first_schema_are_kept_and_get_the_new_fields_defaults(database_url: str) -> None:
    now = utc_now()
    old = a_route(
        image_digest="sha256:1",
        cpus=0.5,
        format=FormatName.HTTP,
        max_concurrency=3,
        headers={"X-A": ("1",)},
        created_at=now,
        updated_at=now,
    )

    def fill(connection: Connection) -> None:
        first_columns = {column["name"] for column in inspect(connection).get_columns("routes")}
        assert "min_warm" not in first_columns
        connection.execute(insert(apps).values(name=old.app_name, config={}, created_at=now, updated_at=now))
        connection.execute(insert(routes).values({name: getattr(old, name) for name in first_columns}))

    async with open_store(database_url) as store:
        await store.database.write(go_back_to_first_schema)
        await store.database.write(fill)
    async with open_store(database_url) as store:
        kept = await store.routes.get(old.app_name, old.path)
    assert kept == replace(old, concurrency=1, min_warm=0, freeze_ms=0, stream_idle_s=0)


def test_opening_sqlite_brings_neither_alembic_nor_the_orm_nor_postgresql(sqlite_url: str) -> None:
    script = (
        "import asyncio, sys\n"
        "from faas.store.engine import open_store\n"
        "async def open_once():\n"
        f"    async with open_store({sqlite_url!r}): pass\n"
        "asyncio.run(open_once())\n"
        "asyncio.run(open_once())\n"
        "print(*sys.modules)"
    )
    listed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    unused = {"alembic", "asyncpg", "mako", "sqlalchemy.dialects.postgresql", "sqlalchemy.orm"}
    assert unused & set(listed.stdout.split()) == set()


async def test_ten_nodes_may_start_on_one_empty_database_together(database_url: str) -> None:
    async def start(number: int) -> None:
        async with open_store(database_url) as store:
            await store.apps.insert(App(name=f"app-{number}"))

    await asyncio.gather(*[start(number) for number in range(10)])
    async with open_store(database_url) as store:
        assert len(await store.apps.list()) == 10


async def test_a_newer_schema_is_refused_and_left_alone(database_url: str) -> None:
    async with open_store(database_url) as store:
        await store.apps.insert(App(name="demo"))
        await store.database.write(execute("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaTooNewError, match="revision 9999") as caught:
        async with open_store(database_url):
            pass
    assert caught.value.revision == "9999"


async def test_sqlite_is_durable_private_and_keeps_its_references(sqlite_url: str) -> None:
    async with open_store(sqlite_url) as store:
        for run in (store.database.read, store.database.write):
            settings = [
                (await run(execute(f"PRAGMA {name}")))[0][0]
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            ]
            full = 2
            assert settings == ["wal", full, 1, 5000]
    path = make_url(sqlite_url).database
    assert path is not None
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "url",
    [
        "sqlite+aiosqlite://",
        "sqlite+aiosqlite:////proc/nowhere/faas.db",
        "postgresql+asyncpg://nobody@127.0.0.1:{port}/nothing",
        "no url at all",
    ],
)
async def test_a_database_that_can_not_be_reached_is_said_to_be(url: str) -> None:
    with pytest.raises(StoreUnavailableError):
        async with open_store(url.format(port=free_port())):
            pass


async def test_a_file_that_is_no_database_is_said_to_be(tmp_path: Path) -> None:
    path = tmp_path / "faas.db"
    path.write_bytes(b"this is not SQLite" * 100)
    with pytest.raises(StoreUnavailableError, match="not a database"):
        async with open_store(f"sqlite+aiosqlite:///{path}"):
            pass


@pytest.mark.postgres
async def test_the_words_of_libpq_for_encryption_are_understood(postgres_url: str) -> None:
    async with open_store(f"{postgres_url}?sslmode=prefer") as store:
        await store.ping()
