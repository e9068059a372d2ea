"""One store for each database; the contract suites run on all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from faas.store.engine import Store, open_store
from tests.contract.queues import nodes, other, queue, queue_url  # noqa: F401 - fixtures

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a new, empty database."""
    name = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    url: str = request.getfixturevalue(name)
    return url


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    """An open, empty store."""
    async with open_store(database_url) as store:
        yield store
