"""`faas schedules`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Faas, Server

URL = "/v1/apps/shop/schedules"
SCHEDULE: dict[str, Any] = {
    "name": "nightly",
    "path": "/report",
    "cron": "0 3 * * *",
    "interval_s": None,
    "timezone": "Europe/Berlin",
    "enabled": True,
    "next": ["2026-05-16T01:00:00Z", "2026-05-17T01:00:00Z"],
    "last_call_id": "01a2",
}
TICK = {**SCHEDULE, "name": "tick", "cron": None, "interval_s": 5, "enabled": False, "next": [], "last_call_id": None}


def test_schedules_are_listed_with_when_they_fire(faas: Faas, server: Server) -> None:
    server.on_json(f"GET {URL}", {"message": "", "schedules": [SCHEDULE, TICK]})
    lines = faas("schedules", "list", "shop").stdout.splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "NAME PATH WHEN ENABLED NEXT LAST CALL ID",
        "nightly /report 0 3 * * * Europe/Berlin yes 2026-05-16T01:00:00Z 01a2",
        "tick /report every 5 s no",
    ]
    assert json.loads(faas("schedules", "list", "shop", "-o", "json").stdout) == [SCHEDULE, TICK]


def test_create_sends_what_was_given_and_nothing_else(faas: Faas, server: Server) -> None:
    server.on_json(f"POST {URL}", {"message": "", "schedule": SCHEDULE})
    words = ("schedules", "create", "shop", "nightly", "report")
    result = faas(*words, "--cron", "0 3 * * *", "--timezone", "Europe/Berlin", "-d", "ü", "-H", "X-A: b", "-X", "PUT")
    assert result.exit_code == 0, result.stderr
    assert server.received[0].json == {
        "schedule": {
            "name": "nightly",
            "path": "/report",
            "cron": "0 3 * * *",
            "timezone": "Europe/Berlin",
            "request": {"method": "PUT", "headers": {"X-A": "b"}, "body": "ü"},
        }
    }
    assert result.stderr == "Created the schedule nightly of the app shop; first at 2026-05-16T01:00:00Z.\n"


def test_every_takes_a_duration_and_a_file_goes_as_it_is(faas: Faas, server: Server, tmp_path: Path) -> None:
    server.on_json(f"POST {URL}", {"message": "", "schedule": TICK})
    (tmp_path / "body").write_bytes(b"\xff\0")
    words = ("schedules", "create", "shop", "tick", "/report", "--every", "1m30s", "--disabled")
    result = faas(*words, "--data-file", str(tmp_path / "body"), "--missed", "once", "--overlap", "skip")
    assert result.exit_code == 0, result.stderr
    assert server.received[0].json == {
        "schedule": {
            "name": "tick",
            "path": "/report",
            "interval_s": 90,
            "request": {"body_base64": "/wA="},
            "missed": "once",
            "overlap": "skip",
            "enabled": False,
        }
    }


@pytest.mark.parametrize(
    "words",
    [
        ("create", "shop", "x", "/report"),
        ("create", "shop", "x", "/report", "--cron", "@daily", "--every", "5m"),
        ("create", "shop", "x", "/report", "--every", "often"),
        ("create", "shop", "x", "/report", "--every", "5m", "--data", "a", "--data-file", "b"),
        ("update", "shop", "x"),
    ],
)
def test_a_mistake_is_a_usage_error_and_nothing_is_sent(faas: Faas, server: Server, words: tuple[str, ...]) -> None:
    assert faas("schedules", *words).exit_code == 2
    assert server.received == []


def test_a_file_that_can_not_be_read_is_said_to_be(faas: Faas, server: Server) -> None:
    result = faas("schedules", "create", "shop", "x", "/report", "--every", "5m", "--data-file", "/no/such/file")
    assert result.exit_code == 2
    assert "Can't read /no/such/file" in result.stderr
    assert server.received == []


def test_next_prints_a_line_for_each_firing(faas: Faas, server: Server) -> None:
    server.on_json(f"GET {URL}/nightly", {"message": "", "schedule": SCHEDULE})
    assert faas("schedules", "next", "shop", "nightly").stdout.splitlines() == SCHEDULE["next"]
    assert json.loads(faas("schedules", "next", "shop", "nightly", "-o", "json").stdout) == SCHEDULE["next"]


def test_get_shows_every_field(faas: Faas, server: Server) -> None:
    server.on_json(f"GET {URL}/nightly", {"message": "", "schedule": SCHEDULE})
    shown = faas("schedules", "get", "shop", "nightly").stdout
    assert all(field in shown for field in SCHEDULE)
    assert json.loads(faas("schedules", "get", "shop", "nightly", "-o", "json").stdout) == SCHEDULE


def test_update_sends_only_what_changes(faas: Faas, server: Server) -> None:
    server.on_json(f"PATCH {URL}/nightly", {"message": "", "schedule": SCHEDULE})
    result = faas("schedules", "update", "shop", "nightly", "--enabled", "--priority", "0", "--data", "")
    assert result.exit_code == 0, result.stderr
    assert server.received[0].json == {"schedule": {"request": {"body": ""}, "priority": 0, "enabled": True}}


def test_delete_of_one_that_is_not_there_says_where_to_look(faas: Faas, server: Server) -> None:
    server.on_error(f"DELETE {URL}/x", 404, "schedule_not_found", "Schedule not found")
    result = faas("schedules", "delete", "shop", "x")
    assert result.exit_code == 4
    assert "faas schedules list APP" in result.stderr


def test_deleting_an_app_by_force_deletes_its_schedules_before_its_routes(faas: Faas, server: Server) -> None:
    done = {"message": "deleted"}
    server.on_json("GET /v1/apps/shop", {"message": "", "app": {"name": "shop"}})
    server.on_json("GET /v1/apps/shop/routes", {"message": "", "routes": [{"path": "/report"}]})
    server.on_json(f"GET {URL}", {"message": "", "schedules": [SCHEDULE, TICK]})
    server.on_json(f"DELETE {URL}/nightly", done)
    server.on_error(f"DELETE {URL}/tick", 404, "schedule_not_found", "Schedule not found")
    server.on_json("DELETE /v1/apps/shop/routes/report", done)
    server.on_json("DELETE /v1/apps/shop", done)
    assert faas("apps", "delete", "shop", "--force", "--yes").exit_code == 0
    deleted = [request for request in server.requests if request.startswith("DELETE")]
    assert deleted == [
        f"DELETE {URL}/nightly",
        f"DELETE {URL}/tick",
        "DELETE /v1/apps/shop/routes/report",
        "DELETE /v1/apps/shop",
    ]
