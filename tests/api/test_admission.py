"""Requests that do not go straight into a container."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

from faas.clock import utc_now
from tests.support.samples import a_result
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.api.front import Front

ASYNC = "POST /r/demo/echo HTTP/1.1|Host: a|Content-Length: 1|Prefer: respond-async"


async def test_what_the_caller_says_of_the_call_is_handed_on(front: Front) -> None:
    before = utc_now()
    got = await (await front.client()).ask(f"{ASYNC}|X-Delay: 60|X-Expires: 90.5|X-Priority: 2", b"x")
    assert got.status == 202
    assert got["preference-applied"] == "respond-async"
    (options,) = front.options
    assert options["priority"] == 2
    assert options["expires_at"] - options["not_before"] == timedelta(seconds=30.5)
    assert timedelta(0) <= options["not_before"] - before - timedelta(seconds=60) < timedelta(seconds=10)


async def test_what_cannot_be_obeyed_is_400_and_nothing_is_accepted(front: Front) -> None:
    got = await (await front.client()).ask(f"{ASYNC}|X-Priority: 7", b"x")
    assert (got.status, got["faas-error"]) == (400, "invalid_request")
    assert front.submitted == []


async def test_such_headers_are_the_functions_own_business_on_a_sync_call(front: Front) -> None:
    got = await (await front.client()).ask("POST /r/demo/echo HTTP/1.1|Host: a|Content-Length: 1|X-Priority: 7", b"x")
    assert (got.status, got.body) == (200, b"x")
    assert got.all("preference-applied") == []


async def test_who_prefers_to_wait_gets_the_result(front: Front) -> None:
    client = await front.client()
    client.send(f"{ASYNC}|Prefer: wait=20", b"x")
    await wait_until(lambda: front.ends.is_waited_for)
    front.ends.end(
        a_result(status_code=201, headers=((b"content-type", b"text/plain"), (b"x-own", b"1")), body=b"done")
    )
    got = await client.answer()
    assert (got.status, got.body, got["x-own"]) == (201, b"done", "1")
    assert got["preference-applied"] == "respond-async, wait=20"
    assert [got["x-call-id"]] == list(front.ends.calls)
    assert got.all("faas-error") == []
    assert front.ends.waits_s == [20]


async def test_a_result_that_the_platform_made_says_so(front: Front) -> None:
    client = await front.client()
    client.send(f"{ASYNC}, wait=20", b"x")
    await wait_until(lambda: front.ends.is_waited_for)
    front.ends.end(a_result(status_code=504, headers=((b"faas-error", b"timeout"),), is_truncated=True))
    got = await client.answer()
    assert (got.status, got["faas-error"], got["x-result-truncated"]) == (504, "timeout", "true")


async def test_who_waited_in_vain_gets_the_id(front: Front) -> None:
    front.ends.has_news.set()
    got = await (await front.client()).ask(f"{ASYNC}, wait=1", b"x")
    assert got.status == 202
    assert got["preference-applied"] == "respond-async, wait=1"
    assert got["location"] == f"/v1/calls/{got['x-call-id']}"


async def test_a_client_that_hangs_up_while_it_waits_leaves_nothing(front: Front) -> None:
    client = await front.client()
    client.send(f"{ASYNC}, wait=20", b"x")
    await wait_until(lambda: front.ends.is_waited_for)
    client.reset()
    await wait_until(lambda: not front.ends.is_waited_for)
    await wait_until(lambda: not front.plane.tasks)


async def test_a_node_that_shuts_down_says_that_the_call_is_accepted(front: Front) -> None:
    client = await front.client()
    client.send(f"{ASYNC}, wait=20", b"x")
    await wait_until(lambda: front.ends.is_waited_for)
    await asyncio.gather(front.plane.tasks.cancel(), return_exceptions=True)
    got = await client.answer()
    assert got.status == 202
    assert [got["x-call-id"]] == list(front.ends.calls)
