"""What goes wrong, each with its own status, code and reason; and the next call works."""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.answers import assert_error, is_warm
from tests.e2e.wire import Wire
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    import docker
    import httpx

    from tests.support.node import App, NodeProcess

GONE_TIMEOUT_S = 30.0


def assert_failed(answer: httpx.Response, app: App, status: int, code: str, reason: str) -> dict[str, Any]:
    """The answer is this error and the call's record says why; returns the record."""
    content = assert_error(answer, status, code)
    record = app.node.record(answer.headers["x-call-id"])
    assert (record["status"], record["reason"]) == ("error", reason)
    assert record["error"] == content["error"]["message"]
    return record


# --- what the client got wrong


async def test_unknown_apps_and_routes_are_404(client: httpx.AsyncClient, shared_app: App, echo: str) -> None:
    for path, code in (("/r/nobody/x", "app_not_found"), (f"/r/{shared_app.name}/x", "route_not_found")):
        assert_error(await client.post(path, content=b"x"), 404, code)
    for path in ("/r/", "/r/%00", "/r//", "/r/%ff%fe/x"):
        assert_error(await client.get(path), 404, "app_not_found")
    assert (await client.post(echo)).status_code == 200


async def test_a_declared_body_over_the_limit_is_413_before_it_is_sent(
    small_app: App, small_client: httpx.AsyncClient
) -> None:
    url = small_app.deploy("/echo", "echo", memory=32)
    async with Wire(small_app.node.url) as wire:
        await wire.request(f"POST {url}", "Content-Length: 262145", "Expect: 100-continue")
        answer = await wire.answer()
        assert (answer.status, answer.header("faas-error")) == (413, "body_too_large")
        assert "262144" in json.loads(answer.body)["error"]["message"]

    at_the_limit = b"x" * 256 * 1024
    assert (await small_client.post(url, content=at_the_limit)).content == at_the_limit


@pytest.mark.parametrize("image", ["echo", "cat"])
async def test_a_chunked_body_over_the_limit_is_413(
    image: str, small_app: App, small_client: httpx.AsyncClient
) -> None:
    url = small_app.deploy("/echo", image, memory=32)
    async with Wire(small_app.node.url) as wire:
        await wire.request(f"POST {url}", "Transfer-Encoding: chunked")
        for _ in range(5):
            await wire.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        answer = await wire.answer()
        assert (answer.status, answer.header("faas-error")) == (413, "body_too_large")
        assert await wire.is_closed()

    assert (await small_client.post(url, content=b"next")).content == b"next"


async def test_a_client_that_goes_on_sending_still_reads_its_413(small_app: App) -> None:
    url = small_app.deploy("/echo", "echo", memory=32)
    async with Wire(small_app.node.url) as wire:
        await wire.request(f"POST {url}", "Content-Length: 4000000")
        sending = asyncio.ensure_future(wire.send(b"x" * 4_000_000))
        answer = await wire.answer()
        sending.cancel()
        assert (answer.status, answer.header("faas-error")) == (413, "body_too_large")


@pytest.mark.parametrize("path", ["/r/shared/echo", "/v1/apps"])
async def test_a_header_block_over_the_limit_is_431(path: str, node: NodeProcess, echo: str) -> None:
    for headers in ([f"X-Big: {'x' * 70_000}"], [f"X-{number}: {'x' * 100}" for number in range(700)]):
        async with Wire(node.url) as wire:
            await wire.request(f"GET {path}", *headers)
            answer = await wire.answer()
            assert (answer.status, answer.header("faas-error")) == (431, "headers_too_large")


async def test_what_is_not_http_is_400(node: NodeProcess, echo: str, client: httpx.AsyncClient) -> None:
    for text in (
        b"this is not HTTP\r\n\r\n",
        b"\0\1\2\3\r\n\r\n",
        b"POST /r/shared/echo HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ):
        async with Wire(node.url) as wire:
            await wire.send(text)
            answer = await wire.answer()
            assert (answer.status, answer.header("faas-error")) == (400, "invalid_request")
    assert (await client.post(echo)).status_code == 200


async def test_conflicting_lengths_are_refused(node: NodeProcess, echo: str) -> None:
    """Request smuggling: two parties could disagree where the request ends."""
    for headers in (["Content-Length: 5", "Transfer-Encoding: chunked"], ["Content-Length: 5", "Content-Length: 6"]):
        async with Wire(node.url) as wire:
            await wire.request(f"POST {echo}", *headers)
            await wire.send(b"0\r\n\r\n")
            assert (await wire.answer()).status == 400


# --- the function fails by itself


async def test_a_non_zero_exit_is_bad_exit(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/sh", "shell", config={"SCRIPT": "echo partial; echo why >&2; exit 7"})

    answer = await client.post(url)

    record = assert_failed(answer, app, 500, "bad_exit", "bad_exit")
    assert answer.json()["error"]["message"] == "exit code 7"
    assert record["attempts"][0]["exit_code"] == 7
    assert (await client.get(f"/v1/calls/{record['id']}/log")).content == b"why\n"
    app.change("/sh", config={"SCRIPT": "cat"})
    assert (await client.post(url, content=b"next")).content == b"next"


BROKEN = [
    # mode, status, code, reason, words of the message
    ("garbage", 502, "protocol", "protocol", "this is not HTTP"),
    ("close_socket", 502, "protocol", "protocol", "closed"),
    ("exit_midcall", 502, "protocol", "protocol", "exit code 3"),
    ("bad_status", 502, "protocol", "protocol", "status 500"),
    ("huge_headers", 502, "response_too_large", "protocol", "header too large"),
    ("oom", 500, "oom", "oom", "64 MiB"),
]


@pytest.mark.parametrize(("mode", "status", "code", "reason", "words"), BROKEN)
async def test_a_container_that_breaks_its_contract_is_named_and_never_serves_again(
    mode: str, status: int, code: str, reason: str, words: str, app: App, client: httpx.AsyncClient
) -> None:
    url = app.deploy("/broken", "misfit", max_concurrency=1)
    await client.post(url)
    [before] = app.running("/broken")

    answer = await client.post(url, headers={"X-Mode": mode})

    record = assert_failed(answer, app, status, code, reason)
    assert words in answer.json()["error"]["message"]
    assert record["attempts"][-1]["container_id"] == before
    assert before not in app.running("/broken")
    assert (await client.post(url)).content == b"ok\n"


async def test_two_broken_answers_cut_the_connection(app: App) -> None:
    """The head has gone out already: only the missing rest can tell the caller."""
    url = app.deploy("/broken", "misfit")
    for mode in ("short_body", "exit_midbody"):
        async with Wire(app.node.url) as wire:
            await wire.request(f"POST {url}", f"X-Mode: {mode}", body=b"x")
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await wire.answer()


@pytest.mark.parametrize(
    ("mode", "words"), [("garbage", "this is not HTTP"), ("stdout_print", "debug: got here"), ("exit", "exit code 3")]
)
async def test_what_a_stdio_function_printed_is_in_the_message(
    mode: str, words: str, app: App, client: httpx.AsyncClient
) -> None:
    url = app.deploy("/broken", "stdio-misfit", config={"MODE": mode})

    answer = await client.post(url, content=b"x")

    assert_failed(answer, app, 502, "protocol", "protocol")
    assert words in answer.json()["error"]["message"]
    app.change("/broken", config={"MODE": "ok"})
    assert (await client.post(url, content=b"next")).content == b"next"


async def test_a_status_that_http_does_not_have_is_the_functions_fault(app: App, client: httpx.AsyncClient) -> None:
    script = r"while read -r l; do [ ${#l} -le 1 ] && printf 'HTTP/1.1 999 Odd\r\nContent-Length: 2\r\n\r\nhi'; done"
    url = app.deploy("/odd", "shell", format="http", config={"SCRIPT": script})

    assert_failed(await client.post(url), app, 502, "protocol", "protocol")
    accepted = await client.post(url, headers={"Prefer": "respond-async"})
    call_id = accepted.headers["x-call-id"]
    assert app.node.record(call_id, wait_s=30)["reason"] == "protocol"
    assert_error(await client.get(f"/v1/calls/{call_id}/result"), 502, "protocol")


@pytest.mark.parametrize(("mode", "code", "status"), [("fn_502", "function_failed", 502), ("fn_504", "timeout", 504)])
async def test_a_failure_the_function_tells_of_itself_keeps_its_container(
    mode: str, code: str, status: int, app: App, client: httpx.AsyncClient
) -> None:
    url = app.deploy("/failing", "misfit")
    await client.post(url)

    answer = await client.post(url, headers={"X-Mode": mode})

    assert_failed(answer, app, status, code, {"timeout": "timeout"}.get(code, "bad_exit"))
    after = await client.post(url)
    assert is_warm(after)
    assert app.node.container_of(after.headers["x-call-id"]) == app.node.container_of(answer.headers["x-call-id"])


async def test_running_out_of_memory_in_a_cold_container_is_named(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/hog", "hog", memory=32)

    answer = await client.post(url)

    record = assert_failed(answer, app, 500, "oom", "oom")
    assert "32 MiB" in record["error"]


async def test_an_exit_code_that_a_signal_left_is_a_bad_exit(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/sh", "shell", config={"SCRIPT": "exit 143"})

    assert_failed(await client.post(url), app, 500, "bad_exit", "bad_exit")


async def test_a_process_that_was_killed_is_no_oom(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/sh", "shell", config={"SCRIPT": "exit 137"})

    assert_failed(await client.post(url), app, 502, "killed", "killed")


# --- it takes too long


async def test_a_timeout_kills_the_container_and_then_answers(app: App, client: httpx.AsyncClient) -> None:
    hot = app.deploy("/hot", "misfit", timeout=1)
    cold = app.deploy("/cold", "shell", timeout=1, config={"SCRIPT": "sleep 3; echo side effect >&2"})
    await client.post(hot)
    [before] = app.running("/hot")
    alive = asyncio.ensure_future(client.post(hot, headers={"X-Mode": "side_effect", "X-Seconds": "3"}))
    answers = {"/cold": await client.post(cold), "/hot": await alive}

    for path, answer in answers.items():
        record = assert_failed(answer, app, 504, "timeout", "timeout")
        assert record["attempts"][-1]["container_id"] not in app.running(path)
    assert before not in app.running("/hot")
    assert (await client.post(hot)).content == b"ok\n"
    await asyncio.sleep(2.5)  # what was killed would have had its effect by now
    for answer in answers.values():
        assert (await client.get(f"/v1/calls/{answer.headers['x-call-id']}/log")).content == b""
    assert not list((app.node.data_dir / "sockets").glob("*/side-effect"))


async def test_a_timed_out_container_is_dead_when_the_answer_arrives(
    app: App, client: httpx.AsyncClient, docker_client: docker.APIClient
) -> None:
    """Also one that stops SIGTERM, is busy, or has sent a part of its answer."""
    url = app.deploy("/stubborn", "misfit", timeout=1, config={"MODE": "ignore_sigterm"})

    for mode in ("never", "block"):
        answer = await client.post(url, headers={"X-Mode": mode, "X-Seconds": "30"})
        assert_failed(answer, app, 504, "timeout", "timeout")
        assert app.running("/stubborn") == []
    async with Wire(app.node.url) as wire:
        await wire.request(f"POST {url}", "X-Mode: stall", body=b"x")
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await wire.answer()
    assert app.running("/stubborn") == []


# --- it does not start


@pytest.mark.parametrize(
    ("mode", "status", "code"),
    [
        ("exit_before_ready", 502, "start_failed"),
        ("not_a_socket", 502, "start_failed"),
        ("symlink_outside", 502, "start_failed"),
        ("absolute_symlink", 502, "start_failed"),
        ("never_ready", 504, "start_timeout"),
    ],
)
async def test_a_container_that_does_not_get_ready_is_named_and_removed(
    mode: str, status: int, code: str, small_app: App, small_client: httpx.AsyncClient
) -> None:
    url = small_app.deploy("/unready", "misfit", config={"MODE": mode})

    answer = await small_client.post(url)

    record = assert_failed(answer, small_app, status, code, "start_failed")
    await wait_until(lambda: not small_app.containers("/unready"), timeout_s=GONE_TIMEOUT_S)
    if mode == "exit_before_ready":
        log = await small_client.get(f"/v1/calls/{record['id']}/log")
        assert log.content == b"exiting with 3\n"
        assert "exit code 3" in record["error"]
    small_app.change("/unready", config={"MODE": "ok"})
    assert (await small_client.post(url)).content == b"ok\n"


async def test_an_image_that_was_removed_is_named(
    app: App, client: httpx.AsyncClient, docker_client: docker.APIClient
) -> None:
    tag = f"127.0.0.1:9/faas-e2e-{uuid.uuid4().hex[:8]}"
    for path, image, format_ in (("/hot", "echo", "http-stream"), ("/cold", "cat", "default")):
        reference = f"{tag}{path.replace('/', '-')}:local"
        container = docker_client.create_container(f"faas/test-{image}:local")
        docker_client.commit(container["Id"], *reference.rsplit(":", 1), changes=f"LABEL only={reference}")
        docker_client.remove_container(container["Id"])
        try:
            url = app.deploy(path, reference, format=format_, idle_timeout=1)
            assert (await client.post(url, content=b"x")).content == b"x"
            await wait_until(lambda path=path: not app.containers(path), timeout_s=GONE_TIMEOUT_S)
            for ahead in app.node.containers(app=app.name, route=path):
                docker_client.remove_container(ahead["Id"], force=True)
        finally:
            docker_client.remove_image(reference, force=True)

        for _ in range(2):
            answer = await client.post(url)
            record = assert_failed(answer, app, 500, "image_not_found", "image_not_found")
            assert reference in record["error"]


# --- somebody interferes


async def test_a_container_killed_from_outside_fails_its_call_only(
    app: App, client: httpx.AsyncClient, docker_client: docker.APIClient
) -> None:
    urls = {"/hot": app.deploy("/hot", "echo"), "/cold": app.deploy("/cold", "shell", config={"SCRIPT": "sleep 20"})}
    for path, url in urls.items():
        call = asyncio.ensure_future(client.post(url, headers={"X-Sleep-Ms": "20000"}))
        await wait_until(lambda path=path: app.node.stats()["Running"] and app.running(path), timeout_s=GONE_TIMEOUT_S)
        docker_client.kill(app.running(path)[0])

        answer = await call
        assert answer.status_code in (500, 502), answer.text
        assert "137" in answer.json()["error"]["message"]
    assert (await client.post(urls["/hot"], content=b"next")).content == b"next"


@pytest.mark.parametrize("image", ["echo", "shell"])
async def test_a_call_whose_client_hangs_up_is_cancelled_and_its_container_killed(image: str, app: App) -> None:
    url = app.deploy("/left", image, config={"SCRIPT": "sleep 20"})
    async with Wire(app.node.url) as wire:
        await wire.request(f"POST {url}", "X-Sleep-Ms: 20000", body=b"x")
        await wait_until(lambda: app.node.stats()["Running"] and app.running("/left"), timeout_s=GONE_TIMEOUT_S)
        [container_id] = app.running("/left")
        await asyncio.sleep(0.2)

    await wait_until(lambda: container_id not in app.running("/left"), timeout_s=GONE_TIMEOUT_S)
    with app.node.api() as api:
        await wait_until(lambda: api.get(f"/v1/apps/{app.name}/calls").json()["calls"], timeout_s=GONE_TIMEOUT_S)
        [record] = api.get(f"/v1/apps/{app.name}/calls").json()["calls"]
    assert (record["status"], record["reason"]) == ("cancelled", "client_request")
    assert "hung up" in record["error"]


async def test_after_200_clients_hung_up_at_random_everything_is_as_before(app: App, client: httpx.AsyncClient) -> None:
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    url = app.deploy("/busy", "echo", max_concurrency=4)
    await client.post(url)
    await wait_until(lambda: app.node.stats()["Running"] == 0)
    body = b"x" * 100_000

    async def hang_up(wait_s: float, sleep_ms: int, sent: int) -> None:
        async with Wire(app.node.url) as wire:
            await wire.send(wire.encode(f"POST {url}", f"X-Sleep-Ms: {sleep_ms}", body=body)[:sent])
            await asyncio.sleep(wait_s)
            wire.writer.transport.abort()

    await asyncio.gather(
        *(
            hang_up(chance.uniform(0, 3), chance.choice([0, 5, 100, 1000]), chance.choice([20, 300, 50_000, 200_000]))
            for _ in range(200)
        )
    )

    def is_quiet() -> bool:
        stats = app.node.stats()
        return stats["Running"] == stats["Queue"] == 0

    await wait_until(is_quiet, timeout_s=GONE_TIMEOUT_S)
    answers = await asyncio.gather(*(client.post(url, content=b"still here") for _ in range(20)))
    assert [answer.content for answer in answers] == [b"still here"] * 20, f"seed {seed}"
    assert len(app.containers("/busy")) <= 4
    app.remove("/busy")
    await wait_until(lambda: not app.containers("/busy"), timeout_s=GONE_TIMEOUT_S)


async def test_an_upload_that_breaks_off_leaves_nothing_running(app: App, client: httpx.AsyncClient) -> None:
    for path, image in (("/hot", "misfit"), ("/cold", "cat")):
        url = app.deploy(path, image)
        async with Wire(app.node.url) as wire:
            await wire.request(f"POST {url}", "X-Mode: sink", "Content-Length: 1000000")
            await wire.send(b"x" * 300_000)
            await wait_until(lambda path=path: app.running(path), timeout_s=GONE_TIMEOUT_S)
            await asyncio.sleep(0.2)
        await wait_until(lambda path=path: not app.containers(path), timeout_s=GONE_TIMEOUT_S)
        assert (await client.post(url, content=b"next", headers={"X-Mode": "echo"})).content == b"next"
