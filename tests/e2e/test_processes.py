"""Several processes that serve one port are one node, whichever of them a client comes to."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from faas.clock import monotonic
from tests.e2e.wire import Wire
from tests.support.node import REQUEST_TIMEOUT_S, App, NodeProcess
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.wire import Answer

    StartNode = Callable[..., NodeProcess]

END_TIMEOUT_S = 60.0


def satellites(node: NodeProcess) -> list[int]:
    """Process ids."""
    children = Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"faas.processes.satellite" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def client_of(node: NodeProcess) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(base_url=node.url, timeout=REQUEST_TIMEOUT_S, limits=limits)


async def calls_by_process(node: NodeProcess) -> dict[str, float]:
    """How many calls ended in each process."""
    async with client_of(node) as client:
        lines = (await client.get("/metrics")).text.splitlines()
    found = (line.removeprefix("faas_process_calls{process=").split("} ") for line in lines if "process_calls{" in line)
    return {name.strip('"'): float(count) for name, count in found}


async def ask_once(node: NodeProcess, url: str, body: bytes = b"", *headers: str) -> Answer:
    """A request on a connection of its own, which the kernel gives to any of the processes."""
    async with Wire(node.url) as wire:
        await wire.request(f"POST {url}", *headers, body=body or b"-")
        return await wire.answer()


async def test_all_processes_serve_with_each_byte_in_its_place(start_node: StartNode) -> None:
    node = start_node(processes=3)
    url = App(node).deploy("/echo", "echo", memory=32, max_concurrency=4)

    async def keep_alive(number: int) -> None:
        async with Wire(node.url) as wire:
            for turn in range(5):
                body = os.urandom((number * 997 + turn) % 200_000 + 1)
                await wire.request(f"POST {url}", body=body)
                answer = await wire.answer()
                assert (answer.status, answer.body) == (200, body)

    async def fresh(number: int) -> None:
        body = b"%d" % number
        assert (await ask_once(node, url, body)).body == body

    await asyncio.gather(*(keep_alive(number) for number in range(40)))
    for start in range(0, 200, 20):
        await asyncio.gather(*(fresh(start + number) for number in range(20)))

    counts = await calls_by_process(node)
    assert sum(counts.values()) == 40 * 5 + 200
    assert set(counts) == {"0", "1", "2"}
    assert all(counts.values()), counts


async def test_one_request_at_a_time_needs_one_container(start_node: StartNode) -> None:
    node = start_node(processes=3)
    app = App(node)
    url = app.deploy("/echo", "echo", memory=32)
    for number in range(60):
        assert (await ask_once(node, url, b"%d" % number)).body == b"%d" % number
    assert all((await calls_by_process(node)).values())
    assert len(app.containers("/echo")) == 1


async def test_a_change_is_obeyed_by_all_processes_before_it_is_answered(start_node: StartNode) -> None:
    node = start_node(processes=3)
    app = App(node)
    url = app.deploy("/echo", "echo", memory=32)
    for number in range(5):
        app.change("/echo", headers={"X-Version": [str(number)]})
        versions = {(await ask_once(node, url)).header("x-version") for _ in range(12)}
        assert versions == {str(number)}
    app.remove("/echo")
    assert {(await ask_once(node, url)).status for _ in range(12)} == {404}


async def test_one_connection_can_ask_for_everything(start_node: StartNode) -> None:
    node = start_node(processes=3)
    app = App(node)
    echo, cat = app.deploy("/echo", "echo", memory=32), app.deploy("/cat", "cat", memory=32)
    stdio = app.deploy("/stdio", "stdio-echo", memory=32)

    calls_with_a_key = set()

    async def visit(number: int) -> None:
        chunked = b"3\r\nabc\r\n4\r\n\r\n\r\n\r\n0\r\n\r\n"
        async with Wire(node.url) as wire:
            head = f"POST {echo} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            requests = [
                wire.encode(f"POST {echo}", body=b"first"),
                head + chunked,
                wire.encode("GET /version"),
                wire.encode(f"POST {cat}", body=b"cold"),
                wire.encode(f"POST {echo}", body=b"again"),
                wire.encode(f"POST {stdio}", body=b"stdio"),
                wire.encode(f"POST {echo}", "Prefer: respond-async", body=b"later"),
                wire.encode("GET /r/nobody/nothing"),
                wire.encode(f"POST {echo}", "Idempotency-Key: the-one", body=b"once"),
            ]
            if number % 2:
                await wire.send(b"".join(requests))  # in one packet, as far as the kernel likes
                answers = [await wire.answer() for _ in requests]
            else:
                answers = []
                for request in requests:
                    for byte in (request[:30], request[30:-1], request[-1:]):
                        await wire.send(byte)
                    answers.append(await wire.answer())
        bodies = [answer.body for answer in answers]
        assert [answer.status for answer in answers] == [200, 200, 200, 200, 200, 200, 202, 404, 200]
        assert [bodies[0], bodies[1], bodies[3], bodies[4], bodies[5]] == [
            b"first", b"abc\r\n\r\n", b"cold", b"again", b"stdio",
        ]  # fmt: skip
        calls_with_a_key.add(answers[8].header("x-call-id"))

    for number in range(12):
        await visit(number)
    assert len(calls_with_a_key) == 1


async def test_a_body_streams_through_any_process(start_node: StartNode) -> None:
    node = start_node(processes=2)
    url = App(node).deploy("/echo", "echo", memory=64)
    body = os.urandom(3 * 1024 * 1024)
    for _ in range(8):
        async with Wire(node.url) as wire:
            await wire.send(wire.encode(f"POST {url}", f"Content-Length: {len(body)}"))
            sending = asyncio.ensure_future(wire.send(body))
            assert (await wire.answer()).body == body
            await sending


async def test_a_call_is_known_at_once_wherever_it_ran(start_node: StartNode) -> None:
    node = start_node(processes=3)
    app = App(node)
    url = app.deploy("/echo", "echo", memory=32)
    async with client_of(node) as client:
        for _ in range(20):
            call_id = (await ask_once(node, url, b"x")).header("x-call-id")
            answer = await client.get(f"/v1/calls/{call_id}")
            assert answer.status_code == 200, answer.text
            call = answer.json()["call"]
            assert (call["status"], call["result"]["size_bytes"]) == ("success", 1)
        assert (await client.get("/stats")).json() == {"Queue": 0, "Running": 0, "Complete": 20}
        lines = (await client.get("/metrics")).text.splitlines()
    assert [float(line.split()[-1]) for line in lines if line.startswith("faas_calls_total{")] == [20]


async def test_a_timeout_in_any_process_kills_then_answers(start_node: StartNode) -> None:
    node = start_node(processes=2)
    app = App(node)
    url = app.deploy("/slow", "echo", memory=32, timeout=1)
    for _ in range(6):
        answer = await ask_once(node, url, b"x", "X-Sleep-Ms: 20000")
        assert (answer.status, answer.header("faas-error")) == (504, "timeout")
        assert app.running("/slow") == []
    assert all((await calls_by_process(node)).values())


async def test_a_client_that_hangs_up_leaves_no_container_at_work(start_node: StartNode) -> None:
    node = start_node(processes=2)
    app = App(node)
    url = app.deploy("/slow", "echo", memory=32)
    async with AsyncExitStack() as stack:
        for _ in range(6):
            wire = await stack.enter_async_context(Wire(node.url))
            await wire.request(f"POST {url}", "X-Sleep-Ms: 30000", body=b"x")
        await wait_until(lambda: node.stats()["Running"] == 6, timeout_s=END_TIMEOUT_S)
    await wait_until(lambda: node.stats() == {"Queue": 0, "Running": 0, "Complete": 6}, timeout_s=END_TIMEOUT_S)
    await wait_until(lambda: not app.running("/slow"), timeout_s=END_TIMEOUT_S)


async def test_a_killed_satellite_takes_its_own_calls_with_it_and_comes_back(start_node: StartNode) -> None:
    node = start_node(processes=3)
    app = App(node)
    url = app.deploy("/echo", "echo", memory=32)
    (victim, *_), outcomes = satellites(node), Counter[object]()
    is_over = asyncio.Event()

    async def customer() -> None:
        while not is_over.is_set():
            try:
                outcomes[(await ask_once(node, url, b"x", "X-Sleep-Ms: 20")).status] += 1
            except (OSError, asyncio.IncompleteReadError):
                outcomes["cut"] += 1

    customers = [asyncio.ensure_future(customer()) for _ in range(12)]
    await wait_until(lambda: outcomes[200] > 100, timeout_s=END_TIMEOUT_S)
    os.kill(victim, signal.SIGKILL)
    await wait_until(lambda: len(satellites(node)) == 2 and victim not in satellites(node), timeout_s=END_TIMEOUT_S)
    before = outcomes[200]
    await wait_until(lambda: outcomes[200] > before + 200, timeout_s=END_TIMEOUT_S)
    is_over.set()
    await asyncio.gather(*customers)

    assert set(outcomes) <= {200, "cut"}
    assert outcomes["cut"] <= 12, "each of them had one call there at most"
    assert "satellite_died" in node.log


@pytest.mark.parametrize("processes", [2, 3])
async def test_a_node_that_is_asked_to_end_answers_everybody_first(start_node: StartNode, processes: int) -> None:
    node = start_node(processes=processes)
    url = App(node).deploy("/echo", "echo", memory=32)
    pids = satellites(node)
    answered, refused = Counter[int](), []

    async def customer(number: int) -> None:
        """Keeps its connection; that may be closed between two requests, and never in one."""
        while True:
            try:
                wire = await Wire(node.url).__aenter__()
            except OSError:
                return
            try:
                while True:
                    await wire.request(f"POST {url}", "X-Sleep-Ms: 30", body=b"%d" % number)
                    first = await wire.reader.read(1)
                    if not first:
                        return  # closed between two requests, as this one was sent
                    wire.reader._buffer[:0] = first  # type: ignore[attr-defined]
                    answer = await wire.answer()
                    if (answer.status, answer.body) != (200, b"%d" % number):
                        refused.append(answer)
                    answered[number] += 1
                    if answer.header("connection") == "close":
                        break
            except ConnectionError:
                return
            finally:
                wire.writer.close()

    customers = [asyncio.ensure_future(customer(number)) for number in range(16)]
    await wait_until(lambda: len(answered) == 16 and min(answered.values()) > 3, timeout_s=END_TIMEOUT_S)
    node.terminate()
    assert await asyncio.to_thread(node.wait) == 0
    await asyncio.gather(*customers)

    assert not refused
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert not node.containers()


async def test_satellites_do_not_outlive_a_killed_primary(start_node: StartNode) -> None:
    node = start_node(processes=3)
    url = App(node).deploy("/echo", "echo", memory=32)
    await asyncio.gather(*(ask_once(node, url) for _ in range(12)))
    pids = satellites(node)
    assert len(pids) == 2
    node.kill()
    await wait_until(lambda: not [pid for pid in pids if Path(f"/proc/{pid}").exists()])
    node.start()
    assert (await ask_once(node, f"{url}")).status == 200


async def test_a_second_node_cannot_share_the_port_by_mistake(start_node: StartNode, tmp_path: Path) -> None:
    node = start_node(processes=2)
    port = int(node.url.rpartition(":")[2])
    folder = tmp_path / "other"
    folder.mkdir()
    other = NodeProcess(folder, node._engine, port=port, processes=2)
    began = monotonic()
    process = other.spawn()
    assert await asyncio.to_thread(process.wait, END_TIMEOUT_S) == 1, monotonic() - began
    assert "Can't listen on" in other.log
