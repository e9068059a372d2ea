"""Async calls: accepted, looked at, cancelled; and nothing about them differs from sync ones but who waits."""

from __future__ import annotations

import asyncio
import json
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.answers import assert_error
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import httpx

    from tests.support.node import App

ASYNC = {"Prefer": "respond-async"}
END_TIMEOUT_S = 60.0
EVERY_BYTE = bytes(range(256))


async def submit(client: httpx.AsyncClient, url: str, **request: Any) -> str:
    """Have a call accepted for later; returns its id."""
    headers = {**ASYNC, **request.pop("headers", {})}
    answer = await client.post(url, headers=headers, **request)
    assert answer.status_code == 202, answer.text
    call_id: str = answer.json()["call_id"]
    assert answer.headers["x-call-id"] == call_id
    return call_id


async def end_of(client: httpx.AsyncClient, call_id: str) -> dict[str, Any]:
    """A call's record after its end."""
    answer = await client.get(f"/v1/calls/{call_id}", params={"wait": END_TIMEOUT_S})
    assert answer.status_code == 200, answer.text
    call: dict[str, Any] = answer.json()["call"]
    assert call["completed_at"] is not None, call
    return call


async def test_an_async_route_and_a_preference_are_both_202(app: App, client: httpx.AsyncClient) -> None:
    by_type = app.deploy("/by-type", "cat", type="async")
    by_preference = app.deploy("/by-preference", "cat")

    for url, headers in ((by_type, {}), (by_preference, ASYNC), (by_preference, {"Prefer": "foo, Respond-Async"})):
        answer = await client.post(url, content=b"later", headers=headers)
        assert answer.status_code == 202
        assert answer.json() == {"call_id": answer.headers["x-call-id"]}
        assert uuid.UUID(answer.json()["call_id"]).version == 7
        assert "faas-error" not in answer.headers
        call = await end_of(client, answer.json()["call_id"])
        assert (call["status"], call["type"], call["app_name"]) == ("success", "async", app.name)


async def test_the_record_can_be_read_right_after_the_202(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/slow", "shell", config={"SCRIPT": "sleep 1; cat"})
    for _ in range(5):
        call_id = await submit(client, url, content=b"x")
        call = (await client.get(f"/v1/calls/{call_id}")).json()["call"]
        assert call["id"] == call_id
        assert call["status"] in ("queued", "running")
        assert call["result"] is None
        unfinished = await client.get(f"/v1/calls/{call_id}/result")
        assert unfinished.status_code == 202
        assert int(unfinished.headers["retry-after"]) > 0


async def test_waiting_for_the_end_returns_with_it(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/slow", "echo")
    call_id = await submit(client, url, content=b"x", headers={"X-Sleep-Ms": "1500"})

    early = (await client.get(f"/v1/calls/{call_id}", params={"wait": 0.1})).json()["call"]
    began = asyncio.get_running_loop().time()
    late = await end_of(client, call_id)

    assert early["status"] in ("queued", "running")
    assert late["status"] == "success"
    assert asyncio.get_running_loop().time() - began < 30


@pytest.mark.parametrize("image", ["cat", "stdio-echo", "echo"])
async def test_the_result_is_what_the_sync_caller_gets(image: str, app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/f", image, headers={"X-Route": ["yes"]})
    request = {"content": EVERY_BYTE * 100, "headers": {"Content-Type": "text/x-odd", "X-Status": "418"}}
    sync = await client.post(url, **request)

    call_id = await submit(client, url, **request)
    call = await end_of(client, call_id)
    result = await client.get(f"/v1/calls/{call_id}/result")

    assert result.status_code == sync.status_code
    assert result.content == sync.content
    assert _lasting(result) == _lasting(sync)
    assert result.headers["x-call-id"] == call_id
    assert call["result"] == {
        "status_code": sync.status_code,
        "content_type": sync.headers["content-type"],
        "size_bytes": len(sync.content),
    }


async def _equals(look: Callable[[], Awaitable[object]], expected: object) -> bool:
    return await look() == expected


def _lasting(answer: httpx.Response) -> list[tuple[str, str]]:
    """The headers that do not differ from call to call."""
    volatile = ("date", "x-call-id", "server-timing")
    return sorted((name.lower(), value) for name, value in answer.headers.multi_items() if name not in volatile)


async def test_repeated_headers_of_a_result_are_kept(misfit: str, client: httpx.AsyncClient) -> None:
    call_id = await submit(client, misfit, headers={"X-Mode": "http_status"})
    call = await end_of(client, call_id)
    result = await client.get(f"/v1/calls/{call_id}/result")

    assert call["status"] == "success"
    assert (result.status_code, result.content) == (404, b"own\n")
    assert result.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert "faas-error" not in result.headers


async def test_a_hot_function_gets_the_same_request_sync_and_async(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/same", "misfit")
    request = {
        "headers": {"X-Mode": "headers", "X-Two": "a", "Accept": "*/*"},
        "content": b"body",
        "params": {"q": "a b"},
    }

    sync = (await client.put(url, **request)).json()
    app.change("/same", type="async")
    accepted = await client.put(url, **request)
    await end_of(client, accepted.json()["call_id"])
    later = (await client.get(f"/v1/calls/{accepted.json()['call_id']}/result")).json()

    def without_ids(seen: dict[str, Any]) -> dict[str, Any]:
        headers = [[name, value] for name, value in seen["headers"] if name not in ("Fn-Call-Id", "Fn-Deadline")]
        return {**seen, "headers": headers}

    assert without_ids(later) == without_ids(sync)
    assert len(later["headers"]) == len(sync["headers"])


async def test_a_cold_function_gets_the_same_request_sync_and_async(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/same", "shell", config={"SCRIPT": "env; cat"})
    request = {"headers": {"X-Two": "a"}, "content": b"body=1\n", "params": {"q": "a b"}}

    sync = await client.put(url, **request)
    app.change("/same", type="async")
    accepted = await client.put(url, **request)
    await end_of(client, accepted.json()["call_id"])
    later = await client.get(f"/v1/calls/{accepted.json()['call_id']}/result")

    def without_ids(text: str) -> list[str]:
        return sorted(line for line in text.splitlines() if not line.startswith(("TASK_ID=", "HOSTNAME=")))

    assert without_ids(later.text) == without_ids(sync.text)
    assert "body=1" in later.text
    assert f"TASK_ID={accepted.json()['call_id']}" in later.text


async def test_the_log_of_a_cold_call_is_its_own(app: App, client: httpx.AsyncClient) -> None:
    cold = app.deploy("/cold", "shell", config={"SCRIPT": "echo $HEADER_X_NUMBER >&2; echo out"})

    ids = [await submit(client, cold, headers={"X-Number": str(number)}) for number in range(3)]
    for number, call_id in enumerate(ids):
        await end_of(client, call_id)
        log = await client.get(f"/v1/calls/{call_id}/log")
        assert log.content == f"{number}\n".encode()
        assert (await client.get(f"/v1/calls/{call_id}/result")).content == b"out\n"


@pytest.mark.parametrize("preference", [{}, ASYNC])
async def test_what_a_hot_function_printed_before_its_answer_is_in_the_calls_log(
    preference: dict[str, str], app: App, client: httpx.AsyncClient
) -> None:
    """The engine hands output over later than the socket hands over the answer."""
    url = app.deploy("/hot", "misfit", max_concurrency=1)
    expected = {"stdout line 0", "stdout line 1", "stderr line 0", "stderr line 1"}
    ids = []
    for _ in range(3):
        answer = await client.post(url, headers={"X-Mode": "print_stdout", "X-Lines": "2", **preference})
        ids.append(answer.headers["x-call-id"])
        await end_of(client, ids[-1])
    for call_id in ids:

        async def log(call_id: str = call_id) -> set[str]:
            return set((await client.get(f"/v1/calls/{call_id}/log")).text.splitlines())

        with suppress(AssertionError):
            await wait_until(lambda: _equals(log, expected), timeout_s=5)
        assert await log() == expected


async def test_a_running_calls_log_can_be_read(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/slow", "shell", config={"SCRIPT": "echo begun >&2; sleep 3; echo done >&2"})
    call_id = await submit(client, url)

    async def log() -> str:
        return (await client.get(f"/v1/calls/{call_id}/log")).text

    async def has_begun() -> bool:
        return await log() == "begun\n"

    await wait_until(has_begun, timeout_s=END_TIMEOUT_S)
    await end_of(client, call_id)
    assert await log() == "begun\ndone\n"


async def test_calls_are_listed_newest_first_page_by_page(app: App, client: httpx.AsyncClient) -> None:
    good = app.deploy("/good", "echo")
    bad = app.deploy("/bad", "misfit")
    ids = [await submit(client, good) for _ in range(5)]
    ids.append(await submit(client, bad, headers={"X-Mode": "garbage"}))
    for call_id in ids:
        await end_of(client, call_id)

    pages: list[list[str]] = []
    cursor = ""
    while True:
        params = {"per_page": "4", **({"cursor": cursor} if cursor else {})}
        page = (await client.get(f"/v1/apps/{app.name}/calls", params=params)).json()
        pages.append([call["id"] for call in page["calls"]])
        cursor = page["next_cursor"]
        if not cursor:
            break

    async def listed(**params: str) -> list[str]:
        page = (await client.get(f"/v1/apps/{app.name}/calls", params=params)).json()
        return [call["id"] for call in page["calls"]]

    assert [len(page) for page in pages] == [4, 2]
    assert pages[0] + pages[1] == ids[::-1]
    assert await listed(status="error") == [ids[-1]]
    assert await listed(path="/good") == ids[4::-1]
    assert await listed(path="/bad", status="success") == []


async def test_a_call_that_waits_can_be_cancelled_and_never_runs(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/one", "shell", max_concurrency=1, config={"SCRIPT": "sleep 2; cat"})
    first = await submit(client, url, content=b"first")
    second = await submit(client, url, content=b"second")

    answer = await client.delete(f"/v1/calls/{second}")

    assert answer.status_code == 200
    assert answer.json()["message"] == "Call cancelled"
    call = answer.json()["call"]
    assert (call["status"], call["reason"], call["result"]) == ("cancelled", "client_request", None) or call["result"]
    assert not any(attempt["container_id"] for attempt in call["attempts"])
    assert (await end_of(client, first))["status"] == "success"
    assert (await end_of(client, second))["status"] == "cancelled"
    again = await client.delete(f"/v1/calls/{first}")
    assert again.json()["message"] == "Call has already ended"
    assert again.json()["call"]["status"] == "success"


@pytest.mark.parametrize(("image", "script"), [("shell", "sleep 30"), ("misfit", "")])
async def test_cancelling_a_running_call_kills_its_container_first(
    image: str, script: str, app: App, client: httpx.AsyncClient
) -> None:
    url = app.deploy("/long", image, config={"SCRIPT": script, "MODE": "ignore_sigterm"})
    call_id = await submit(client, url, headers={"X-Mode": "slow", "X-Seconds": "30"})
    await wait_until(lambda: app.running("/long") and app.node.stats()["Running"], timeout_s=END_TIMEOUT_S)
    [container_id] = app.running("/long")

    answer = await client.delete(f"/v1/calls/{call_id}")

    assert not app.node.is_alive(container_id)
    assert answer.json()["call"]["status"] == "cancelled"
    assert answer.json()["call"]["reason"] == "client_request"
    result = await client.get(f"/v1/calls/{call_id}/result")
    assert (result.status_code, result.headers["faas-error"]) == (409, "cancelled")


FAILURES: list[tuple[str, dict[str, Any], dict[str, str], int, str, str]] = [
    # image, route, headers of the call, status, code, reason
    ("shell", {"config": {"SCRIPT": "echo why >&2; exit 3"}}, {}, 500, "bad_exit", "bad_exit"),
    ("hog", {"memory": 16}, {}, 500, "oom", "oom"),
    ("shell", {"config": {"SCRIPT": "sleep 20"}, "timeout": 1}, {}, 504, "timeout", "timeout"),
    ("misfit", {"timeout": 1}, {"X-Mode": "never"}, 504, "timeout", "timeout"),
    ("misfit", {}, {"X-Mode": "garbage"}, 502, "protocol", "protocol"),
    ("misfit", {}, {"X-Mode": "short_body"}, 502, "protocol", "protocol"),
    ("misfit", {}, {"X-Mode": "fn_502"}, 502, "function_failed", "bad_exit"),
    ("misfit", {}, {"X-Mode": "huge_headers"}, 502, "response_too_large", "protocol"),
    ("misfit", {"config": {"MODE": "exit_before_ready"}}, {}, 502, "start_failed", "start_failed"),
]


async def test_each_failure_is_a_terminal_state_with_its_reason(app: App, client: httpx.AsyncClient) -> None:
    async def fail(number: int) -> None:
        image, route, headers, status, code, reason = FAILURES[number]
        url = app.deploy(f"/{number}", image, **route)
        call_id = await submit(client, url, headers=headers)
        call = await end_of(client, call_id)
        assert (call["status"], call["reason"]) == ("error", reason), call
        assert [attempt["number"] for attempt in call["attempts"]] == [1]
        assert call["attempts"][0]["reason"] == reason
        assert call["attempts"][0]["error"] == call["error"] != ""
        result = await client.get(f"/v1/calls/{call_id}/result")
        assert assert_error(result, status, code)["request_id"] == call_id

    await asyncio.gather(*(fail(number) for number in range(len(FAILURES))))


async def test_a_route_deleted_before_its_call_ran_ends_the_call_with_an_error(
    app: App, client: httpx.AsyncClient
) -> None:
    url = app.deploy("/one", "shell", max_concurrency=1, config={"SCRIPT": "sleep 1"})
    ids = [await submit(client, url) for _ in range(2)]
    app.remove("/one")

    calls = [await end_of(client, call_id) for call_id in ids]

    assert {call["status"] for call in calls} <= {"success", "error"}
    assert all(call["reason"] == "client_request" for call in calls if call["status"] == "error")


async def test_a_function_answering_500_is_an_error_with_its_own_result(misfit: str, client: httpx.AsyncClient) -> None:
    call_id = await submit(client, misfit, headers={"X-Mode": "http_status", "X-Status": "503"})
    call = await end_of(client, call_id)
    result = await client.get(f"/v1/calls/{call_id}/result")

    assert call["status"] == "error"
    assert (result.status_code, result.content) == (503, b"own\n")
    assert "faas-error" not in result.headers


async def test_a_log_beyond_its_limit_says_that_it_is_not_all(small_app: App, small_client: httpx.AsyncClient) -> None:
    script = "i=0; while [ $i -lt 2000 ]; do echo line $i >&2; i=$((i+1)); done"
    url = small_app.deploy("/loud", "shell", config={"SCRIPT": script}, memory=32)
    call_id = await submit(small_client, url)
    assert (await end_of(small_client, call_id))["status"] == "success"

    log = await small_client.get(f"/v1/calls/{call_id}/log")

    assert log.headers["x-log-truncated"] == "true"
    assert len(log.content) < 2 * 4096
    assert b"line 0\n" in log.content
    assert b"truncated" in log.content or b"line 1999\n" in log.content


async def test_a_result_beyond_its_limit_is_cut_and_says_so(small_app: App, small_client: httpx.AsyncClient) -> None:
    url = small_app.deploy("/big", "misfit")
    call_id = await submit(small_client, url, headers={"X-Mode": "source", "X-Bytes": "100000"})
    call = await end_of(small_client, call_id)

    result = await small_client.get(f"/v1/calls/{call_id}/result")

    assert call["status"] == "success"
    assert result.headers["x-result-truncated"] == "true"
    assert result.content == bytes(32 * 1024)


async def test_a_payload_over_the_limit_is_413(small_app: App, small_client: httpx.AsyncClient) -> None:
    url = small_app.deploy("/echo", "echo", type="async", memory=32)

    async def pieces() -> Any:
        for _ in range(3):
            yield b"x" * 32_768

    for content in (b"x" * 65_537, pieces()):
        assert_error(await small_client.post(url, content=content), 413, "body_too_large")
    body = b"x" * 65_536
    call_id = (await small_client.post(url, content=body)).json()["call_id"]
    assert (await end_of(small_client, call_id))["status"] == "success"


async def test_ids_that_never_were_are_404_and_old_ones_410(client: httpx.AsyncClient) -> None:
    old = f"01800000-0000-7{uuid.uuid4().hex[:3]}-8000-000000000000"
    for call_id, status, code in (
        ("nonsense", 404, "call_not_found"),
        (str(uuid.uuid4()), 404, "call_not_found"),
        (old, 410, "call_expired"),
    ):
        for method, path in (("GET", ""), ("GET", "/result"), ("GET", "/log"), ("DELETE", "")):
            answer = await client.request(method, f"/v1/calls/{call_id}{path}")
            assert (answer.status_code, answer.headers["faas-error"]) == (status, code), f"{method} {path}"
            assert answer.json()["error"]["code"] == code


async def test_a_sync_calls_record_and_log_are_there_at_once(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/sync", "shell", config={"SCRIPT": "echo logged >&2; cat"})
    answer = await client.post(url, content=b"to the caller")
    call_id = answer.headers["x-call-id"]

    call = (await client.get(f"/v1/calls/{call_id}")).json()["call"]

    assert (call["status"], call["type"], call["reason"]) == ("success", "sync", None)
    assert call["attempts"][0]["is_cold"] is True
    assert call["attempts"][0]["exec_ms"] > 0
    assert (await client.get(f"/v1/calls/{call_id}/log")).content == b"logged\n"
    result = await client.get(f"/v1/calls/{call_id}/result")
    assert (result.status_code, json.loads(result.content)["error"]["code"]) == (404, "result_not_kept")


async def test_a_hundred_async_calls_all_end_with_their_own_answer(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/many", "echo", max_concurrency=3)
    bodies = [f"call {number}".encode() for number in range(100)]
    ids = await asyncio.gather(*(submit(client, url, content=body) for body in bodies))

    async def result(call_id: str) -> bytes:
        await end_of(client, call_id)
        return (await client.get(f"/v1/calls/{call_id}/result")).content

    assert await asyncio.gather(*(result(call_id) for call_id in ids)) == bodies


async def test_a_failed_calls_result_has_the_headers_of_a_sync_callers_answer(
    app: App, client: httpx.AsyncClient
) -> None:
    url = app.deploy("/sh", "shell", config={"SCRIPT": "exit 3"}, headers={"X-Route": ["its own"]})
    sync = await client.post(url)
    call_id = await submit(client, url)
    await end_of(client, call_id)
    result = await client.get(f"/v1/calls/{call_id}/result")
    assert (result.status_code, result.headers["x-route"]) == (sync.status_code, sync.headers["x-route"])
    assert result.headers["faas-error"] == sync.headers["faas-error"] == "bad_exit"


async def test_a_delayed_call_begins_when_it_is_due_and_one_that_expires_never(
    app: App, client: httpx.AsyncClient
) -> None:
    url = app.deploy("/cat", "cat")
    delayed = await submit(client, url, content=b"x", headers={"X-Delay": "1.5", "X-Priority": "2"})
    call = (await client.get(f"/v1/calls/{delayed}")).json()["call"]
    assert (call["status"], call["priority"]) == ("delayed", 2)
    call = await end_of(client, delayed)
    assert call["status"] == "success"
    assert call["started_at"] >= call["not_before"] > call["created_at"]

    busy = app.deploy("/narrow", "echo", max_concurrency=1)
    running = await submit(client, busy, content=b"x", headers={"X-Sleep-Ms": "3000"})
    expiring = await submit(client, busy, content=b"x", headers={"X-Expires": "1"})
    call = await end_of(client, expiring)
    assert (call["status"], call["reason"], call["expires_at"] > call["created_at"]) == ("error", "expired", True)
    assert_error(await client.get(f"/v1/calls/{expiring}/result"), 504, "expired")
    assert (await end_of(client, running))["status"] == "success"


async def test_who_prefers_to_wait_gets_the_result_of_an_async_call(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/echo", "echo")
    answer = await client.post(url, content=b"hello", headers={"Prefer": "respond-async, wait=30"})
    assert (answer.status_code, answer.content) == (200, b"hello")
    assert answer.headers["preference-applied"] == "respond-async, wait=30"
    call = (await client.get(f"/v1/calls/{answer.headers['x-call-id']}")).json()["call"]
    assert (call["type"], call["status"]) == ("async", "success")
    slow = {"Prefer": "respond-async, wait=1", "X-Sleep-Ms": "4000"}
    answer = await client.post(url, content=b"hello", headers=slow)
    assert answer.status_code == 202
    assert (await end_of(client, answer.json()["call_id"]))["status"] == "success"


async def test_equal_requests_with_a_key_run_once(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/echo", "echo")
    headers = {"Idempotency-Key": str(uuid.uuid4()), "X-Sleep-Ms": "300"}
    answers = await asyncio.gather(*(client.post(url, content=b"hello", headers=headers) for _ in range(4)))
    answers.append(await client.post(url, content=b"hello", headers=headers))
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, b"hello")}
    (call_id,) = {answer.headers["x-call-id"] for answer in answers}
    assert [answer.headers.get("idempotent-replayed") for answer in answers].count("true") == 4
    assert_error(await client.post(url, content=b"other", headers=headers), 422, "idempotency_key_reused")
    assert (await client.get(f"/v1/calls/{call_id}/result")).content == b"hello"

    headers = {**ASYNC, "Idempotency-Key": str(uuid.uuid4())}
    ids = {(await client.post(url, content=b"hello", headers=headers)).json()["call_id"] for _ in range(3)}
    assert len(ids) == 1
    assert (await end_of(client, ids.pop()))["status"] == "success"
