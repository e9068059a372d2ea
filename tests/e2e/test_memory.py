"""A node's resident memory: what it takes by itself, and with many routes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx

from tests.support.node import REQUEST_TIMEOUT_S, App

if TYPE_CHECKING:
    from tests.e2e.conftest import StartNode

IDLE_MIB = 90
WITH_ROUTES_MIB = 110
ROUTES = 1000
CLIENTS = 16


async def test_an_idle_node_and_one_with_a_thousand_routes_stay_small(start_node: StartNode) -> None:
    node = start_node()
    with node.api() as api:
        assert api.get("/readyz").status_code == 200
    assert node.memory_mib("VmRSS") < IDLE_MIB

    app = App(node)
    url = app.deploy("/0", "echo")
    routes = f"/v1/apps/{app.name}/routes"
    async with httpx.AsyncClient(base_url=node.url, timeout=REQUEST_TIMEOUT_S) as client:
        numbers = iter(range(1, ROUTES))

        async def make_routes() -> None:
            for number in numbers:
                route = {"path": f"/{number}", "image": "faas/test-echo:local", "format": "http-stream", "memory": 64}
                answer = await client.post(routes, json={"route": route})
                assert answer.status_code == 200, answer.text

        await asyncio.gather(*[make_routes() for _ in range(CLIENTS)])
        assert len((await client.get(routes)).json()["routes"]) == ROUTES
        assert (await client.post(url, content=b"hello")).content == b"hello"
        assert b"faas_calls_total" in (await client.get("/metrics")).content
    assert node.memory_mib("VmRSS") < WITH_ROUTES_MIB
