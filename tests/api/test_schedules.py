"""`/v1/apps/{app}/schedules`: what is taken, refused and shown; `tests/schedules` has what gets fired."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import httpx

URL = "/v1/apps/demo/schedules"


@pytest.fixture(autouse=True)
async def _route(client: httpx.AsyncClient) -> None:
    await client.post("/v1/apps/demo/routes", json={"route": {"path": "/hello", "image": "img"}})


async def create(client: httpx.AsyncClient, name: str = "nightly", **fields: Any) -> httpx.Response:
    schedule = {"name": name, "path": "/hello", "cron": "0 3 * * *", **fields}
    return await client.post(URL, json={"schedule": schedule})


async def update(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    return await client.patch(f"{URL}/nightly", json={"schedule": fields})


def assert_refused(answer: httpx.Response, status: int, code: str) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["faas-error"] == code
    message: str = answer.json()["error"]["message"]
    return message


async def test_a_new_schedule_is_shown_with_defaults_and_its_next_five_firings(client: httpx.AsyncClient) -> None:
    answer = await create(client, timezone="Europe/Berlin")
    assert answer.status_code == 200
    assert answer.json()["message"] == "Schedule successfully created"
    shown = answer.json()["schedule"]
    assert await shown_now(client) == shown
    firings = [datetime.fromisoformat(text) for text in shown.pop("next")]
    assert len(firings) == 5
    assert all(timedelta(hours=23) <= after - before <= timedelta(hours=25) for before, after in pairwise(firings))
    for stamp in ("created_at", "updated_at"):
        assert shown.pop(stamp).endswith("Z")
    assert shown == {
        "app_name": "demo",
        "name": "nightly",
        "path": "/hello",
        "cron": "0 3 * * *",
        "interval_s": None,
        "timezone": "Europe/Berlin",
        "request": {"method": "POST", "headers": {}, "body": "", "body_base64": None},
        "priority": 0,
        "enabled": True,
        "missed": "skip",
        "overlap": "allow",
        "last_at": None,
        "last_call_id": None,
    }


async def shown_now(client: httpx.AsyncClient) -> dict[str, Any]:
    shown: dict[str, Any] = (await client.get(f"{URL}/nightly")).json()["schedule"]
    return shown


async def test_an_intervals_firings_are_that_far_apart(client: httpx.AsyncClient) -> None:
    shown = (await create(client, cron=None, interval_s=90)).json()["schedule"]
    firings = [datetime.fromisoformat(text) for text in shown["next"]]
    assert {after - before for before, after in pairwise(firings)} == {timedelta(seconds=90)}
    assert (shown["cron"], shown["interval_s"]) == (None, 90)


async def test_bytes_that_are_no_text_go_there_and_back(client: httpx.AsyncClient) -> None:
    template = {"method": "PUT", "headers": {"X-A": " b "}, "body_base64": "/wA="}
    shown = (await create(client, request=template)).json()["schedule"]["request"]
    assert shown == {"method": "PUT", "headers": {"x-a": "b"}, "body": None, "body_base64": "/wA="}


async def test_a_patch_changes_what_it_names(client: httpx.AsyncClient) -> None:
    before = (await create(client, priority=2, request={"headers": {"a": "b"}, "body": "x"})).json()["schedule"]
    answer = await update(client, priority=0, request={"body": ""}, overlap="skip", missed="once")
    assert answer.status_code == 200
    after = answer.json()["schedule"]
    changed = {key for key in after if after[key] != before[key]}
    assert changed == {"priority", "request", "overlap", "missed", "updated_at"}
    assert after["request"] == {"method": "POST", "headers": {"a": "b"}, "body": "", "body_base64": None}


async def test_a_disabled_schedule_has_no_next_firing_until_it_is_enabled(client: httpx.AsyncClient) -> None:
    await create(client)
    assert (await update(client, enabled=False)).json()["schedule"]["next"] == []
    assert len((await update(client, enabled=True)).json()["schedule"]["next"]) == 5


async def test_an_interval_replaces_an_expression_and_the_other_way_round(client: httpx.AsyncClient) -> None:
    await create(client)
    by_interval = (await update(client, interval_s=5)).json()["schedule"]
    assert (by_interval["cron"], by_interval["interval_s"]) == (None, 5)
    by_cron = (await update(client, cron="@daily")).json()["schedule"]
    assert (by_cron["cron"], by_cron["interval_s"]) == ("@daily", None)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "a b"}, "name: 1 to 64"),
        ({"path": None}, "path: missing"),
        ({"cron": None}, "either `cron` or `interval_s`"),
        ({"interval_s": 5}, "either `cron` or `interval_s`"),
        ({"cron": "61 * * * *"}, "cron: bad minute"),
        ({"cron": None, "interval_s": -1}, "interval_s: must be 1 to"),
        ({"cron": None, "interval_s": 10**10}, "interval_s: must be 1 to"),
        ({"timezone": "Mars/Olympus"}, "timezone: no such zone"),
        ({"priority": 3}, "priority: must be 0 to 2"),
        ({"request": {"method": "GET /"}}, "request.method"),
        ({"request": {"method": ""}}, "request.method"),
        ({"request": {"headers": {"a b": "c"}}}, "is no header's name"),
        ({"request": {"headers": {"a": "b\r\nc: d"}}}, "no header can have"),
        ({"request": {"headers": {"a": "€"}}}, "only Latin-1"),
        ({"request": {"headers": {"Content-Length": "5"}}}, "belongs to a connection"),
        ({"request": {"headers": {"a": "b" * 20_000}}}, "larger than 16384 bytes"),
        ({"request": {"body": "b" * 300_000}}, "larger than 262144 bytes"),
        ({"request": {"body": "a", "body_base64": "YQ=="}}, "either `body` or `body_base64`"),
        ({"request": {"body_base64": "?"}}, "not Base64"),
        ({"missed": "maybe"}, "missed"),
    ],
)
async def test_what_can_not_be_is_refused_and_said(
    client: httpx.AsyncClient, fields: dict[str, Any], words: str
) -> None:
    answer = await create(client, **fields)
    assert answer.status_code == 400, answer.text
    assert words in answer.json()["error"]["message"]
    assert (await client.get(URL)).json()["schedules"] == []


async def test_a_patch_is_held_to_the_same_rules(client: httpx.AsyncClient) -> None:
    before = (await create(client)).json()["schedule"]
    assert "bad hour" in assert_refused(await update(client, cron="0 99 * * *"), 400, "validation_failed")
    assert_refused(await update(client, name="other"), 400, "immutable_field")
    assert_refused(await update(client, path="/other"), 404, "route_not_found")
    assert await shown_now(client) == before


async def test_what_is_missing_or_taken_is_said(client: httpx.AsyncClient) -> None:
    assert_refused(await client.get("/v1/apps/nobody/schedules"), 404, "app_not_found")
    assert_refused(await client.get(f"{URL}/nightly"), 404, "schedule_not_found")
    assert_refused(await update(client, priority=1), 404, "schedule_not_found")
    assert_refused(await client.delete(f"{URL}/nightly"), 404, "schedule_not_found")
    assert_refused(await create(client, path="/other"), 404, "route_not_found")
    assert_refused(await client.post(URL, json={}), 400, "invalid_request")
    assert (await create(client)).status_code == 200
    assert_refused(await create(client), 409, "schedule_exists")


async def test_a_route_is_deleted_after_its_schedules(client: httpx.AsyncClient) -> None:
    await create(client)
    assert_refused(await client.delete("/v1/apps/demo/routes/hello"), 400, "route_has_schedules")
    answer = await client.delete(f"{URL}/nightly")
    assert (answer.status_code, answer.json()) == (200, {"message": "Schedule deleted"})
    assert (await client.delete("/v1/apps/demo/routes/hello")).status_code == 200


async def test_schedules_are_listed_by_name(client: httpx.AsyncClient) -> None:
    for name in ("b", "a"):
        await create(client, name)
    answer = (await client.get(URL)).json()
    assert [schedule["name"] for schedule in answer["schedules"]] == ["a", "b"]
