"""`/v1/calls` and `/v1/apps/{app}/calls`: a call's record, result and log over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from faas import ids
from faas.errors import CallExpiredError, StoreUnavailableError
from faas.models import Attempt, CallFilter, CallLog, CallResult, CallStatus, CallType, Reason, Usage
from tests.api.fakes import CREATED_AT, FakeCalls, make_call

if TYPE_CHECKING:
    import httpx

CALL_ID = ids.new_id()


@pytest.fixture(autouse=True)
def _known_call(calls: FakeCalls) -> None:
    calls.calls[CALL_ID] = make_call(CALL_ID)


@pytest.fixture
async def _demo(client: httpx.AsyncClient) -> None:
    await client.post("/v1/apps", json={"app": {"name": "demo"}})


# --- one call


async def test_a_fresh_call_is_shown_with_every_field(client: httpx.AsyncClient) -> None:
    response = await client.get(f"/v1/calls/{CALL_ID}")
    assert response.status_code == 200
    assert response.json() == {
        "message": "Successfully loaded call",
        "call": {
            "id": CALL_ID,
            "app_name": "demo",
            "path": "/hello",
            "type": "async",
            "status": "queued",
            "reason": None,
            "error": "",
            "created_at": "2026-01-02T03:04:05.678000Z",
            "started_at": None,
            "completed_at": None,
            "priority": 0,
            "not_before": None,
            "expires_at": None,
            "attempts": [],
            "retry_of": None,
            "retried_by": None,
            "retries": 0,
            "is_dead_letter": False,
            "schedule": None,
            "result": None,
            "usage": None,
        },
    }


async def test_an_ended_call_has_its_attempts_result_and_usage(client: httpx.AsyncClient, calls: FakeCalls) -> None:
    first = Attempt(number=1, node="n1", started_at=CREATED_AT, reason=Reason.KILLED, error="node died")
    second = Attempt(
        number=2,
        node="n2",
        started_at=CREATED_AT,
        completed_at=CREATED_AT + timedelta(seconds=1),
        container_id="c0ffee",
        image_digest="sha256:1",
        exit_code=0,
        is_cold=True,
        queue_ms=1.5,
        start_ms=150.0,
        exec_ms=850.0,
        usage=Usage(memory_peak_bytes=1024, cpu_s=0.5),
    )
    result = CallResult(status_code=200, headers=((b"Content-Type", b"text/plain"),), body=b"hello")
    calls.calls[CALL_ID] = make_call(
        CALL_ID,
        type=CallType.SYNC,
        status=CallStatus.SUCCESS,
        started_at=CREATED_AT,
        completed_at=CREATED_AT + timedelta(seconds=1),
        attempt=2,
        attempts=(first, second),
        result=result.info,
    )
    call = (await client.get(f"/v1/calls/{CALL_ID}")).json()["call"]
    assert (call["status"], call["completed_at"]) == ("success", "2026-01-02T03:04:06.678000Z")
    assert call["result"] == {"status_code": 200, "content_type": "text/plain", "size_bytes": 5}
    assert call["usage"] == {"memory_peak_bytes": 1024, "cpu_s": 0.5}
    assert [attempt["reason"] for attempt in call["attempts"]] == ["killed", None]
    assert call["attempts"][1] == {
        "number": 2,
        "node": "n2",
        "started_at": "2026-01-02T03:04:05.678000Z",
        "completed_at": "2026-01-02T03:04:06.678000Z",
        "container_id": "c0ffee",
        "image_digest": "sha256:1",
        "exit_code": 0,
        "reason": None,
        "error": "",
        "is_cold": True,
        "queue_ms": 1.5,
        "start_ms": 150.0,
        "exec_ms": 850.0,
        "usage": {"memory_peak_bytes": 1024, "cpu_s": 0.5},
    }


@pytest.mark.parametrize(("wait", "wait_s"), [("", 0), ("?wait=0", 0), ("?wait=2.5", 2.5), ("?wait=300", 300)])
async def test_the_wait_is_passed_on(client: httpx.AsyncClient, calls: FakeCalls, wait: str, wait_s: float) -> None:
    assert (await client.get(f"/v1/calls/{CALL_ID}{wait}")).status_code == 200
    assert calls.waited_s == wait_s


@pytest.mark.parametrize("wait", ["-1", "301", "soon", "nan", "inf", ""])
async def test_a_bad_wait_is_400_and_names_the_parameter(
    client: httpx.AsyncClient, calls: FakeCalls, wait: str
) -> None:
    response = await client.get(f"/v1/calls/{CALL_ID}", params={"wait": wait})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_request"
    assert "query parameter wait: should be" in response.json()["error"]["message"]
    assert calls.waited_s is None


@pytest.mark.parametrize("part", ["", "/result", "/log"])
async def test_an_unknown_call_is_404_and_an_old_one_410(
    client: httpx.AsyncClient, calls: FakeCalls, part: str
) -> None:
    response = await client.get(f"/v1/calls/{ids.new_id()}{part}")
    assert response.status_code == 404
    assert response.json() == {"error": {"message": "Call not found", "code": "call_not_found"}}
    calls.failure = CallExpiredError("The call's record was deleted after 7 days")
    response = await client.get(f"/v1/calls/{CALL_ID}{part}")
    assert response.status_code == 410
    assert response.headers["faas-error"] == "call_expired"


async def test_a_database_that_is_away_is_503_and_says_when_to_retry(
    client: httpx.AsyncClient, calls: FakeCalls
) -> None:
    calls.failure = StoreUnavailableError("The database does not answer")
    response = await client.get(f"/v1/calls/{CALL_ID}")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "5"
    assert response.headers["faas-error"] == "store_unavailable"


# --- its result


async def test_the_result_is_what_a_waiting_caller_would_have_got(client: httpx.AsyncClient, calls: FakeCalls) -> None:
    calls.results[CALL_ID] = CallResult(
        status_code=418,
        headers=((b"Content-Type", b"image/x"), (b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"b=2")),
        body=b"\x00\xff",
    )
    response = await client.get(f"/v1/calls/{CALL_ID}/result")
    assert response.status_code == 418
    assert response.content == b"\x00\xff"
    assert response.headers["content-type"] == "image/x"
    assert response.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert response.headers.get_list("content-length") == ["2"]
    assert response.headers["x-call-id"] == CALL_ID
    assert "faas-error" not in response.headers


async def test_a_stored_content_length_is_not_sent_twice(client: httpx.AsyncClient, calls: FakeCalls) -> None:
    headers = ((b"content-length", b"99"), (b"X-Call-Id", CALL_ID.encode()))
    calls.results[CALL_ID] = CallResult(status_code=200, headers=headers, body=b"cut", is_truncated=True)
    response = await client.get(f"/v1/calls/{CALL_ID}/result")
    assert response.headers.get_list("content-length") == ["3"]
    assert response.headers.get_list("x-call-id") == [CALL_ID]
    assert response.headers["x-result-truncated"] == "true"


async def test_a_result_without_body_keeps_its_status(client: httpx.AsyncClient, calls: FakeCalls) -> None:
    calls.results[CALL_ID] = CallResult(status_code=204, headers=(), body=b"")
    response = await client.get(f"/v1/calls/{CALL_ID}/result")
    assert (response.status_code, response.content) == (204, b"")
    assert "content-length" not in response.headers


async def test_a_failed_calls_result_is_its_error(client: httpx.AsyncClient, calls: FakeCalls) -> None:
    headers = ((b"content-type", b"application/json; charset=utf-8"), (b"faas-error", b"timeout"))
    calls.results[CALL_ID] = CallResult(status_code=504, headers=headers, body=b'{"error":{}}\n')
    response = await client.get(f"/v1/calls/{CALL_ID}/result")
    assert response.status_code == 504
    assert response.headers["faas-error"] == "timeout"


async def test_an_unfinished_calls_result_is_202_with_retry_after(client: httpx.AsyncClient) -> None:
    response = await client.get(f"/v1/calls/{CALL_ID}/result")
    assert response.status_code == 202
    assert response.headers["retry-after"] == "1"
    assert response.headers["faas-error"] == "call_not_finished"


# --- its log


async def test_the_log_is_plain_text_as_it_came(client: httpx.AsyncClient, calls: FakeCalls) -> None:
    calls.logs[CALL_ID] = CallLog(data=b"one\r\n\xfftwo\n")
    response = await client.get(f"/v1/calls/{CALL_ID}/log")
    assert response.status_code == 200
    assert response.content == b"one\r\n\xfftwo\n"
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert "x-log-truncated" not in response.headers


async def test_a_log_that_was_cut_says_so(client: httpx.AsyncClient, calls: FakeCalls) -> None:
    calls.logs[CALL_ID] = CallLog(data=b"...", is_truncated=True)
    assert (await client.get(f"/v1/calls/{CALL_ID}/log")).headers["x-log-truncated"] == "true"


# --- its end


async def test_a_call_is_cancelled(client: httpx.AsyncClient) -> None:
    response = await client.delete(f"/v1/calls/{CALL_ID}")
    assert response.status_code == 200
    assert response.json()["message"] == "Call cancelled"
    assert response.json()["call"]["status"] == "cancelled"
    assert response.json()["call"]["reason"] == "client_request"


async def test_cancelling_an_ended_call_leaves_it_as_it_is(client: httpx.AsyncClient, calls: FakeCalls) -> None:
    calls.calls[CALL_ID] = make_call(CALL_ID, status=CallStatus.SUCCESS)
    response = await client.delete(f"/v1/calls/{CALL_ID}")
    assert response.json()["message"] == "Call has already ended"
    assert response.json()["call"]["status"] == "success"


# --- all calls of an app


@pytest.mark.usefixtures("_demo")
async def test_an_apps_calls_are_listed_a_page_at_a_time(client: httpx.AsyncClient, calls: FakeCalls) -> None:
    body = (await client.get("/v1/apps/demo/calls")).json()
    assert body["message"] == "Successfully listed calls"
    assert [call["id"] for call in body["calls"]] == [CALL_ID]
    assert body["next_cursor"] == "next"
    assert calls.listed == {
        "app_name": "demo",
        "cursor": None,
        "limit": 30,
        "path": None,
        "since": None,
        "status": None,
        "until": None,
    }


@pytest.mark.usefixtures("_demo")
async def test_the_last_page_has_no_cursor(client: httpx.AsyncClient, calls: FakeCalls) -> None:
    calls.calls.clear()
    body = (await client.get("/v1/apps/demo/calls")).json()
    assert body == {"message": "Successfully listed calls", "calls": [], "next_cursor": None}


@pytest.mark.usefixtures("_demo")
async def test_a_list_can_be_narrowed(client: httpx.AsyncClient, calls: FakeCalls) -> None:
    response = await client.get(
        "/v1/apps/demo/calls",
        params={
            "status": "error",
            "path": "/hello/",
            "since": "2026-01-01T00:00:00Z",
            "until": "2026-01-02T02:00:00.5+02:00",
            "cursor": "abc",
            "per_page": "100",
        },
    )
    assert response.status_code == 200
    assert calls.listed == {
        "app_name": "demo",
        "status": CallStatus.ERROR,
        "path": "/hello",
        "since": datetime(2026, 1, 1, tzinfo=UTC),
        "until": datetime(2026, 1, 2, 0, 0, 0, 500000, UTC),
        "cursor": "abc",
        "limit": 100,
    }


@pytest.mark.usefixtures("_demo")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", "done"),
        ("since", "yesterday"),
        ("since", "2026-01-01T00:00:00"),
        ("until", "2026-13-01T00:00:00Z"),
        ("until", "1700000000"),
        ("per_page", "0"),
        ("per_page", "101"),
        ("per_page", "many"),
        ("cursor", "garbage"),
    ],
)
async def test_a_bad_filter_is_400_and_is_named(client: httpx.AsyncClient, name: str, value: str) -> None:
    response = await client.get("/v1/apps/demo/calls", params={name: value})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_request"
    assert name in response.json()["error"]["message"]


async def test_the_calls_of_an_unknown_app_are_404(client: httpx.AsyncClient) -> None:
    response = await client.get("/v1/apps/nobody/calls")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "app_not_found"


# --- many calls


@pytest.mark.usefixtures("_demo")
async def test_calls_are_cancelled_by_filter_a_bounded_number_at_a_time(
    client: httpx.AsyncClient, calls: FakeCalls
) -> None:
    query = "status=queued&path=hello/&since=2026-01-01T00:00:00Z&limit=5&cursor=c"
    response = await client.post(f"/v1/apps/demo/calls/cancel?{query}")
    assert response.status_code == 200
    assert response.json() == {"message": "Calls cancelled", "count": 2, "skipped": 1, "next_cursor": "next"}
    meant = CallFilter(
        app_name="demo", statuses=(CallStatus.QUEUED,), path="/hello", since=datetime(2026, 1, 1, tzinfo=UTC)
    )
    assert calls.bulk_asked == ("cancel", meant, 5, "c")


@pytest.mark.usefixtures("_demo")
@pytest.mark.parametrize("wrong", ["status=success", "status=lost", "limit=0", "limit=1001", "since=yesterday"])
async def test_a_cancellation_that_means_nothing_is_400(
    client: httpx.AsyncClient, calls: FakeCalls, wrong: str
) -> None:
    assert (await client.post(f"/v1/apps/demo/calls/cancel?{wrong}")).status_code == 400
    assert calls.bulk_asked is None


async def test_calls_of_an_app_that_is_not_there_are_not_cancelled(client: httpx.AsyncClient) -> None:
    assert (await client.post("/v1/apps/gone/calls/cancel")).status_code == 404


async def test_the_log_of_one_attempt_can_be_asked_for(client: httpx.AsyncClient, calls: FakeCalls) -> None:
    assert (await client.get(f"/v1/calls/{CALL_ID}/log?attempt=2")).status_code == 200
    assert calls.attempt_asked == 2
    assert (await client.get(f"/v1/calls/{CALL_ID}/log?attempt=0")).status_code == 400
