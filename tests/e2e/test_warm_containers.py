"""How containers are kept: ready before anybody calls, paused while nobody does; and how long they may be silent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.e2e.answers import is_warm
from tests.e2e.wire import Wire
from tests.support.node import App
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    import docker
    import httpx

    from tests.e2e.conftest import StartNode

READY_TIMEOUT_S = 60.0
HOT = ["echo", "stdio-echo"]


async def until_running(app: App, path: str, count: int) -> set[str]:
    """The ids of a route's containers, when there are so many."""
    await wait_until(lambda: len(app.running(path)) == count, timeout_s=READY_TIMEOUT_S)
    return set(app.running(path))


async def until_paused(app: App, path: str) -> str:
    """The id of a route's only container, when the engine says that it is paused."""

    def paused() -> list[str]:
        return [entry["Id"] for entry in app.containers(path) if entry["State"] == "paused"]

    await wait_until(lambda: len(paused()) == 1, timeout_s=READY_TIMEOUT_S)
    return paused()[0]


# --- min_warm


@pytest.mark.parametrize("image", HOT)
async def test_containers_are_there_before_the_first_call(app: App, client: httpx.AsyncClient, image: str) -> None:
    url = app.deploy("/kept", image, min_warm=2)
    ready = await until_running(app, "/kept", 2)

    answer = await client.post(url, content=b"x")

    assert is_warm(answer)
    assert app.node.container_of(answer.headers["x-call-id"]) in ready


async def test_one_that_is_removed_by_somebody_is_replaced(app: App, docker_client: docker.APIClient) -> None:
    app.deploy("/kept", "echo", min_warm=2)
    before = await until_running(app, "/kept", 2)
    removed = before.pop()

    docker_client.remove_container(removed, force=True)

    await wait_until(lambda: removed not in app.running("/kept"), timeout_s=READY_TIMEOUT_S)
    after = await until_running(app, "/kept", 2)
    assert before < after


async def test_they_are_there_again_after_a_restart_of_the_node(start_node: StartNode) -> None:
    node = start_node()
    app = App(node)
    app.deploy("/kept", "echo", min_warm=2)
    before = await until_running(app, "/kept", 2)
    node.terminate()
    assert node.wait() == 0
    assert not node.containers()

    node.start()

    assert not before & await until_running(app, "/kept", 2)


async def test_more_and_fewer_are_kept_when_the_route_says_so(app: App) -> None:
    app.deploy("/kept", "echo", min_warm=1, idle_timeout=1)
    first = await until_running(app, "/kept", 1)
    app.change("/kept", min_warm=3)
    assert first < await until_running(app, "/kept", 3)
    app.change("/kept", min_warm=1)
    await until_running(app, "/kept", 1)


# --- freeze_ms


@pytest.mark.parametrize("image", HOT)
async def test_an_idle_container_is_paused_and_the_next_call_resumes_it(
    app: App, client: httpx.AsyncClient, image: str
) -> None:
    url = app.deploy("/frozen", image, freeze_ms=100, idle_timeout=600)
    await client.post(url)
    for body in (b"one", b"two"):
        paused = await until_paused(app, "/frozen")

        answer = await client.post(url, content=body)

        assert (answer.status_code, answer.content) == (200, body)
        assert is_warm(answer)
        assert app.node.container_of(answer.headers["x-call-id"]) == paused


@pytest.mark.parametrize("image", HOT)
async def test_a_paused_container_that_somebody_kills_costs_no_call(
    app: App, client: httpx.AsyncClient, docker_client: docker.APIClient, image: str
) -> None:
    url = app.deploy("/frozen", image, freeze_ms=100, idle_timeout=600, max_concurrency=1)
    await client.post(url)
    paused = await until_paused(app, "/frozen")

    killing = asyncio.to_thread(docker_client.remove_container, paused, force=True)
    answers = await asyncio.gather(killing, *(client.post(url, content=b"%d" % number) for number in range(4)))

    assert [answer.content for answer in answers[1:]] == [b"0", b"1", b"2", b"3"]


async def test_a_paused_container_leaves_nothing_behind_when_its_route_does(
    app: App, client: httpx.AsyncClient
) -> None:
    url = app.deploy("/frozen", "echo", freeze_ms=100, idle_timeout=600)
    await client.post(url)
    await until_paused(app, "/frozen")

    app.remove("/frozen")

    await wait_until(lambda: not app.containers("/frozen"), timeout_s=READY_TIMEOUT_S)


# --- stream_idle_s


@pytest.fixture
def stalling(app: App) -> str:
    """A function that may be silent for a second once it has begun to answer."""
    return app.deploy("/stream", "misfit", stream_idle_s=1)


async def stalls(app: App, url: str) -> str:
    """Call a function that begins an answer and then falls silent; returns the call's id, at the end of that."""
    async with Wire(app.node.url) as wire:
        await wire.request(f"POST {url}", "X-Mode: stall", body=b"x")
        head = await wire.head()
        assert head.status == 200
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await wire.reader.readexactly(10)
        call_id = head.header("x-call-id")
        assert call_id
        return call_id


async def test_an_answer_that_falls_silent_is_cut_off_and_its_container_killed(app: App, stalling: str) -> None:
    call_id = await stalls(app, stalling)

    record = app.node.record(call_id, wait_s=10)
    assert (record["status"], record["reason"]) == ("error", "timeout")
    assert "stream_idle_s" in record["error"]
    assert not app.node.is_alive(app.node.container_of(call_id))


async def test_an_answer_that_comes_slowly_but_surely_is_left_alone(
    app: App, client: httpx.AsyncClient, stalling: str
) -> None:
    pieces = client.post(stalling, headers={"X-Mode": "chunked", "X-Chunks": "6", "X-Delay-Ms": "400"})
    late = client.post(stalling, headers={"X-Mode": "slow", "X-Seconds": "2.5"})

    answers = await asyncio.gather(pieces, late)

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].text.count("chunk") == 6


async def test_a_caller_who_reads_slowly_is_left_alone(app: App, stalling: str) -> None:
    size = 64 << 20  # more than all buffers on the way
    async with Wire(app.node.url) as wire:
        await wire.request(f"POST {stalling}", "X-Mode: source", f"X-Bytes: {size}", body=b"x")
        assert (await wire.head()).status == 200

        for _ in range(2):  # two seconds pass in which nothing is read here
            await stalls(app, stalling)

        assert len(await wire.reader.readexactly(size)) == size
