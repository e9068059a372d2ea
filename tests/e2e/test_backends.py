"""Nodes on PostgreSQL and Redis: what they promise on SQLite they keep there, and a second node takes over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_serve import client_of, result_of, submit
from tests.support.node import App
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.e2e.conftest import StartNode

CALLS = 12


@pytest.fixture(params=["postgresql", "redis", "postgresql and redis"])
def backends(request: pytest.FixtureRequest) -> dict[str, str]:
    """Settings of a node that stands on the real services."""
    settings = {}
    if "postgresql" in request.param:
        settings["db_url"] = request.getfixturevalue("postgres_url")
    if "redis" in request.param:
        settings["queue_url"] = request.getfixturevalue("redis_url")
    return settings


async def test_queued_calls_of_a_killed_node_run_after_its_restart(
    start_node: StartNode, backends: dict[str, str]
) -> None:
    node = start_node(lease_s=3, **backends)
    url = App(node).deploy("/cold", "shell", config={"SCRIPT": "sleep 1; cat"}, memory=32)
    bodies = [b"call %d" % number for number in range(CALLS)]
    async with client_of(node) as client:
        ids = [await submit(client, url, body) for body in bodies]
        await wait_until(lambda: len(node.containers()) >= 2, timeout_s=60)
    node.kill()
    node.start()

    async with client_of(node) as client:
        results = await asyncio.gather(*(result_of(client, call_id) for call_id in ids))
    assert results == [("success", body) for body in bodies]


async def test_another_node_takes_over_the_calls_of_a_dead_one(
    start_node: StartNode, postgres_url: str, redis_url: str
) -> None:
    shared = {"db_url": postgres_url, "queue_url": redis_url, "lease_s": 3}
    first = start_node("first", **shared)
    url = App(first).deploy("/cold", "shell", config={"SCRIPT": "sleep 1; cat"}, memory=32)
    second = start_node("second", async_concurrency=4, **shared)
    bodies = [b"call %d" % number for number in range(CALLS)]
    async with client_of(first) as client:
        ids = [await submit(client, url, body) for body in bodies]
        await wait_until(lambda: len(first.containers()) >= 2, timeout_s=60)
    first.kill()

    async with client_of(second) as client:
        results = await asyncio.gather(*(result_of(client, call_id) for call_id in ids))
    assert results == [("success", body) for body in bodies]
    first.start()  # removes the containers that its earlier boot left
