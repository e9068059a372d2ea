"""`faas calls`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import Answer

if TYPE_CHECKING:
    from tests.cli.conftest import Faas, Server

DONE = {"id": "c1", "app_name": "shop", "path": "/a", "type": "async", "status": "success", "reason": None}


def _call(**changes: object) -> Answer:
    return Answer(200, json.dumps({"call": {**DONE, **changes}}).encode())


def test_list_follows_the_cursor_up_to_the_limit(faas: Faas, server: Server) -> None:
    calls = [{**DONE, "id": f"c{number}"} for number in range(130)]
    server.on_json(
        "GET /v1/apps/shop/calls?status=error&path=%2Fa&per_page=100", {"calls": calls[:100], "next_cursor": "n"}
    )
    server.on_json(
        "GET /v1/apps/shop/calls?status=error&path=%2Fa&per_page=30&cursor=n",
        {"calls": calls[100:], "next_cursor": "more"},
    )
    result = faas("calls", "list", "shop", "--status", "error", "--path", "a", "-n", "130", "-o", "json")
    assert json.loads(result.stdout) == calls


def test_list_ends_with_the_last_page(faas: Faas, server: Server) -> None:
    server.on_json("GET /v1/apps/shop/calls?per_page=30", {"calls": [DONE], "next_cursor": None})
    result = faas("calls", "list", "shop")
    assert result.stdout.splitlines()[1].split() == ["c1", "/a", "async", "success"]


def test_since_takes_an_instant_of_any_zone(faas: Faas, server: Server) -> None:
    faas("calls", "list", "shop", "--since", "2026-01-31T12:00:00+02:00")
    assert server.requests == ["GET /v1/apps/shop/calls?since=2026-01-31T10%3A00%3A00Z&per_page=30"]


@pytest.mark.parametrize("wrong", ["yesterday", "5x", "", "99999999999d"])
def test_since_that_is_no_time_is_a_usage_error(faas: Faas, wrong: str) -> None:
    result = faas("calls", "list", "shop", "--since", wrong)
    assert result.exit_code == 2
    assert "is no time" in result.stderr


def test_get_shows_the_evidence_of_each_attempt(faas: Faas, server: Server) -> None:
    attempts = [{"number": 1, "node": "n1", "exit_code": 137, "error": ""}, {"number": 2, "node": "n2", "exit_code": 0}]
    server.on("GET /v1/calls/c1", _call(attempts=attempts))
    lines = [line.split() for line in faas("calls", "get", "c1").stdout.splitlines()]
    assert ["attempt", "1.exit_code", "137"] in lines
    assert ["attempt", "2.exit_code", "0"] in lines
    assert ["reason"] not in lines


def test_an_unknown_call_is_not_found(faas: Faas, server: Server) -> None:
    server.on_error("GET /v1/calls/c1", 404, "call_not_found", "Call not found")
    result = faas("calls", "get", "c1", "-o", "json")
    assert result.exit_code == 4
    assert json.loads(result.stderr)["error"] == {
        "message": "Call not found",
        "code": "call_not_found",
        "status": 404,
        "hint": "`faas calls list APP` shows an app's calls.",
    }


def test_wait_polls_until_the_call_has_ended(faas: Faas, server: Server) -> None:
    server.on("GET /v1/calls/c1?wait=20", _call(status="queued"), _call(status="running"), _call())
    result = faas("calls", "wait", "c1", "-o", "json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["status"] == "success"
    assert len(server.received) == 3


def test_wait_gives_up_after_its_timeout_and_says_that_the_call_goes_on(faas: Faas, server: Server) -> None:
    server.on("GET /v1/calls/c1", _call(status="running"))
    result = faas("calls", "wait", "c1", "--timeout", "0")
    assert result.exit_code == 8
    assert "still running" in result.stderr
    assert "faas calls cancel c1" in result.stderr


@pytest.mark.parametrize(
    ("status", "reason", "exit_code"),
    [
        ("error", "bad_exit", 1),
        ("error", "oom", 1),
        ("error", "protocol", 1),
        ("error", "image_not_found", 3),
        ("error", "timeout", 7),
        ("error", "no_capacity", 8),
        ("error", "internal", 10),
        ("cancelled", "client_request", 9),
    ],
)
def test_the_outcome_of_a_call_is_the_exit_code_of_wait(
    faas: Faas, server: Server, status: str, reason: str, exit_code: int
) -> None:
    server.on("GET /v1/calls/c1?wait=20", _call(status=status, reason=reason, error="what happened"))
    result = faas("calls", "wait", "c1")
    assert result.exit_code == exit_code
    assert f"The call ended in {status}: what happened" in result.stderr


def test_a_success_that_answered_an_error_status_is_the_functions_failure(faas: Faas, server: Server) -> None:
    server.on("GET /v1/calls/c1?wait=20", _call(result={"status_code": 500}))
    assert faas("calls", "wait", "c1").exit_code == 1


def test_result_is_byte_exact(faas: Faas, server: Server) -> None:
    body = bytes(range(256)) * 10
    server.on("GET /v1/calls/c1/result", Answer(200, body, {"content-encoding": "gzip"}))
    result = faas("calls", "result", "c1")
    assert result.exit_code == 0
    assert result.stdout_bytes == body


def test_result_of_an_unfinished_call_says_how_to_wait(faas: Faas, server: Server) -> None:
    server.on_error("GET /v1/calls/c1/result", 202, "call_not_finished", "The call has not ended yet")
    result = faas("calls", "result", "c1")
    assert result.exit_code == 8
    assert "faas calls wait" in result.stderr
    assert result.stdout == ""


def test_result_of_a_failed_call_is_its_error_and_points_at_the_log(faas: Faas, server: Server) -> None:
    server.on_error("GET /v1/calls/c1/result", 500, "bad_exit", "exit code 3")
    result = faas("calls", "result", "c1")
    assert result.exit_code == 1
    assert result.stderr == "Error: exit code 3\nWhat it wrote: `faas calls log c1`.\n"


def test_log_is_written_as_it_is(faas: Faas, server: Server) -> None:
    server.on("GET /v1/calls/c1/log", Answer(chunks=(b"one\n", b"\xfftwo\n")))
    assert faas("calls", "log", "c1").stdout_bytes == b"one\n\xfftwo\n"


def test_log_is_followed_until_the_call_has_ended_and_no_line_comes_twice(faas: Faas, server: Server) -> None:
    server.on("GET /v1/calls/c1/log?follow=true", *(Answer(200, b"one\ntwo\nthree\n"[:size]) for size in (4, 6, 14)))
    server.on("GET /v1/calls/c1?wait=1", _call(status="running"), _call())
    assert faas("calls", "log", "c1", "--follow").stdout == "one\ntwo\nthree\n"
    assert len(server.received) == 5


def test_log_of_an_expired_call_is_not_found(faas: Faas, server: Server) -> None:
    server.on_error("GET /v1/calls/c1/log", 410, "call_expired", "The record of that call has expired")
    assert faas("calls", "log", "c1").exit_code == 4


def test_cancel_says_so(faas: Faas, server: Server) -> None:
    server.on("DELETE /v1/calls/c1", _call(status="cancelled"))
    result = faas("calls", "cancel", "c1")
    assert result.exit_code == 0
    assert result.stderr == "Cancelled the call c1.\n"


def test_cancel_of_a_call_that_has_ended_changes_nothing_and_says_so(faas: Faas, server: Server) -> None:
    server.on("DELETE /v1/calls/c1", _call())
    result = faas("calls", "cancel", "c1")
    assert result.exit_code == 3
    assert result.stderr == "The call c1 had already ended in success.\n"
