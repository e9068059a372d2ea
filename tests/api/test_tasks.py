"""`/tasks`: queued calls for workers outside, in IronFunctions' form."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from faas import ids
from faas.errors import QueueUnavailableError
from faas.models import CallRequest, CallStatus, Route
from tests.api.fakes import CREATED_AT, FakeCalls, make_call

if TYPE_CHECKING:
    import httpx

CALL_ID = ids.new_id()


@pytest.fixture
async def _waiting(client: httpx.AsyncClient, calls: FakeCalls) -> None:
    await client.post("/v1/apps", json={"app": {"name": "demo", "config": {"log-level": "info", "A": "app"}}})
    call = make_call(CALL_ID, status=CallStatus.RUNNING, started_at=CREATED_AT, priority=1)
    calls.calls[CALL_ID] = call
    route = Route(app_name="demo", path="/hello", image="hello", timeout_s=60, config={"A": "route"}, jwt_key="s3cret")
    request = CallRequest(
        method="POST",
        url="http://faas/r/demo/hello?x=1",
        headers=((b"x-tag", b"one"), (b"accept", b"*/*"), (b"x-tag", b"two")),
        body=b"hello",
    )
    calls.tasks.append((call, route, request))


async def test_an_empty_queue_is_202_and_null(client: httpx.AsyncClient) -> None:
    response = await client.get("/tasks")
    assert response.status_code == 202
    assert response.content == b"null\n"


@pytest.mark.usefixtures("_waiting")
async def test_a_call_is_leased_as_a_task(client: httpx.AsyncClient) -> None:
    response = await client.get("/tasks")
    assert response.status_code == 202
    assert response.json() == {
        "id": CALL_ID,
        "app_name": "demo",
        "path": "/hello",
        "image": "hello",
        "payload": "hello",
        "priority": 1,
        "env_vars": {
            "METHOD": "POST",
            "ROUTE": "/hello",
            "REQUEST_URL": "http://faas/r/demo/hello?x=1",
            "LOG_LEVEL": "info",
            "A": "route",
            "HEADER_X_TAG": "one two",
            "HEADER_ACCEPT": "*/*",
        },
        "timeout": 60,
        "idle_timeout": 30,
        "status": "running",
        "created_at": "2026-01-02T03:04:05.678000Z",
        "started_at": "2026-01-02T03:04:05.678000Z",
    }
    assert (await client.get("/tasks")).json() is None


async def test_a_payload_that_is_no_text_is_also_given_exactly(client: httpx.AsyncClient, calls: FakeCalls) -> None:
    await client.post("/v1/apps", json={"app": {"name": "demo"}})
    body = b"\x00\xff\xfe"
    route = Route(app_name="demo", path="/hello", image="hello")
    calls.tasks.append((make_call(CALL_ID), route, CallRequest(method="POST", url="http://faas/", body=body)))
    task = (await client.get("/tasks")).json()
    assert base64.b64decode(task["payload_base64"]) == body


@pytest.mark.usefixtures("_waiting")
async def test_a_task_is_acknowledged_with_itself(client: httpx.AsyncClient, calls: FakeCalls) -> None:
    task = (await client.get("/tasks")).json()
    response = await client.request("DELETE", "/tasks", json=task)
    assert response.status_code == 202
    assert response.json() == task
    assert calls.finished == [CALL_ID]


async def test_acknowledging_what_is_no_task_is_400(client: httpx.AsyncClient) -> None:
    for content in (b"", b"{", b"{}", b'{"id": 5}'):
        assert (await client.request("DELETE", "/tasks", content=content)).status_code == 400


async def test_acknowledging_an_unknown_task_is_404(client: httpx.AsyncClient) -> None:
    assert (await client.request("DELETE", "/tasks", json={"id": ids.new_id()})).status_code == 404


async def test_a_queue_that_is_away_is_503(client: httpx.AsyncClient, calls: FakeCalls) -> None:
    calls.failure = QueueUnavailableError("The queue does not answer")
    response = await client.get("/tasks")
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "queue_unavailable"
