"""`faas dead-letters`, and what `faas calls` does about calls that have failed or are many."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Faas, Server

DEAD = {"id": "c1", "path": "/a", "status": "error", "reason": "timeout", "error": "Timed out", "retries": 3}
BOX = "/v1/apps/shop/dead-letters"


def done(count: int, skipped: int = 0, cursor: str | None = None) -> dict[str, object]:
    return {"message": "done", "count": count, "skipped": skipped, "next_cursor": cursor}


def test_dead_letters_are_listed_with_why_they_failed(faas: Faas, server: Server) -> None:
    server.on_json(f"GET {BOX}?reason=timeout&path=%2Fa&per_page=30", {"calls": [DEAD], "next_cursor": None})
    result = faas("dead-letters", "list", "shop", "--reason", "timeout", "--path", "a")
    assert result.stdout.splitlines()[1].split() == ["c1", "/a", "timeout", "Timed", "out", "3"]


def test_all_are_retried_over_as_many_requests_as_it_takes(faas: Faas, server: Server) -> None:
    server.on_json(f"POST {BOX}/redrive?path=%2Fa&limit=1000", done(1000, cursor="n"))
    server.on_json(f"POST {BOX}/redrive?path=%2Fa&limit=1000&cursor=n", done(5, skipped=2))
    result = faas("dead-letters", "redrive", "shop", "--path", "/a")
    assert result.stderr == "Retried 1005 dead letters of the app shop. 2 were skipped.\n"
    assert json.loads(faas("dead-letters", "redrive", "shop", "--path", "/a", "-o", "json").stdout) == {
        "count": 1005,
        "skipped": 2,
    }


def test_purge_asks_first(faas: Faas, server: Server) -> None:
    server.on_json(f"POST {BOX}/purge?limit=1000", done(4))
    refused = faas("dead-letters", "purge", "shop", stdin="n\n")
    assert refused.exit_code == 9
    assert server.received == []
    assert "Deleted 4 dead letters" in faas("dead-letters", "purge", "shop", stdin="y\n").stderr
    assert faas("dead-letters", "purge", "shop", "--yes").stderr == "Deleted 4 dead letters of the app shop.\n"


def test_retry_prints_the_new_id(faas: Faas, server: Server) -> None:
    server.on_json("POST /v1/calls/c1/retry", {"call_id": "c2", "call": {**DEAD, "id": "c2"}}, 202)
    assert faas("calls", "retry", "c1").stdout == "c2\n"


def test_a_call_that_runs_is_not_retried_and_the_next_step_is_said(faas: Faas, server: Server) -> None:
    server.on_error("POST /v1/calls/c1/retry", 409, "call_not_ended", "The call is running")
    result = faas("calls", "retry", "c1")
    assert result.exit_code == 3
    assert "faas calls wait" in result.stderr


def test_all_calls_that_a_filter_means_are_cancelled(faas: Faas, server: Server) -> None:
    server.on_json("POST /v1/apps/shop/calls/cancel?status=queued&path=%2Fa&limit=1000", done(7))
    result = faas("calls", "cancel", "--all", "shop", "--status", "queued", "--path", "a")
    assert (result.exit_code, result.stderr) == (0, "Cancelled 7 calls of the app shop.\n")


@pytest.mark.parametrize("wrong", [(), ("c1", "--all", "shop"), ("c1", "--path", "/a")])
def test_cancel_wants_to_know_which(faas: Faas, server: Server, wrong: tuple[str, ...]) -> None:
    assert faas("calls", "cancel", *wrong).exit_code == 2
    assert server.received == []


def test_a_call_whose_end_is_not_confirmed_yet_is_worth_another_try(faas: Faas, server: Server) -> None:
    server.on_json("DELETE /v1/calls/c1", {"call": {**DEAD, "status": "running"}})
    result = faas("calls", "cancel", "c1")
    assert result.exit_code == 8
    assert "is to end" in result.stderr


def test_the_log_of_one_attempt(faas: Faas, server: Server) -> None:
    server.on_json("GET /v1/calls/c1/log?attempt=2", "second")
    assert faas("calls", "log", "c1", "--attempt", "2").stdout == '"second"'
    assert faas("calls", "log", "c1", "--attempt", "2", "--follow").exit_code == 2
