"""`/v1/calls/{id}/events`, `/v1/apps/{app}/events` and `log?follow=true` over HTTP, as an EventSource reads them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from faas import ids
from faas.api import following as api_following
from faas.calls.events import CallEvents, Notice
from faas.calls.following import CallEnded, LogLine, Told
from faas.calls.history import AttemptEnded, Position, StateChange
from faas.calls.waiting import Waiters
from faas.errors import StoreUnavailableError
from faas.models import CallStatus
from tests.api.fakes import CREATED_AT, FakeCalls, FakeFollowing, make_call
from tests.support.samples import a_call, an_attempt

if TYPE_CHECKING:
    import httpx

    from faas.calls.events import Watch

CALL_ID = ids.new_id()
CALL = make_call(CALL_ID)
EVENTS = f"/v1/calls/{CALL_ID}/events"


@pytest.fixture(autouse=True)
def _known_call(calls: FakeCalls) -> None:
    calls.calls[CALL_ID] = CALL


@pytest.fixture
async def _demo(client: httpx.AsyncClient) -> None:
    await client.post("/v1/apps", json={"app": {"name": "demo"}})


def told(changes: int, news: Any, **position: int) -> Told:
    return Told(position=Position(changes=changes, **position), news=news)


def parsed(text: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Event name, id and data of each event, by the rules of WHATWG HTML 9.2."""
    events = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if "data" in fields:
            events.append((fields["event"], fields.get("id", ""), json.loads(fields["data"])))
    return events


async def test_a_call_is_told_as_events_with_ids_to_its_end(
    client: httpx.AsyncClient, following: FakeFollowing
) -> None:
    ended = CALL.ended(CallStatus.SUCCESS, completed_at=CREATED_AT)
    following.told = [
        [told(1, StateChange(status=CallStatus.QUEUED, at=CREATED_AT))],
        [],
        [
            told(1, LogLine(attempt=1, line=b"a\n\xff: b\r\n"), attempt=1, log_bytes=8),
            told(2, AttemptEnded(attempt=an_attempt())),
        ],
        [told(2, CallEnded(call=ended))],
    ]
    response = await client.get(EVENTS)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-store"
    assert response.text.startswith("retry: 1000\n: following\n\n")
    state, log, attempt, end = parsed(response.text)
    assert state[:2] == ("state", "1.0.0")
    assert state[2] == {
        "status": "queued",
        "at": "2026-01-02T03:04:05.678000Z",
        "attempt": 0,
        "reason": None,
        "error": "",
    }
    assert log == ("log", "1.1.8", {"attempt": 1, "line": "a\n\ufffd: b\r\n"})
    assert (attempt[0], attempt[2]["attempt"]["node"]) == ("attempt", "node-1")
    assert (end[0], end[1], end[2]["call"]["status"]) == ("end", "end", "success")
    assert "\n\n: alive\n\n" in response.text
    assert following.after == Position()
    assert following.closed == 1


async def test_who_comes_back_goes_on_where_he_was(client: httpx.AsyncClient, following: FakeFollowing) -> None:
    await client.get(EVENTS, headers={"Last-Event-ID": "3.1.77"})
    assert following.after == Position(changes=3, attempt=1, log_bytes=77)


async def test_who_comes_back_after_the_end_is_told_to_stay_away(client: httpx.AsyncClient) -> None:
    response = await client.get(EVENTS, headers={"Last-Event-ID": "end"})
    assert (response.status_code, response.content) == (204, b"")


async def test_an_unknown_last_event_id_is_400(client: httpx.AsyncClient) -> None:
    response = await client.get(EVENTS, headers={"Last-Event-ID": "7"})
    assert (response.status_code, response.headers["faas-error"]) == (400, "invalid_request")


@pytest.mark.parametrize("what", ["events", "log?follow=true"])
async def test_a_call_that_is_not_there_is_404_and_no_stream(client: httpx.AsyncClient, what: str) -> None:
    response = await client.get(f"/v1/calls/{ids.new_id()}/{what}")
    assert (response.status_code, response.headers["faas-error"]) == (404, "call_not_found")


@pytest.mark.parametrize(
    ("failure", "code"), [(None, "shutting_down"), (StoreUnavailableError("The database is away"), "store_unavailable")]
)
async def test_a_stream_that_ends_before_its_call_says_why(
    client: httpx.AsyncClient, following: FakeFollowing, failure: Exception | None, code: str
) -> None:
    following.failure = failure
    ((name, event_id, data),) = parsed((await client.get(EVENTS)).text)
    assert (name, event_id, data["code"]) == ("interrupted", "", code)


async def test_a_followed_log_is_its_bytes(client: httpx.AsyncClient, following: FakeFollowing) -> None:
    following.log = [b"one\n\xff", b"two"]
    response = await client.get(f"/v1/calls/{CALL_ID}/log?follow=true")
    assert response.content == b"one\n\xfftwo"
    assert response.headers["content-type"] == "text/plain; charset=utf-8"


async def test_one_attempt_can_not_be_followed(client: httpx.AsyncClient) -> None:
    response = await client.get(f"/v1/calls/{CALL_ID}/log?follow=true&attempt=1")
    assert response.status_code == 400


# --- an app's calls


def publish(watch: Watch, *news: Notice | CallStatus) -> None:
    events = CallEvents(Waiters())
    events._watches["demo"] = {watch}
    for one in news:
        if isinstance(one, Notice):
            watch.put(one)
        else:
            events.publish(a_call(id=CALL_ID, status=one, attempt=1))


@pytest.mark.usefixtures("_demo")
async def test_an_apps_calls_are_told_until_the_node_goes(client: httpx.AsyncClient, following: FakeFollowing) -> None:
    publish(following.watch_, CallStatus.RUNNING, Notice.GAP, CallStatus.ERROR, Notice.CLOSING)
    text = (await client.get("/v1/apps/demo/events")).text
    assert [(name, data.get("status", data.get("code"))) for name, _, data in parsed(text)] == [
        ("state", "running"),
        ("gap", None),
        ("state", "error"),
        ("interrupted", "shutting_down"),
    ]
    first = parsed(text)[0][2]
    assert {**first, "at": ""} == {
        "call_id": CALL_ID,
        "app_name": "demo",
        "path": "/hello",
        "status": "running",
        "at": "",
        "attempt": 1,
        "reason": None,
        "error": "",
    }
    assert following.closed == 1


@pytest.mark.usefixtures("_demo")
async def test_a_slow_watcher_is_let_go_with_a_last_word(client: httpx.AsyncClient, following: FakeFollowing) -> None:
    publish(following.watch_, Notice.TOO_SLOW)
    ((name, _, data),) = parsed((await client.get("/v1/apps/demo/events")).text)
    assert (name, data["code"]) == ("interrupted", "too_slow")


@pytest.mark.usefixtures("_demo")
async def test_nothing_for_a_while_is_a_comment(
    client: httpx.AsyncClient, following: FakeFollowing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_following, "HEARTBEAT_S", 0.0)
    take, takes = following.watch_.take, 0

    async def take_thrice(*, timeout_s: float) -> Any:
        nonlocal takes
        takes += 1
        if takes == 3:
            following.watch_.put(Notice.CLOSING)
        return await take(timeout_s=timeout_s if takes < 3 else 5)

    monkeypatch.setattr(following.watch_, "take", take_thrice)
    assert (await client.get("/v1/apps/demo/events")).text.count(": alive\n\n") == 2


async def test_an_app_that_is_not_there_can_not_be_followed(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/apps/nobody/events")).status_code == 404
