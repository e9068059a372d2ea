"""Hot containers: kept, shared by nobody, replaced when their function changes, gone when they are not needed."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from tests.e2e.answers import assert_error, is_warm
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import docker
    import httpx

    from tests.support.node import App, NodeProcess

GONE_TIMEOUT_S = 30.0


async def test_the_next_call_runs_in_the_same_container(app: App, client: httpx.AsyncClient) -> None:
    urls = {path: app.deploy(path, image) for path, image in (("/a", "echo"), ("/b", "stdio-echo"))}
    for path, url in urls.items():
        answers = [await client.post(url, content=b"x") for _ in range(3)]

        assert [is_warm(answer) for answer in answers] == [False, True, True]
        assert len({app.node.container_of(answer.headers["x-call-id"]) for answer in answers}) == 1
        assert len(app.containers(path)) == 1


async def test_an_idle_container_is_gone_after_its_idle_timeout(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/brief", "echo", idle_timeout=1)
    await asyncio.gather(*(client.post(url, headers={"X-Sleep-Ms": "300"}) for _ in range(2)))
    assert len(app.containers("/brief")) >= 1

    await wait_until(lambda: not app.containers("/brief"), timeout_s=GONE_TIMEOUT_S)

    assert (await client.post(url)).status_code == 200


async def test_a_call_longer_than_the_idle_timeout_is_left_alone(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/long", "echo", idle_timeout=1)

    answer = await client.post(url, content=b"done", headers={"X-Sleep-Ms": "2500"})

    assert (answer.status_code, answer.content) == (200, b"done")


async def test_a_container_that_was_idle_for_seconds_still_answers(app: App, client: httpx.AsyncClient) -> None:
    urls = [app.deploy("/a", "echo"), app.deploy("/b", "stdio-echo")]
    await asyncio.gather(*(client.post(url) for url in urls))
    await asyncio.sleep(1.5)  # beyond MAX_CONNECTION_IDLE_S: the channel is opened anew

    answers = await asyncio.gather(*(client.post(url, content=b"again") for url in urls))

    assert [(answer.content, is_warm(answer)) for answer in answers] == [(b"again", True)] * 2


async def test_a_change_of_the_config_takes_effect_at_once_and_lets_running_calls_end(
    app: App, client: httpx.AsyncClient
) -> None:
    url = app.deploy("/changed", "misfit", config={"GREETING": "old"}, timeout=60)
    await client.post(url)
    [old] = app.running("/changed")
    running = asyncio.ensure_future(client.post(url, headers={"X-Mode": "slow", "X-Seconds": "4"}))
    await wait_until(lambda: app.node.stats()["Running"] >= 1)

    app.change("/changed", config={"GREETING": "new"})
    answer = await client.post(url, headers={"X-Mode": "env"})

    assert answer.json()["GREETING"] == "new"
    assert app.node.container_of(answer.headers["x-call-id"]) != old
    assert (await running).content == b"slept\n"
    assert app.node.container_of((await running).headers["x-call-id"]) == old
    await wait_until(lambda: old not in app.running("/changed"), timeout_s=GONE_TIMEOUT_S)


async def test_a_change_of_the_apps_config_drains_its_idle_containers(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/changed", "misfit")
    await client.post(url)
    [old] = app.running("/changed")
    with app.node.api() as api:
        api.patch(f"/v1/apps/{app.name}", json={"app": {"config": {"FROM_APP": "yes"}}}).raise_for_status()

    assert (await client.post(url, headers={"X-Mode": "env"})).json()["FROM_APP"] == "yes"
    await wait_until(lambda: old not in app.running("/changed"), timeout_s=GONE_TIMEOUT_S)


async def test_a_change_of_the_image_takes_effect_at_once(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/changed", "misfit")
    assert (await client.post(url, content=b"x")).content == b"ok\n"
    [old] = app.running("/changed")

    app.change("/changed", image="faas/test-echo:local")

    assert (await client.post(url, content=b"x")).content == b"x"
    await wait_until(lambda: old not in app.running("/changed"), timeout_s=GONE_TIMEOUT_S)


async def test_a_deleted_route_is_404_at_once_and_its_containers_go(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/doomed", "echo")
    await client.post(url)
    running = asyncio.ensure_future(client.post(url, content=b"ends", headers={"X-Sleep-Ms": "1500"}))
    await wait_until(lambda: app.node.stats()["Running"] >= 1)

    app.remove("/doomed")

    assert_error(await client.post(url), 404, "route_not_found")
    assert (await running).content == b"ends"
    await wait_until(lambda: not app.containers("/doomed"), timeout_s=GONE_TIMEOUT_S)


async def test_max_concurrency_bounds_containers_and_waiters_are_served_in_order(
    app: App, client: httpx.AsyncClient
) -> None:
    url = app.deploy("/two", "echo", max_concurrency=2)
    ended: list[int] = []
    most = 0

    async def call(number: int) -> None:
        answer = await client.post(url, headers={"X-Sleep-Ms": "200"})
        assert answer.status_code == 200
        ended.append(number)

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, len(await asyncio.to_thread(app.running, "/two")))
            await asyncio.sleep(0.1)

    await client.post(url)
    watcher = asyncio.ensure_future(watch())
    calls = []
    for number in range(12):
        calls.append(asyncio.ensure_future(call(number)))
        await asyncio.sleep(0.02)  # so that they arrive in this order
    await asyncio.gather(*calls)
    watcher.cancel()

    assert 1 <= most <= 2
    # Two at a time: no call may end before one that came two places earlier.
    assert all(ended.index(number) < ended.index(number + 3) for number in range(9)), ended


async def test_one_container_serves_strictly_in_order(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/one", "echo", max_concurrency=1)
    ended: list[int] = []

    async def call(number: int) -> None:
        await client.post(url, headers={"X-Sleep-Ms": "50"})
        ended.append(number)

    calls = []
    for number in range(8):
        calls.append(asyncio.ensure_future(call(number)))
        await asyncio.sleep(0.03)
    await asyncio.gather(*calls)

    assert ended == list(range(8))
    assert len(app.containers("/one")) == 1


async def test_without_room_a_call_is_refused_within_the_queue_timeout(
    small_app: App, small_client: httpx.AsyncClient
) -> None:
    big = small_app.deploy("/big", "echo", memory=128)
    other = small_app.deploy("/other", "echo", memory=128)
    only = small_app.deploy("/only", "cat", memory=16, max_concurrency=1)
    await small_client.post(big)
    running = asyncio.ensure_future(small_client.post(big, headers={"X-Sleep-Ms": "6000"}))
    await wait_until(lambda: small_app.node.stats()["Running"] == 1)

    began = asyncio.get_running_loop().time()
    answers = await asyncio.gather(small_client.post(other), small_client.post(big))
    took_s = asyncio.get_running_loop().time() - began

    for answer in answers:
        content = assert_error(answer, 503, "no_capacity")
        assert int(answer.headers["retry-after"]) > 0
        assert "128" in content["error"]["message"]
        record = small_app.node.record(answer.headers["x-call-id"])
        assert (record["status"], record["reason"]) == ("error", "no_capacity")
    assert took_s < 5.5  # 2 s of queue_timeout_s, and not until the running call has ended
    assert (await small_client.post(only, content=b"small ones still fit")).content == b"small ones still fit"
    assert (await running).status_code == 200
    assert (await small_client.post(other)).status_code == 200


async def test_an_idle_container_makes_room_for_another_function(
    small_app: App, small_client: httpx.AsyncClient
) -> None:
    urls = {path: small_app.deploy(path, "echo", memory=128, idle_timeout=300) for path in ("/a", "/b")}
    assert (await small_client.post(urls["/a"])).status_code == 200

    answer = await small_client.post(urls["/b"], content=b"made room")

    assert answer.content == b"made room"
    assert small_app.running("/a") == []
    assert (await small_client.post(urls["/a"], content=b"and back")).content == b"and back"


async def test_a_container_killed_while_idle_is_replaced(
    app: App, client: httpx.AsyncClient, docker_client: docker.APIClient
) -> None:
    for path, image in (("/a", "echo"), ("/b", "stdio-echo")):
        url = app.deploy(path, image)
        await client.post(url)
        [first] = app.running(path)
        docker_client.kill(first)

        answer = await client.post(url, content=b"next")

        assert (answer.status_code, answer.content) == (200, b"next")
        assert app.node.container_of(answer.headers["x-call-id"]) != first
        await wait_until(lambda path=path, first=first: first not in {c["Id"] for c in app.containers(path)})


async def test_a_container_that_ends_after_its_answer_is_replaced(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/once", "stdio-misfit", config={"MODE": "exit_after_answer"})

    for _ in range(3):
        answer = await client.post(url, content=b"x")
        assert (answer.status_code, answer.content) == (200, b"x")
        await wait_until(lambda: not app.containers("/once"), timeout_s=GONE_TIMEOUT_S)


async def test_a_slow_function_does_not_delay_another(app: App, client: httpx.AsyncClient) -> None:
    slow = app.deploy("/slow", "echo", max_concurrency=1)
    fast = app.deploy("/fast", "echo")
    await asyncio.gather(client.post(slow), client.post(fast))
    waiting = [asyncio.ensure_future(client.post(slow, headers={"X-Sleep-Ms": "2000"})) for _ in range(5)]
    await wait_until(lambda: app.node.stats()["Queue"] >= 3)

    answers = [await client.post(fast) for _ in range(20)]

    assert [answer.status_code for answer in answers] == [200] * 20
    assert not any(call.done() for call in waiting[1:])
    for call in waiting:
        call.cancel()


async def test_nothing_of_a_caller_is_in_a_hot_containers_environment(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/env", "misfit", config={"SETTING": "kept"}, max_concurrency=1)

    async def env(secret: str) -> dict[str, Any]:
        headers = {"X-Mode": "env", "Authorization": f"Bearer {secret}", "Cookie": f"session={secret}"}
        answer = await client.post(url, headers=headers, params={"q": secret}, content=secret.encode())
        content: dict[str, Any] = answer.json()
        return content

    first, second = await env("alices-secret"), await env("bobs-secret")

    assert first == second
    assert first["SETTING"] == "kept"
    assert "secret" not in json.dumps([first, second])


async def test_calls_on_one_container_never_get_each_others_answers(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/mixed", "echo", max_concurrency=2)
    bodies = [f"call {number}".encode() for number in range(300)]

    answers = await asyncio.gather(*(client.post(url, content=body) for body in bodies))

    assert [answer.content for answer in answers] == bodies


async def test_bytes_after_an_answer_reach_nobody(app: App, client: httpx.AsyncClient) -> None:
    twice = app.deploy("/twice", "misfit")
    extra = app.deploy("/extra", "stdio-misfit", config={"MODE": "extra_bytes"})

    for url, headers, body in ((twice, {"X-Mode": "two_answers"}, b"first\n"), (extra, {}, b"abc")):
        for _ in range(3):
            answer = await client.post(url, headers=headers, content=b"abc")
            # It depends on how the bytes fall whether they are seen before the answer is complete.
            if answer.status_code == 200:
                assert answer.content == body
            else:
                assert_error(answer, 502, "protocol")


async def test_a_chunked_body_is_never_taken_for_the_next_callers_request(app: App, client: httpx.AsyncClient) -> None:
    """IronFunctions' simple functions read a head and Content-Length bytes; what else is there they take for a call."""
    url = app.deploy("/stdio", "stdio-echo", max_concurrency=1)
    await client.post(url)

    async def smuggled() -> AsyncIterator[bytes]:
        yield b"GET / HTTP/1.1\r\nContent-Length: 4\r\n\r\nEVIL"

    for _ in range(5):
        attack = asyncio.ensure_future(client.post(url, content=smuggled(), headers={"X-Sleep-Ms": "100"}))
        await asyncio.sleep(0.01)
        victims = await asyncio.gather(*(client.post(url, content=b"victim %d" % number) for number in range(4)))
        await attack
        assert [answer.content for answer in victims] == [b"victim %d" % number for number in range(4)]


async def test_identity_of_a_function_is_least_privilege(misfit: str, client: httpx.AsyncClient) -> None:
    identity = (await client.post(misfit, headers={"X-Mode": "identity"})).json()

    assert identity["uid"] != 0
    assert int(identity["capabilities"], 16) == 0
    assert identity["no_new_privileges"] == "1"
    assert not identity["root_is_writable"]
    assert identity["tmp_is_writable"]


async def test_paused_by_somebody_a_container_is_still_gone_after_its_idle_timeout(
    app: App, client: httpx.AsyncClient, docker_client: docker.APIClient, node: NodeProcess
) -> None:
    url = app.deploy("/paused", "echo", idle_timeout=1)
    answer = await client.post(url)
    docker_client.pause(node.container_of(answer.headers["x-call-id"]))

    await wait_until(lambda: not app.containers("/paused"), timeout_s=GONE_TIMEOUT_S)
