"""`/v1/calls/{id}/deliveries`, and what a route and a submission may say of webhooks."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from faas.api.submission_options import submission_options
from faas.errors import InvalidRequestError
from faas.ids import new_id
from faas.webhooks import Delivery, DeliveryStatus
from tests.api.fakes import CREATED_AT, FakeCalls, make_call

if TYPE_CHECKING:
    import httpx

import pytest

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
CALL_ID = new_id()


async def test_a_calls_deliveries_are_shown_and_sent_again(client: httpx.AsyncClient, calls: FakeCalls) -> None:
    calls.calls[CALL_ID] = make_call(CALL_ID)
    url = f"/v1/calls/{CALL_ID}/deliveries"
    assert (await client.get(url)).json() == {"message": "Successfully listed deliveries", "deliveries": []}
    calls.deliveries[CALL_ID] = [
        Delivery(
            call_id=CALL_ID,
            number=1,
            url="https://a.example/hook",
            status=DeliveryStatus.PENDING,
            created_at=CREATED_AT,
            tries=2,
            last_try=10,
            next_try_at=CREATED_AT,
            status_code=503,
            error="The receiver answered 503",
        )
    ]
    shown = {
        "number": 1,
        "url": "https://a.example/hook",
        "status": "pending",
        "tries": 2,
        "created_at": "2026-01-02T03:04:05.678000Z",
        "next_try_at": "2026-01-02T03:04:05.678000Z",
        "completed_at": None,
        "status_code": 503,
        "error": "The receiver answered 503",
    }
    assert (await client.get(url)).json()["deliveries"] == [shown]
    again = await client.post(f"{url}/1/redeliver")
    assert (again.status_code, again.json()["delivery"]) == (200, shown)
    assert calls.redelivered == [(CALL_ID, 1)]
    missing = await client.post(f"{url}/2/redeliver")
    assert (missing.status_code, missing.headers["faas-error"]) == (404, "delivery_not_found")


async def test_the_deliveries_of_an_unknown_call_are_404(client: httpx.AsyncClient) -> None:
    answer = await client.get(f"/v1/calls/{new_id()}/deliveries")
    assert (answer.status_code, answer.headers["faas-error"]) == (404, "call_not_found")


async def test_a_route_keeps_its_secret_to_itself(client: httpx.AsyncClient) -> None:
    webhooks = {"on_success": "https://a.example/yes", "secret": SECRET}
    route = {"path": "/hello", "image": "faas/echo", "webhooks": webhooks}
    made = await client.post("/v1/apps/demo/routes", json={"route": route})
    assert made.status_code == 200, made.text
    shown = {"on_success": "https://a.example/yes", "on_failure": "", "has_secret": True}
    assert made.json()["route"]["webhooks"] == shown
    assert SECRET not in made.text

    # What was shown comes back changed and without the secret, which stays.
    changed = {**shown, "on_failure": "https://a.example/no"}
    answer = await client.patch("/v1/apps/demo/routes/hello", json={"route": {"webhooks": changed}})
    assert answer.json()["route"]["webhooks"] == changed
    answer = await client.patch("/v1/apps/demo/routes/hello", json={"route": {"webhooks": None}})
    assert answer.json()["route"]["webhooks"] is None


async def test_webhooks_that_can_not_work_are_refused_and_the_secret_is_not_told(client: httpx.AsyncClient) -> None:
    webhooks = {"on_success": "ftp://a.example", "secret": "hush"}
    route = {"path": "/hello", "image": "faas/echo", "webhooks": webhooks}
    answer = await client.post("/v1/apps/demo/routes", json={"route": route})
    assert (answer.status_code, answer.headers["faas-error"]) == (400, "validation_failed")
    assert "webhooks: on_success must be an absolute http or https URL" in answer.text
    assert "webhooks: secret must be" in answer.text
    assert "hush" not in answer.text


def test_a_submission_says_whom_to_call_back() -> None:
    now = datetime(2030, 1, 31, 8, tzinfo=UTC)
    options = submission_options({b"x-callback-url": b"https://a.example/hook"}, now)
    assert options.callback_url == "https://a.example/hook"
    with pytest.raises(InvalidRequestError, match="X-Callback-Url must be an absolute http or https URL"):
        submission_options({b"x-callback-url": b"/hook"}, now)
