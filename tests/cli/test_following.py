"""`faas calls follow` and `faas calls watch`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from faas.cli import following as following_module
from faas.cli.errors import ClientError
from faas.cli.server_events import ServerEvent, parse
from tests.cli.conftest import Answer

if TYPE_CHECKING:
    from tests.cli.conftest import Faas, Server

EVENTS = "GET /v1/calls/c1/events"
AT = "2026-01-31T12:00:00Z"
DONE = {"id": "c1", "status": "success", "reason": None}


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following_module, "PAUSE_S", 0.0)


def written(name: str, event_id: str = "", **data: Any) -> bytes:
    identity = f"id: {event_id}\n" if event_id else ""
    return f"event: {name}\n{identity}data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def state(status: str, **more: Any) -> dict[str, Any]:
    return {"status": status, "at": AT, "attempt": 0, "reason": None, "error": "", **more}


# --- reading a stream


def test_events_are_read_whatever_pieces_they_come_in() -> None:
    stream = (
        b"retry: 1000\n: hello\n\n" + written("log", "1.1.5", line="a\u2028b: c\r\n") + b": alive\n\ndata:{}\r\n\r\n"
    )
    expected = [
        ServerEvent(name="log", id="1.1.5", data={"line": "a\u2028b: c\r\n"}),
        ServerEvent(name="message", id="", data={}),
    ]
    for size in (1, 7, len(stream)):
        assert list(parse(stream[at : at + size] for at in range(0, len(stream), size))) == expected


def test_an_event_that_was_cut_off_is_none() -> None:
    assert list(parse([written("state")[:-1]])) == []


@pytest.mark.parametrize("data", [b"garbage", b"[1]"])
def test_a_stream_of_something_else_is_no_faas_server(data: bytes) -> None:
    with pytest.raises(ClientError, match="faas server"):
        list(parse([b"data: " + data + b"\n\n"]))


# --- follow


def test_follow_writes_the_log_to_stdout_and_the_states_to_stderr(faas: Faas, server: Server) -> None:
    chunks = (
        written("state", "1.0.0", **state("running", attempt=1)),
        written("log", "1.1.4", attempt=1, line="one\n"),
        written("attempt", "2.1.4", attempt={}),
        written("end", "end", call=DONE),
    )
    server.on(EVENTS, Answer(chunks=chunks))
    result = faas("calls", "follow", "c1")
    assert (result.exit_code, result.stdout) == (0, "one\n")
    assert result.stderr == f"{AT} running, attempt 1\n"


def test_follow_goes_on_where_a_stream_broke_off(faas: Faas, server: Server) -> None:
    server.on(
        EVENTS,
        Answer(chunks=(written("log", "1.1.4", attempt=1, line="one\n"), b"event: log\nda")),
        Answer(chunks=(written("log", "1.1.8", attempt=1, line="two\n"), written("interrupted", message="Bye"))),
        Answer(chunks=(written("end", "end", call=DONE),)),
    )
    result = faas("calls", "follow", "c1")
    assert (result.exit_code, result.stdout) == (0, "one\ntwo\n")
    assert "Bye" in result.stderr
    asked = [{key.lower(): value for key, value in one.headers.items()}.get("last-event-id") for one in server.received]
    assert asked == [None, "1.1.4", "1.1.8"]


def test_the_outcome_of_the_call_is_the_exit_code_of_follow(faas: Faas, server: Server) -> None:
    call = {**DONE, "status": "error", "reason": "timeout", "error": "Timed out"}
    server.on(EVENTS, Answer(chunks=(written("end", "end", call=call),)))
    result = faas("calls", "follow", "c1")
    assert result.exit_code == 7
    assert "The call ended in error: Timed out" in result.stderr


def test_follow_in_json_is_an_event_a_line(faas: Faas, server: Server) -> None:
    chunks = (written("state", "1.0.0", **state("queued")), written("end", "end", call=DONE))
    server.on(EVENTS, Answer(chunks=chunks))
    lines = [json.loads(line) for line in faas("calls", "follow", "c1", "-o", "json").stdout.splitlines()]
    assert lines == [
        {"event": "state", "id": "1.0.0", "data": state("queued")},
        {"event": "end", "id": "end", "data": {"call": DONE}},
    ]


def test_a_functions_log_does_not_drive_the_terminal(faas: Faas, server: Server) -> None:
    chunks = (written("log", "1.1.4", attempt=1, line="\x1b[2Jx\n"), written("end", "end", call=DONE))
    server.on(EVENTS, Answer(chunks=chunks))
    assert faas("calls", "follow", "c1").stdout == "\\x1b[2Jx\n"


def test_follow_of_an_unknown_call_is_not_found(faas: Faas, server: Server) -> None:
    server.on_error(EVENTS, 404, "call_not_found", "Call not found")
    assert faas("calls", "follow", "c1").exit_code == 4


def test_follow_gives_up_on_a_server_that_is_away(faas: Faas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAAS_URL", "http://127.0.0.1:1")
    assert faas("calls", "follow", "c1").exit_code == 6


# --- watch


def test_watch_shows_each_change_and_says_what_may_be_missing(faas: Faas, server: Server) -> None:
    failed = state("error", attempt=2, reason="oom", error="Out of memory")
    chunks = (
        written("state", call_id="c1", path="/a", **state("queued")),
        written("gap"),
        written("state", call_id="c1", path="/a", **failed),
        b"data: [the test's end]\n\n",
    )
    server.on("GET /v1/apps/shop/events", Answer(chunks=chunks))
    result = faas("calls", "watch", "shop")
    assert result.stdout.splitlines() == [
        f"c1  /a  {AT} queued",
        f"c1  /a  {AT} error, attempt 2: Out of memory",
    ]
    assert "Some events may be missing here; `faas calls list shop` has all calls." in result.stderr
