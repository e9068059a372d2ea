"""The control API over HTTP, on a real SQLite store, and the data plane over a socket, on functions of this process."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from faas.api import dataplane as dataplane_module
from faas.catalog import Catalog, Limits
from faas.runner import keeper as keeper_module
from faas.schedules.schedules import Schedules
from faas.store.engine import Store, open_store
from tests.api.fakes import FakeCalls, FakeDeadLetters, FakeFollowing, SilentListener, make_app, resolve_image
from tests.api.front import MIB, PROGRAMS, running_front
from tests.support.programs import http_stream
from tests.support.rig import running_rig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from fastapi import FastAPI

    from tests.api.front import Front
    from tests.support.inprocess import Program


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
def following() -> FakeFollowing:
    return FakeFollowing()


@pytest.fixture
def dead_letters() -> FakeDeadLetters:
    return FakeDeadLetters()


@pytest.fixture
def schedules(store: Store) -> Schedules:
    return Schedules(store.schedules, wake=lambda: None)


@pytest.fixture
def app(
    catalog: Catalog,
    calls: FakeCalls,
    dead_letters: FakeDeadLetters,
    following: FakeFollowing,
    schedules: Schedules,
    store: Store,
) -> FastAPI:
    return make_app(
        catalog, schedules, calls, readiness={"store": store.ping}, dead_letters=dead_letters, following=following
    )


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://faas") as opened:
        yield opened


# --- the data plane


@pytest.fixture
def programs() -> dict[str, Program]:
    """Images by name; a test adds its own before it asks for `front`."""
    return {name: http_stream(handler) for name, handler in PROGRAMS.items()}


@pytest.fixture
async def make_front(
    tmp_path: Path, programs: dict[str, Program], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[..., Awaitable[Front]]]:
    """Makes a data plane with other limits."""
    # Pauses that only matter to a real node.
    monkeypatch.setattr(dataplane_module, "SWEEP_S", 0.05)
    monkeypatch.setattr(keeper_module, "DIAGNOSIS_S", 0.05)
    async with AsyncExitStack() as stack:

        async def make(**limits: Any) -> Front:
            root = tmp_path / "sockets"
            root.mkdir()
            rig = await stack.enter_async_context(running_rig(root, programs, max_response_bytes=64 * MIB))
            return await stack.enter_async_context(running_front(rig, programs, limits))

        yield make


@pytest.fixture
async def front(make_front: Callable[..., Awaitable[Front]]) -> Front:
    return await make_front()
