"""A node's life: it starts or says why not, drains, survives being killed, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import httpx
import pytest

from faas.runner.executors.docker_spec import BOOT_LABEL, INSTALLATION_LABEL
from tests.e2e.wire import Wire
from tests.support.node import REQUEST_TIMEOUT_S, App, NodeProcess
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    import docker

    StartNode = Callable[..., NodeProcess]

END_TIMEOUT_S = 90.0
ASYNC = {"Prefer": "respond-async"}

CALLS = 50


def client_of(node: NodeProcess) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=node.url, timeout=REQUEST_TIMEOUT_S)


async def submit(client: httpx.AsyncClient, url: str, content: bytes, **headers: str) -> str:
    answer = await client.post(url, content=content, headers={**ASYNC, **headers})
    assert answer.status_code == 202, answer.text
    call_id: str = answer.json()["call_id"]
    return call_id


async def result_of(client: httpx.AsyncClient, call_id: str) -> tuple[str, bytes]:
    """Final status and result."""
    call = (await client.get(f"/v1/calls/{call_id}", params={"wait": END_TIMEOUT_S})).json()["call"]
    return call["status"], (await client.get(f"/v1/calls/{call_id}/result")).content


async def test_calls_of_a_killed_node_all_end_after_its_restart_and_nothing_is_left_of_it(
    start_node: StartNode, docker_client: docker.APIClient
) -> None:
    node = start_node(lease_s=3, shutdown_grace_s=10)
    await wait_until(node.all_containers, timeout_s=END_TIMEOUT_S)  # networks made ahead are left behind, too
    app = App(node)
    urls = [
        app.deploy("/cold", "shell", config={"SCRIPT": "sleep 1; cat"}, memory=32),
        app.deploy("/hot", "echo", memory=32, max_concurrency=6),
        app.deploy("/stdio", "stdio-echo", memory=32, max_concurrency=6),
    ]
    bodies = [f"call {number}".encode() for number in range(CALLS)]
    async with client_of(node) as client:
        ids = [
            await submit(client, urls[number % len(urls)], body, **{"X-Sleep-Ms": "500"})
            for number, body in enumerate(bodies)
        ]
        await wait_until(lambda: len(node.containers()) >= 4, timeout_s=END_TIMEOUT_S)
    node.kill()

    left = [entry for entry in node.containers() if entry["State"] == "running"]
    assert left, "the test is about what a killed node leaves"
    before = {entry["Id"] for entry in node.all_containers()}
    with suppress(Exception):  # it may end by itself meanwhile
        docker_client.pause(left[0]["Id"])
    labels = {INSTALLATION_LABEL: node.installation_id, BOOT_LABEL: left[0]["Labels"][BOOT_LABEL]}
    before.add(docker_client.create_container("faas/test-cat:local", labels=labels)["Id"])
    foreign = docker_client.create_container("faas/test-cat:local", labels={INSTALLATION_LABEL: "somebody-else"})["Id"]
    folders = {folder.name for folder in (node.data_dir / "sockets").iterdir()}
    assert folders

    try:
        node.start()
        assert not before & {entry["Id"] for entry in node.all_containers()}
        assert not folders & {folder.name for folder in (node.data_dir / "sockets").iterdir()}
        docker_client.inspect_container(foreign)
    finally:
        docker_client.remove_container(foreign, force=True)
    async with client_of(node) as client:
        results = await asyncio.gather(*(result_of(client, call_id) for call_id in ids))
    assert results == [("success", body) for body in bodies]
    node.terminate()
    assert node.wait() == 0
    assert node.all_containers() == []
    assert list((node.data_dir / "sockets").iterdir()) == []


async def test_a_sync_call_of_a_killed_node_is_refused_and_the_next_node_serves(start_node: StartNode) -> None:
    node = start_node()
    app = App(node)
    url = app.deploy("/hot", "echo")
    async with client_of(node) as client:
        await client.post(url)
        running = asyncio.ensure_future(client.post(url, headers={"X-Sleep-Ms": "20000"}))
        await wait_until(lambda: node.stats()["Running"] == 1)
        node.kill()
        with pytest.raises(httpx.TransportError):
            await running
    node.start()
    async with client_of(node) as client:
        assert (await client.post(url, content=b"routes are kept")).content == b"routes are kept"


async def test_sigterm_lets_the_calls_in_flight_end(start_node: StartNode) -> None:
    node = start_node(async_concurrency=1)
    app = App(node)
    hot = app.deploy("/hot", "echo")
    cold = app.deploy("/cold", "shell", config={"SCRIPT": "sleep 2; cat"})
    async with client_of(node) as client, Wire(node.url) as idle:
        await idle.request("GET /version")
        await idle.answer()
        await client.post(hot)
        ids = [await submit(client, cold, f"queued {number}".encode()) for number in range(4)]
        running = [
            asyncio.ensure_future(client.post(hot, content=b"ends", headers={"X-Sleep-Ms": "2000"})),
            asyncio.ensure_future(client.post(cold, content=b"ends")),
        ]
        await wait_until(lambda: node.stats()["Running"] >= 3, timeout_s=END_TIMEOUT_S)

        node.terminate()

        assert [(await call).content for call in running] == [b"ends"] * 2
        assert await asyncio.to_thread(node.wait) == 0
    assert node.all_containers() == []
    assert "Traceback" not in node.log
    with pytest.raises(httpx.TransportError):
        httpx.get(node.url)

    node.start()
    async with client_of(node) as client:
        results = await asyncio.gather(*(result_of(client, call_id) for call_id in ids))
    assert results == [("success", f"queued {number}".encode()) for number in range(4)]


async def test_calls_that_outlast_the_grace_are_killed_and_async_ones_run_again(start_node: StartNode) -> None:
    node = start_node(shutdown_grace_s=1)
    app = App(node)
    sync = app.deploy("/sync", "echo")
    queued = app.deploy("/async", "shell", config={"SCRIPT": "sleep 6; cat"})
    async with client_of(node) as client:
        running = asyncio.ensure_future(client.post(sync, headers={"X-Sleep-Ms": "30000"}))
        call_id = await submit(client, queued, b"again")
        await wait_until(lambda: node.stats()["Running"] == 2, timeout_s=END_TIMEOUT_S)
        began = time.monotonic()
        node.terminate()
        with suppress(httpx.TransportError):
            assert (await running).status_code in (502, 503)
        assert await asyncio.to_thread(node.wait) == 0
        assert time.monotonic() - began < 20
    assert node.all_containers() == []

    node.start()
    async with client_of(node) as client:
        assert await result_of(client, call_id) == ("success", b"again")


async def test_an_upload_that_broke_off_does_not_hold_up_the_end(start_node: StartNode) -> None:
    node = start_node(shutdown_grace_s=30)
    app = App(node)
    url = app.deploy("/hot", "misfit")
    early = app.deploy("/early", "misfit", config={"MODE": "early_answer"})
    async with client_of(node) as client:
        await client.post(url)
    for path in (url, early):
        async with Wire(node.url) as wire:
            await wire.request(
                f"POST {path}", "X-Mode: sink" if path is url else "X-Other: 1", "Content-Length: 1000000"
            )
            await wire.send(b"x" * 300_000)
            if path is early:
                assert (await wire.answer()).body == b"early\n"
            else:
                await wait_until(lambda: node.stats()["Running"] == 1)
    await wait_until(lambda: node.stats()["Running"] == 0, timeout_s=END_TIMEOUT_S)

    began = time.monotonic()
    node.terminate()

    assert await asyncio.to_thread(node.wait) == 0
    assert time.monotonic() - began < 10


async def test_a_second_signal_ends_a_slow_drain(start_node: StartNode) -> None:
    node = start_node(shutdown_grace_s=60)
    app = App(node)
    url = app.deploy("/hot", "echo")
    async with client_of(node) as client:
        running = asyncio.ensure_future(client.post(url, headers={"X-Sleep-Ms": "15000"}))
        await wait_until(lambda: node.stats()["Running"] == 1, timeout_s=END_TIMEOUT_S)
        node.terminate()
        await wait_until(lambda: "node_stopping" in node.log)
        node.terminate()
        began = time.monotonic()
        await asyncio.to_thread(node.wait)
        with suppress(httpx.TransportError):
            await running
        assert time.monotonic() - began < 8


async def test_a_second_node_on_the_same_folder_does_not_start(start_node: StartNode) -> None:
    node = start_node()
    second = NodeProcess.__new__(NodeProcess)
    second.__dict__.update(node.__dict__)
    process = second.spawn()

    assert await asyncio.to_thread(process.wait, 60) == 1
    assert "Another node uses" in second.log
    assert "--data-dir" in second.log
    assert "Traceback" not in second.log
    async with client_of(node) as client:
        assert (await client.get("/version")).status_code == 200


async def test_a_port_in_use_is_a_clear_error(start_node: StartNode) -> None:
    node = start_node()
    with pytest.raises(AssertionError, match="did not start") as failure:
        start_node("other", port=node.url.rpartition(":")[2])

    assert "in use" in str(failure.value)
    assert "Traceback" not in str(failure.value)
    assert "exit code 1" in str(failure.value)


async def test_a_node_without_async_work_leaves_queued_calls_to_others(start_node: StartNode) -> None:
    node = start_node(async_concurrency=0)
    app = App(node)
    url = app.deploy("/cat", "cat", type="async")
    async with client_of(node) as client:
        call_id = (await client.post(url, content=b"patient")).json()["call_id"]
        call = (await client.get(f"/v1/calls/{call_id}", params={"wait": 0.5})).json()["call"]
        assert (call["status"], call["attempts"]) == ("queued", [])
        second = (await client.post(url, content=b"cancelled")).json()["call_id"]
        assert (await client.delete(f"/v1/calls/{second}")).json()["call"]["status"] == "cancelled"
    node.terminate()
    assert node.wait() == 0

    node.settings["async_concurrency"] = 4
    node.start()
    async with client_of(node) as client:
        assert await result_of(client, call_id) == ("success", b"patient")
        call = (await client.get(f"/v1/calls/{second}")).json()["call"]
    assert (call["status"], call["attempts"]) == ("cancelled", [])
