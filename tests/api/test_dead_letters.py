"""`/v1/calls/{id}/retry` and `/v1/apps/{app}/dead-letters` over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from faas.errors import CallNotEndedError, CallRetriedError, FaasError, RequestNotKeptError
from faas.models import CallFilter, CallStatus, Reason
from tests.api.fakes import FakeDeadLetters, make_call

if TYPE_CHECKING:
    import httpx

FILTER = "path=hello&reason=timeout&since=2026-01-01T00:00:00Z&until=2026-01-02T00:00:00Z"
MEANT = CallFilter(
    app_name="demo",
    path="/hello",
    reason=Reason.TIMEOUT,
    since=datetime(2026, 1, 1, tzinfo=UTC),
    until=datetime(2026, 1, 2, tzinfo=UTC),
    is_dead_letter=True,
)


@pytest.fixture(autouse=True)
async def _demo(client: httpx.AsyncClient) -> None:
    await client.post("/v1/apps", json={"app": {"name": "demo"}})


async def test_a_retry_is_accepted_and_names_the_new_call(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/calls/old/retry")
    assert response.status_code == 202
    answer = response.json()
    assert (answer["call_id"], answer["call"]["retry_of"]) == ("new", "old")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CallNotEndedError("The call is running"), "call_not_ended"),
        (CallRetriedError("other"), "call_retried"),
        (RequestNotKeptError("not kept"), "request_not_kept"),
    ],
)
async def test_a_call_that_can_not_be_retried_is_409(
    client: httpx.AsyncClient, dead_letters: FakeDeadLetters, error: FaasError, code: str
) -> None:
    dead_letters.failure = error
    response = await client.post("/v1/calls/old/retry")
    assert (response.status_code, response.json()["error"]["code"]) == (409, code)


async def test_dead_letters_are_listed_by_filter(client: httpx.AsyncClient, dead_letters: FakeDeadLetters) -> None:
    dead_letters.calls["dead"] = make_call("dead", status=CallStatus.ERROR, is_dead_letter=True, retries=3)
    response = await client.get(f"/v1/apps/demo/dead-letters?{FILTER}&per_page=7&cursor=c")
    (call,) = response.json()["calls"]
    assert (call["id"], call["is_dead_letter"], call["retries"]) == ("dead", True, 3)
    assert dead_letters.asked == ("list", MEANT, 7, "c")


async def test_dead_letters_are_retried_by_filter(client: httpx.AsyncClient, dead_letters: FakeDeadLetters) -> None:
    response = await client.post(f"/v1/apps/demo/dead-letters/redrive?{FILTER}&limit=9")
    assert response.json() == {"message": "Dead letters retried", "count": 3, "skipped": 1, "next_cursor": "next"}
    assert dead_letters.asked == ("redrive", MEANT, 9, None)


async def test_dead_letters_are_deleted_by_filter(client: httpx.AsyncClient, dead_letters: FakeDeadLetters) -> None:
    response = await client.post("/v1/apps/demo/dead-letters/purge")
    assert response.json() == {"message": "Dead letters deleted", "count": 4, "skipped": 0, "next_cursor": None}
    assert dead_letters.asked == ("purge", CallFilter(app_name="demo", is_dead_letter=True), 100, None)


@pytest.mark.parametrize("verb", ["redrive", "purge"])
@pytest.mark.parametrize("wrong", ["reason=bored", "limit=0", "limit=1001", "since=1"])
async def test_a_filter_that_means_nothing_is_400(
    client: httpx.AsyncClient, dead_letters: FakeDeadLetters, verb: str, wrong: str
) -> None:
    assert (await client.post(f"/v1/apps/demo/dead-letters/{verb}?{wrong}")).status_code == 400
    assert dead_letters.asked is None


@pytest.mark.parametrize("request_line", ["GET ", "POST /redrive", "POST /purge"])
async def test_an_app_that_is_not_there_has_no_dead_letters(client: httpx.AsyncClient, request_line: str) -> None:
    method, path = request_line.split(" ")
    response = await client.request(method, f"/v1/apps/gone/dead-letters{path}")
    assert response.json()["error"]["code"] == "app_not_found"
