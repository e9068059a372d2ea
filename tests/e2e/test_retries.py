"""Failed calls on a real node: retried, given up, run again by hand."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.e2e.test_async import end_of, submit
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    import httpx

    from tests.support.node import App

FAIL = "sleep 1; echo failing in $HEADER_X_NUMBER >&2; exit 3"
"""Long enough to be seen at work: what ends at once may leave no trace of what it used."""
RETRIES = {"max": 2, "backoff": "fixed", "delay_s": 0.05}


async def test_a_call_is_retried_given_up_and_run_again_when_its_function_is_mended(
    app: App, client: httpx.AsyncClient
) -> None:
    url = app.deploy("/flaky", "shell", type="async", config={"SCRIPT": FAIL}, retries=RETRIES)
    call_id = await submit(client, url, content=b"input", headers={"X-Number": "7"})
    dead = await end_of(client, call_id)
    assert (dead["status"], dead["reason"], dead["retries"], dead["is_dead_letter"]) == ("error", "bad_exit", 2, True)
    assert [one["number"] for one in dead["attempts"]] == [1, 2, 3]
    assert len({one["container_id"] for one in dead["attempts"]}) == 3
    for attempt in dead["attempts"]:
        assert (attempt["exit_code"], attempt["reason"]) == (3, "bad_exit")
        assert attempt["usage"]["cpu_s"] > 0
        log = await client.get(f"/v1/calls/{call_id}/log", params={"attempt": attempt["number"]})
        assert log.text == "failing in 7\n"
    assert (await client.get(f"/v1/calls/{call_id}/log")).text == "failing in 7\n" * 3

    box = f"/v1/apps/{app.name}/dead-letters"
    assert [call["id"] for call in (await client.get(box)).json()["calls"]] == [call_id]
    mended = {"route": {"config": {"SCRIPT": "cat"}}}
    assert (await client.patch(f"/v1/apps/{app.name}/routes/flaky", json=mended)).status_code == 200
    redriven = (await client.post(f"{box}/redrive", params={"reason": "bad_exit"})).json()
    assert (redriven["count"], redriven["skipped"]) == (1, 0)
    retry = await end_of(client, (await end_of(client, call_id))["retried_by"])
    assert (retry["status"], retry["retry_of"]) == ("success", call_id)
    assert (await client.get(f"/v1/calls/{retry['id']}/result")).content == b"input"
    assert (await client.get(box)).json()["calls"] == []


async def test_all_calls_of_a_route_are_ended_whatever_they_do(app: App, client: httpx.AsyncClient) -> None:
    url = app.deploy("/slow", "shell", type="async", config={"SCRIPT": "sleep 60"}, max_concurrency=1)
    ids = [await submit(client, url) for _ in range(3)]
    ids.append(await submit(client, url, headers={"X-Delay": "600"}))

    async def is_running() -> bool:
        calls = (await client.get(f"/v1/apps/{app.name}/calls", params={"status": "running"})).json()["calls"]
        return len(calls) >= 1

    await wait_until(is_running, timeout_s=30)
    done = (await client.post(f"/v1/apps/{app.name}/calls/cancel", params={"path": "/slow"})).json()
    assert (done["count"], done["next_cursor"]) == (4, None)
    ended = await asyncio.gather(*[end_of(client, call_id) for call_id in ids])
    assert {call["status"] for call in ended} == {"cancelled"}
