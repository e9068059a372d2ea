"""The control API over HTTP, on a real SQLite store."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

import httpx
import pytest

from faas.api.app import build_app
from faas.catalog import Catalog, Limits
from faas.metrics import Metrics
from faas.store.engine import Store, open_store
from tests.api.fakes import FakeCalls, SilentListener, resolve_image

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from fastapi import FastAPI


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with all tables: migrating a file takes four times as long as copying one."""
    path = tmp_path_factory.mktemp("database") / "empty.db"

    async def make() -> None:
        async with open_store(f"sqlite+aiosqlite:///{path}"):
            pass

    asyncio.run(make())
    return path


@pytest.fixture
async def store(empty_database: Path, tmp_path: Path) -> AsyncIterator[Store]:
    path = shutil.copy(empty_database, tmp_path / "faas.db")
    async with open_store(f"sqlite+aiosqlite:///{path}") as opened:
        yield opened


@pytest.fixture
def catalog(store: Store) -> Catalog:
    return Catalog(store, resolve_image=resolve_image, limits=Limits(node_memory_mib=1024), listener=SilentListener())


@pytest.fixture
def calls() -> FakeCalls:
    return FakeCalls()


@pytest.fixture
def app(catalog: Catalog, calls: FakeCalls, store: Store) -> FastAPI:
    return build_app(
        catalog=catalog,
        calls_of_node=calls,
        render_metrics=Metrics().render,
        readiness={"store": store.ping},
    )


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://faas") as opened:
        yield opened
