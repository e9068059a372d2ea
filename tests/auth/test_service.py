"""The service's token: what it guards, and IronFunctions' answer to the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from faas.auth.route_token import make_token
from faas.auth.service import ServiceAuth

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Receive, Scope, Send

KEY = "service-key"


async def guarded_app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"inside"})


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(ServiceAuth(guarded_app, key=KEY))
    async with httpx.AsyncClient(transport=transport, base_url="http://faas") as opened:
        yield opened


@pytest.mark.parametrize("address", ["/v1", "/v1/apps", "/v1/calls/x/result", "/tasks", "/tasks/"])
@pytest.mark.parametrize("authorization", [None, "Bearer nonsense", f"Bearer {make_token('other', 60)}"])
async def test_without_a_valid_token_the_answer_is_ironfunctions_401(
    client: httpx.AsyncClient, address: str, authorization: str | None
) -> None:
    headers = {"authorization": authorization} if authorization else {}
    response = await client.get(address, headers=headers)
    assert response.status_code == 401
    assert response.json() == {"error": "Invalid API Authorization token."}
    assert response.content.endswith(b"\n")
    assert response.headers["content-type"].startswith("text/plain")
    assert response.headers["faas-error"] == "unauthorized"
    assert response.headers["www-authenticate"] == 'Bearer realm=""'


@pytest.mark.parametrize("address", ["/v1/apps", "/tasks"])
async def test_a_valid_token_is_let_in(client: httpx.AsyncClient, address: str) -> None:
    response = await client.get(address, headers={"authorization": f"Bearer {make_token(KEY, 60)}"})
    assert response.status_code == 200


@pytest.mark.parametrize("address", ["/", "/version", "/stats", "/healthz", "/readyz", "/metrics", "/v10", "/r/a/b"])
async def test_the_rest_stays_open(client: httpx.AsyncClient, address: str) -> None:
    assert (await client.get(address)).text == "inside"
