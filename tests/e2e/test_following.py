"""Calls followed on real nodes: states and log lines while they run, and across nodes on one PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.e2e.test_async import end_of, submit
from tests.support.node import App
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.e2e.conftest import StartNode

END_TIMEOUT_S = 60.0

Event = tuple[str, str, dict[str, Any]]


async def events(answer: httpx.Response) -> AsyncIterator[Event]:
    """Name, id and data of the events of a stream, as they come."""
    fields: dict[str, str] = {}
    rest = b""
    async for chunk in answer.aiter_raw():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                name, _, value = line.decode().partition(": ")
                fields[name] = value
            elif "data" in fields:
                yield fields["event"], fields.get("id", ""), json.loads(fields["data"])
                fields = {}


def in_words(event: Event) -> str:
    name, _, data = event
    return {"state": data.get("status"), "log": data.get("line")}.get(name) or name


async def until(answer: httpx.Response, last: str) -> list[Event]:
    """The events up to one, which has to come while the stream is open."""
    seen: list[Event] = []
    async with asyncio.timeout(END_TIMEOUT_S):
        async for event in events(answer):
            seen.append(event)
            if in_words(event) == last:
                break
    return seen


async def test_a_cold_call_is_followed_while_it_runs_and_gone_on_with(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/talk", "shell", config={"SCRIPT": "echo one >&2; sleep 3; echo two >&2; cat"})
    call_id = await submit(client, url, content=b"x")

    async with client.stream("GET", f"/v1/calls/{call_id}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        before = await until(answer, "one\n")
    call = (await client.get(f"/v1/calls/{call_id}")).json()["call"]
    assert call["status"] == "running", "the line came while the function ran"

    last_id = before[-1][1]
    async with client.stream("GET", f"/v1/calls/{call_id}/events", headers={"Last-Event-ID": last_id}) as answer:
        after = await until(answer, "end")
    words = [in_words(event) for event in [*before, *after]]
    assert words == ["queued", "running", "one\n", "two\n", "attempt", "success", "end"]
    assert after[-1][2]["call"] == (await client.get(f"/v1/calls/{call_id}")).json()["call"]
    again = await client.get(f"/v1/calls/{call_id}/events", headers={"Last-Event-ID": after[-1][1]})
    assert again.status_code == 204


async def test_a_hot_functions_lines_are_told_to_the_last(app: App, client: httpx.AsyncClient) -> None:
    """They come by another way than the answer, and later."""
    url = app.deploy("/hot", "misfit")
    headers = {"X-Mode": "print_stdout", "X-Lines": "3"}
    for _ in range(3):
        call_id = await submit(client, url, headers=headers)
        async with client.stream("GET", f"/v1/calls/{call_id}/events") as answer:
            seen = await until(answer, "end")
        lines = {in_words(event) for event in seen if event[0] == "log"}
        assert lines == {f"{stream} line {number}\n" for stream in ("stdout", "stderr") for number in range(3)}


async def test_a_log_is_followed_to_the_end_of_the_call(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/talk", "shell", config={"SCRIPT": "echo one >&2; sleep 2; printf two >&2"})
    call_id = await submit(client, url)
    pieces: list[bytes] = []
    states: list[str] = []
    async with client.stream("GET", f"/v1/calls/{call_id}/log", params={"follow": "true"}) as answer:
        async for piece in answer.aiter_raw():
            pieces.append(piece)
            states.append((await client.get(f"/v1/calls/{call_id}")).json()["call"]["status"])
    assert b"".join(pieces) == b"one\ntwo"
    assert states[0] == "running"


async def test_an_apps_calls_are_watched(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/echo", "echo")
    async with client.stream("GET", f"/v1/apps/{app.name}/events") as answer:
        chunks = answer.aiter_raw()
        assert b": following" in await anext(chunks)
        call_id = await submit(client, url, content=b"x")
        text = b""
        async with asyncio.timeout(END_TIMEOUT_S):
            async for chunk in chunks:
                text += chunk
                if b'"success"' in text:
                    break
    told = [json.loads(line[6:]) for line in text.decode().splitlines() if line.startswith("data: ")]
    assert [(one["call_id"], one["status"]) for one in told] == [
        (call_id, status) for status in ("queued", "running", "success")
    ]


async def test_who_follows_does_not_hold_up_the_end_of_the_node(start_node: StartNode) -> None:
    node = start_node(shutdown_grace_s=60)
    app = App(node)
    url = app.deploy("/cold", "shell", config={"SCRIPT": "cat"})
    async with httpx.AsyncClient(base_url=node.url, timeout=END_TIMEOUT_S) as client:
        call_id = await submit(client, url, headers={"X-Delay": "3600"})
        async with client.stream("GET", f"/v1/calls/{call_id}/events") as answer:
            told = events(answer)
            assert in_words(await anext(told)) == "delayed"
            node.terminate()
            async with asyncio.timeout(30):
                name, _, data = await anext(told)
            assert (name, data["code"]) == ("interrupted", "shutting_down")
    assert node.wait(30) == 0


@pytest.mark.postgres
async def test_a_call_is_followed_and_waited_for_from_another_node(start_node: StartNode, postgres_url: str) -> None:
    runner = start_node("runner", db_url=postgres_url)
    other = start_node("other", db_url=postgres_url, async_concurrency=0)
    app = App(runner)
    url = app.deploy("/talk", "shell", config={"SCRIPT": "echo one >&2; sleep 1; cat"})
    async with (
        httpx.AsyncClient(base_url=runner.url, timeout=END_TIMEOUT_S) as here,
        httpx.AsyncClient(base_url=other.url, timeout=END_TIMEOUT_S) as there,
    ):

        async def knows_the_app() -> bool:
            return (await there.get(f"/v1/apps/{app.name}")).status_code == 200

        await wait_until(knows_the_app)
        async with there.stream("GET", f"/v1/apps/{app.name}/events") as answer:
            chunks = answer.aiter_raw()
            assert b": following" in await anext(chunks)
            call_id = await submit(here, url, content=b"x")
            async with there.stream("GET", f"/v1/calls/{call_id}/events") as followed:
                seen = await until(followed, "end")
            assert [in_words(event) for event in seen] == ["queued", "running", "one\n", "attempt", "success", "end"]
            assert (await end_of(there, call_id))["status"] == "success"
            text = b""
            async with asyncio.timeout(END_TIMEOUT_S):
                while b'"success"' not in text:
                    text += await anext(chunks)
        assert text.count(call_id.encode()) == 3
    app.close()
