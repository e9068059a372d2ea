"""Running functions as IronFunctions does, row by row; `docs/compatibility.md` names these tests."""

from __future__ import annotations

import asyncio
import sqlite3
import time
import uuid
from typing import TYPE_CHECKING

import httpx
import jwt
import pytest

from tests.e2e.answers import assert_error, is_warm
from tests.support.node import REQUEST_TIMEOUT_S, App, NodeProcess
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    import docker

    from tests.e2e.wire import Wire

ASYNC = {"Prefer": "respond-async"}
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"]
KEY = "a-key-of-the-route-that-is-long-enough"


async def call_ended(client: httpx.AsyncClient, accepted: httpx.Response) -> httpx.Response:
    """The result of an async call, after its end."""
    assert accepted.status_code == 202, accepted.text
    call_id = accepted.json()["call_id"]
    call = (await client.get(f"/v1/calls/{call_id}", params={"wait": 60})).json()["call"]
    assert call["completed_at"] is not None
    return await client.get(f"/v1/calls/{call_id}/result")


def variables(text: str) -> dict[str, str]:
    """What `env` printed."""
    return dict(line.split("=", 1) for line in text.splitlines())


# --- 7, 9, 41, 42, 43


async def test_any_method_runs_the_function(client: httpx.AsyncClient, echo: str) -> None:
    answers = {method: await client.request(method, echo, content=method.encode()) for method in METHODS}

    assert {method: answer.text for method, answer in answers.items()} == {method: method for method in METHODS}
    assert (await client.head(echo)).status_code == 200


async def test_the_root_route_answers_with_and_without_its_slash(app: App, client: httpx.AsyncClient) -> None:
    app.deploy("/", "echo")

    for path in (f"/r/{app.name}", f"/r/{app.name}/"):
        answer = await client.post(path, content=b"root", follow_redirects=False)
        assert (answer.status_code, answer.content) == (200, b"root")


async def test_every_call_has_an_id_of_its_own(client: httpx.AsyncClient, echo: str, cat: str) -> None:
    answers = await asyncio.gather(*(client.post(url) for url in [echo] * 20 + [cat] * 2))
    accepted = await client.post(echo, headers=ASYNC)

    ids = [answer.headers["x-call-id"] for answer in [*answers, accepted]]
    assert len(set(ids)) == len(ids)
    assert {uuid.UUID(one).version for one in ids} == {7}
    assert ids[-1] == accepted.json()["call_id"]


async def test_app_then_route_then_token_are_checked(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/guarded", "cat", jwt_key=KEY)

    unknown_app = assert_error(await client.post("/r/nobody/guarded"), 404, "app_not_found")
    unknown_route = assert_error(await client.post(f"/r/{app.name}/other"), 404, "route_not_found")
    assert_error(await client.post(url), 401, "unauthorized")

    assert unknown_app["error"]["message"] == "App not found"
    assert unknown_route["error"]["message"] == "Route not found on that application"


async def test_the_path_of_a_call_is_cleaned(app: App, wire: Wire) -> None:
    app.deploy("/a/b", "echo")

    for path in ("/a/b", "/a/b/", "//a//b", "/a/./b", "/x/../a/b", "/../../a/b", "/a%2Fb", "/%61/b?x=/../"):
        await wire.request(f"POST /r/{app.name}{path}", body=path.encode())
        answer = await wire.answer()
        assert (answer.status, answer.body) == (200, path.encode())
    await wire.request(f"POST /r/{app.name}/../shared/a/b")
    assert (await wire.answer()).status == 404


async def test_a_call_without_a_valid_token_is_401(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/guarded", "echo", jwt_key=KEY)
    now = int(time.time())
    good = jwt.encode({"exp": now + 600}, KEY, algorithm="HS256")
    late = jwt.encode({"exp": now - 600}, KEY, algorithm="HS256")
    foreign = jwt.encode({"exp": now + 600}, KEY[::-1], algorithm="HS256")

    missing = await client.post(url)
    assert assert_error(missing, 401, "unauthorized")["error"]["message"] == "no token present in request"
    assert missing.headers["www-authenticate"] == 'Bearer realm=""'
    for token in (late, foreign, "nonsense", "a.b.c"):
        for headers in ({}, ASYNC):
            answer = await client.post(url, headers={"Authorization": f"Bearer {token}", **headers})
            assert_error(answer, 401, "unauthorized")
    answer = await client.post(url, content=b"let in", headers={"Authorization": f"Bearer {good}"})
    assert (answer.status_code, answer.content) == (200, b"let in")


# --- 46 to 49: what the function is told


async def test_the_body_of_any_method_reaches_the_function(
    client: httpx.AsyncClient, cat: str, stdio_echo: str, echo: str
) -> None:
    async def body_of(url: str, method: str) -> str:
        return (await client.request(method, url, content=f"{method} body".encode())).text

    for url, methods in ((cat, ["GET", "PUT"]), (stdio_echo, METHODS), (echo, METHODS)):
        bodies = await asyncio.gather(*(body_of(url, method) for method in methods))
        assert bodies == [f"{method} body" for method in methods]


async def test_a_get_gives_its_payload_parameter_as_input(client: httpx.AsyncClient, cat: str, stdio_echo: str) -> None:
    for url in (cat, stdio_echo):
        assert (await client.get(url, params={"payload": "ä & b", "x": "1"})).content == "ä & b".encode()
        assert (await client.get(f"{url}?payload=")).content == b""
    assert (await client.post(f"{stdio_echo}?payload=no")).content == b""
    assert (await client.request("GET", f"{stdio_echo}?payload=no", content=b"body wins")).content == b"body wins"


async def test_put_and_delete_work_on_hot_and_async_routes(
    client: httpx.AsyncClient, stdio_echo: str, cat: str
) -> None:
    for method in ("PUT", "DELETE"):
        assert (await client.request(method, stdio_echo, content=b"hot")).content == b"hot"
        assert (await client.request(method, stdio_echo)).content == b""
        for url in (stdio_echo, cat):
            accepted = await client.request(method, url, content=b"later", headers=ASYNC)
            assert (await call_ended(client, accepted)).content == b"later"


async def test_a_cold_call_finds_ironfunctions_environment(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/env", "shell", config={"SCRIPT": "env", "db-url": "x=y z"})

    headers = [("X-One", "1"), ("X-Two", "a"), ("X-Two", "b"), ("Accept", "text/plain"), ("METHOD", "shadow")]
    env = variables((await client.post(url, headers=headers)).text)

    assert (env["METHOD"], env["ROUTE"]) == ("POST", "/env")
    assert env["DB_URL"] == "x=y z"
    assert (env["HEADER_X_ONE"], env["HEADER_X_TWO"], env["HEADER_ACCEPT"]) == ("1", "a b", "text/plain")
    assert env["HEADER_METHOD"] == "shadow"


async def test_route_config_is_over_app_config(node: NodeProcess, client: httpx.AsyncClient) -> None:
    app = App(node, config={"BOTH": "app", "ONLY_APP": "app"})
    try:
        url = app.deploy("/env", "shell", config={"SCRIPT": "env", "BOTH": "route", "METHOD": "configured"})
        env = variables((await client.post(url)).text)
    finally:
        app.close()

    assert (env["BOTH"], env["ONLY_APP"], env["METHOD"]) == ("route", "app", "configured")


async def test_the_request_url_is_a_full_url(app: App, client: httpx.AsyncClient, node: NodeProcess) -> None:
    url = app.deploy("/env", "shell", config={"SCRIPT": "echo $REQUEST_URL"})

    text = (await client.post(f"{url}?a=1&b=%20", headers={"Host": "functions.example:8080"})).text

    assert text == f"http://functions.example:8080{url}?a=1&b=%20\n"


async def test_the_call_id_is_in_the_environment(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/env", "shell", config={"SCRIPT": "printf $TASK_ID"})

    answer = await client.post(url)

    assert answer.text == answer.headers["x-call-id"]


# --- 50 to 55: what the caller is told


async def test_standard_output_is_the_answer_byte_for_byte(client: httpx.AsyncClient, cat: str) -> None:
    for body, content_type in (
        (b"text\n", "text/plain; charset=utf-8"),
        ("grün".encode(), "text/plain; charset=utf-8"),
        (bytes(range(256)), "application/octet-stream"),
    ):
        answer = await client.post(cat, content=body)
        assert (answer.status_code, answer.content) == (200, body)
        assert answer.headers["content-type"] == content_type


async def test_a_hot_functions_status_and_headers_reach_the_caller(
    app: App, misfit: str, client: httpx.AsyncClient
) -> None:
    stdio = app.deploy("/stdio", "stdio-misfit", config={"MODE": "status"})

    for answer in (await client.post(stdio), await client.post(misfit, headers={"X-Mode": "http_status"})):
        assert (answer.status_code, answer.content, answer.headers["x-own"]) == (404, b"own\n", "shown")
        assert "faas-error" not in answer.headers


async def test_a_routes_headers_are_on_its_answers(app: App, client: httpx.AsyncClient) -> None:
    headers = {"X-Route": ["first", "second"], "Content-Type": ["text/x-own"]}
    for path, image in (("/cold", "cat"), ("/hot", "echo")):
        answer = await client.post(app.deploy(path, image, headers=headers), content=b"x")
        assert answer.headers.get_list("x-route") == ["first"]
        assert answer.headers.get_list("content-type") == ["text/x-own"]


async def test_a_routes_headers_are_on_the_errors_of_calls_that_ran(app: App, client: httpx.AsyncClient) -> None:
    headers = {"X-Route": ["yes"]}
    exits = app.deploy("/exits", "shell", headers=headers, config={"SCRIPT": "exit 1"})
    late = app.deploy("/late", "shell", headers=headers, timeout=1, config={"SCRIPT": "sleep 20"})
    unready = app.deploy("/unready", "misfit", headers=headers, config={"MODE": "exit_before_ready"})

    answers = await asyncio.gather(*(client.post(url) for url in (exits, late, unready)))

    assert [answer.status_code for answer in answers] == [500, 504, 502]
    assert [answer.headers.get("x-route") for answer in answers] == ["yes", "yes", None]
    assert all("json" in answer.headers["content-type"] for answer in answers)


async def test_a_timeout_is_504_on_cold_and_hot_routes(app: App, client: httpx.AsyncClient) -> None:
    urls = [
        app.deploy("/cold", "shell", timeout=1, config={"SCRIPT": "sleep 20"}),
        app.deploy("/stdio", "stdio-misfit", timeout=1, config={"MODE": "never"}),
        app.deploy("/stream", "echo", timeout=1),
    ]

    for answer in await asyncio.gather(*(client.post(url, headers={"X-Sleep-Ms": "20000"}) for url in urls)):
        assert assert_error(answer, 504, "timeout")["error"]["message"] == "Timed out"


async def test_a_non_zero_exit_is_500_with_its_code(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/exits", "shell", config={"SCRIPT": "exit 42"})

    assert assert_error(await client.post(url), 500, "bad_exit")["error"]["message"] == "exit code 42"


async def test_out_of_memory_is_named(app: App, client: httpx.AsyncClient) -> None:
    answer = await client.post(app.deploy("/hog", "hog", memory=16))

    message = assert_error(answer, 500, "oom")["error"]["message"]
    assert message.startswith("out of memory error")
    assert "16 MiB" in message


async def test_no_capacity_is_503_with_retry_after(small_app: App, small_client: httpx.AsyncClient) -> None:
    url = small_app.deploy("/big", "echo", memory=160)
    running = asyncio.ensure_future(small_client.post(url, headers={"X-Sleep-Ms": "4000"}))
    await wait_until(lambda: small_app.node.stats()["Running"] == 1, timeout_s=30)

    answer = await small_client.post(url)

    assert_error(answer, 503, "no_capacity")
    assert int(answer.headers["retry-after"]) > 0
    assert (await running).status_code == 200


async def test_an_image_that_is_gone_since_is_named(
    app: App, client: httpx.AsyncClient, docker_client: docker.APIClient
) -> None:
    name = f"127.0.0.1:9/faas-e2e-{uuid.uuid4().hex[:8]}"
    container = docker_client.create_container("faas/test-cat:local")
    docker_client.commit(container["Id"], name, "local", changes=f"LABEL only={name}")
    docker_client.remove_container(container["Id"])
    try:
        url = app.deploy("/gone", f"{name}:local")
    finally:
        docker_client.remove_image(f"{name}:local")

    message = assert_error(await client.post(url), 500, "image_not_found")["error"]["message"]
    assert message.startswith(f"Failed to pull image '{name}:local': ")


# --- 56 to 63


async def test_an_async_call_is_202_with_its_id(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/later", "cat", type="async")

    accepted = await client.post(url, content=b"\0\xff")

    assert accepted.json() == {"call_id": accepted.headers["x-call-id"]}
    assert (await call_ended(client, accepted)).content == b"\0\xff"


async def test_an_async_call_that_can_not_be_stored_is_503(start_node: Callable[..., NodeProcess]) -> None:
    node = start_node()
    app = App(node)
    url = app.deploy("/later", "cat", type="async")
    async with httpx.AsyncClient(base_url=node.url, timeout=REQUEST_TIMEOUT_S) as client:
        # Another process holds the database's only write lock.
        with sqlite3.connect(node.data_dir / "faas.db", isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            answer = await client.post(url, content=b"x")
            assert_error(answer, 503, "store_unavailable")
            assert int(answer.headers["retry-after"]) > 0
            other.execute("ROLLBACK")
        other.close()
        assert (await client.get(f"/v1/calls/{answer.headers['x-call-id']}")).status_code == 404
        assert (await call_ended(client, await client.post(url, content=b"now"))).content == b"now"


async def test_standard_error_is_the_calls_log_and_standard_output_its_result(
    app: App, client: httpx.AsyncClient
) -> None:
    url = app.deploy("/both", "shell", config={"SCRIPT": "echo out; echo err >&2"})

    for headers in ({}, ASYNC):
        answer = await client.post(url, headers=headers)
        result = await call_ended(client, answer) if headers else answer
        assert result.content == b"out\n"
        assert (await client.get(f"/v1/calls/{answer.headers['x-call-id']}/log")).content == b"err\n"


async def test_a_hot_stdio_container_serves_many_calls(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/hot", "stdio-echo", max_concurrency=1)

    answers = [await client.post(url, content=f"{number}".encode() * 1000) for number in range(20)]

    assert [answer.content for answer in answers] == [f"{number}".encode() * 1000 for number in range(20)]
    assert [is_warm(answer) for answer in answers] == [False] + [True] * 19
    assert len({app.node.container_of(answer.headers["x-call-id"]) for answer in answers}) == 1


@pytest.mark.parametrize("path", ["/a*b", "/*"])
async def test_a_path_with_a_star_can_be_called(path: str, app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy(path, "cat")

    assert (await client.post(url, content=b"star")).content == b"star"
    assert_error(await client.post(f"/r/{app.name}/axb"), 404, "route_not_found")
