"""What the control API takes: how big, and in how many pieces."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from faas.api.limits import MAX_CONTROL_BODY_BYTES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx


def body_of(size_bytes: int) -> bytes:
    frame = json.dumps({"app": {"name": "demo", "config": {"A": ""}}})
    return frame.replace('""', '"' + "x" * (size_bytes - len(frame)) + '"').encode()


async def in_pieces(body: bytes, size_bytes: int = 10_000) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size_bytes):
        yield body[start : start + size_bytes]


async def test_a_body_of_one_mebibyte_is_taken(client: httpx.AsyncClient) -> None:
    body = body_of(MAX_CONTROL_BODY_BYTES)
    assert len(body) == MAX_CONTROL_BODY_BYTES
    assert (await client.post("/v1/apps", content=body)).status_code == 200


async def test_a_chunked_body_is_put_together(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/apps", content=in_pieces(body_of(50_000)))
    assert response.status_code == 200
    assert len(response.json()["app"]["config"]["A"]) > 49_000


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_one_byte_more_is_413(client: httpx.AsyncClient, is_chunked: bool) -> None:
    body = body_of(MAX_CONTROL_BODY_BYTES + 1)
    response = await client.post("/v1/apps", content=in_pieces(body) if is_chunked else body)
    assert response.status_code == 413
    assert response.headers["faas-error"] == "body_too_large"
    assert str(MAX_CONTROL_BODY_BYTES) in response.json()["error"]["message"]
    assert (await client.get("/v1/apps")).json()["apps"] == []


async def test_a_zero_byte_in_an_address_is_400(client: httpx.AsyncClient) -> None:
    for address in ("/v1/apps/a%00b", "/v1/routes?image=%00"):
        response = await client.get(address)
        assert response.status_code == 400
        assert response.json()["error"]["code"] == "invalid_request"
