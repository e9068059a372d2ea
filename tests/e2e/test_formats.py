"""The contract of a format: what each of them promises to callers, on real containers, one suite for all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.e2e.answers import is_warm
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    import httpx

    from tests.support.node import App

IMAGES = {"default": "cat", "http": "stdio-echo", "http-stream": "echo"}
"""For each format a function that gives its body back."""

pytestmark = pytest.mark.parametrize("name", IMAGES)

BODIES = [b"\x00", bytes(range(256)), b"0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", b"x" * 100_000]


async def test_a_body_comes_back_byte_for_byte(name: str, app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy(f"/{name}", IMAGES[name])
    for body in BODIES:
        answer = await client.post(url, content=body)
        assert (answer.status_code, answer.content) == (200, body)
        assert "faas-error" not in answer.headers


async def test_calls_at_the_same_time_get_their_own_answers(name: str, app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy(f"/{name}", IMAGES[name], max_concurrency=2, memory=32)
    bodies = [b"call %d" % number for number in range(8)]
    answers = await asyncio.gather(*(client.post(url, content=body) for body in bodies))
    assert [answer.content for answer in answers] == bodies


async def test_sync_and_async_calls_get_the_same_answer(name: str, app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy(f"/{name}", IMAGES[name])
    sync = await client.post(url, content=b"hello")
    accepted = await client.post(url, content=b"hello", headers={"Prefer": "respond-async"})
    call_id = accepted.json()["call_id"]
    await client.get(f"/v1/calls/{call_id}", params={"wait": 60})
    result = await client.get(f"/v1/calls/{call_id}/result")
    assert (result.status_code, result.content) == (sync.status_code, sync.content)
    assert result.headers["content-type"] == sync.headers["content-type"]


async def test_only_hot_formats_use_a_container_again(name: str, app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy(f"/{name}", IMAGES[name], max_concurrency=1)
    await client.post(url, content=b"first")
    again = await client.post(url, content=b"second")
    assert is_warm(again) == (name != "default")


async def test_no_container_outlives_its_route(name: str, app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy(f"/{name}", IMAGES[name])
    await client.post(url, content=b"hello")
    app.remove(f"/{name}")
    await wait_until(lambda: not app.containers(f"/{name}"), timeout_s=30)
    assert (await client.post(url)).status_code == 404
