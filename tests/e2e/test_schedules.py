"""Schedules on a real node: fired by its clock, run as any async call, and not lost when it is killed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.support.node import App
from tests.support.waiting import wait_until_blocking

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from tests.support.node import NodeProcess

COUNT = 3
TIMEOUT_S = 60.0


def finished_calls(api: httpx.Client, app: App) -> list[dict[str, Any]]:
    """An app's successful calls, oldest first."""
    calls: list[dict[str, Any]] = api.get(f"/v1/apps/{app.name}/calls", params={"status": "success"}).json()["calls"]
    return calls[::-1]


def test_an_interval_of_a_second_fires_by_itself(app: App) -> None:
    app.deploy("/echo", "echo")
    url = f"/v1/apps/{app.name}/schedules"
    request = {"headers": {"Content-Type": "text/x-tick"}, "body": "tick"}
    with app.node.api() as api:
        made = api.post(url, json={"schedule": {"name": "tick", "path": "/echo", "interval_s": 1, "request": request}})
        assert made.status_code == 200, made.text
        wait_until_blocking(lambda: len(finished_calls(api, app)) >= COUNT, timeout_s=TIMEOUT_S)
        assert api.delete(f"{url}/tick").status_code == 200

        calls = finished_calls(api, app)
        assert {(call["type"], call["path"], call["schedule"]) for call in calls} == {("async", "/echo", "tick")}
        result = api.get(f"/v1/calls/{calls[0]['id']}/result")
        assert (result.status_code, result.content) == (200, b"tick")
        assert result.headers["content-type"] == "text/x-tick"


def test_a_killed_node_goes_on_where_it_was(start_node: Callable[..., NodeProcess]) -> None:
    node = start_node(lease_s=2)
    app = App(node)
    app.deploy("/cat", "cat")
    url = f"/v1/apps/{app.name}/schedules"
    with node.api() as api:
        schedule = {"name": "tick", "path": "/cat", "interval_s": 1, "overlap": "skip"}
        assert api.post(url, json={"schedule": schedule}).status_code == 200
        wait_until_blocking(lambda: finished_calls(api, app), timeout_s=TIMEOUT_S)
    node.kill()
    node.start()
    with node.api() as api:
        before = len(finished_calls(api, app))
        wait_until_blocking(lambda: len(finished_calls(api, app)) > before, timeout_s=TIMEOUT_S)
        shown = api.get(f"{url}/tick").json()["schedule"]
        assert shown["last_call_id"] in {call["id"] for call in api.get(f"/v1/apps/{app.name}/calls").json()["calls"]}
        assert api.delete(f"{url}/tick").status_code == 200
        # Whatever was accepted, before and after, ends.
        unfinished = ("delayed", "queued", "running")
        listing = f"/v1/apps/{app.name}/calls"
        wait_until_blocking(
            lambda: not any(api.get(listing, params={"status": status}).json()["calls"] for status in unfinished),
            timeout_s=TIMEOUT_S,
        )
    app.close()
