"""`faas calls follow` and `faas calls watch`: what happens to calls, as it happens."""

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from faas.cli.apps import AppName
from faas.cli.errors import UnreachableError
from faas.cli.outcome import finish
from faas.cli.output import Output, print_note, printable
from faas.cli.session import Session, with_session
from faas.cli.urls import app_url, call_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from faas.cli.server_events import ServerEvent

__all__ = ["follow", "watch"]

PAUSE_S = 1.0
"""Before a stream that broke off is asked for again."""

MAX_FAILURES = 10
"""How often in a row a server may be away: about as long as a node takes to start again."""


@with_session
def follow(session: Session, call_id: Annotated[str, typer.Argument(metavar="ID", help="The call's id.")]) -> None:
    """Show what happens to a call until it has ended: its log on stdout; the exit code is its outcome."""
    for event in _events(session, f"{call_url(call_id)}/events"):
        if session.output is Output.JSON:
            _print_line(event)
        elif event.name == "log":
            sys.stdout.write(printable(event.data["line"], keep="\n\t"))
            sys.stdout.flush()
        elif event.name == "state":
            print_note(_state(event.data))
        if event.name == "end":
            finish(event.data["call"], session.output)


@with_session
def watch(session: Session, app: AppName) -> None:
    """Show every change of an app's async calls from now on, until Ctrl-C."""
    for event in _events(session, f"{app_url(app)}/events"):
        if session.output is Output.JSON:
            _print_line(event)
        elif event.name == "state":
            data = event.data
            sys.stdout.write(f"{data['call_id']}  {printable(data['path'])}  {_state(data)}\n")
            sys.stdout.flush()
        elif event.name == "gap":
            print_note(f"Some events may be missing here; `faas calls list {app}` has all calls.")


def _events(session: Session, path: str) -> "Iterator[ServerEvent]":
    """The events of a stream, also after a break: from where it broke off, if the server tells from there."""
    last_id, failures = "", 0
    while True:
        try:
            for event in session.client.events(path, last_event_id=last_id):
                last_id, failures = event.id or last_id, 0
                if event.name == "interrupted":
                    print_note(f"Interrupted: {event.data.get('message')}")
                else:
                    yield event
        except UnreachableError:
            failures += 1
            if failures > MAX_FAILURES:
                raise
        time.sleep(PAUSE_S)
        if not last_id:
            print_note("The stream broke off; what happened meanwhile is not shown.")


def _print_line(event: "ServerEvent") -> None:
    line = {"event": event.name, "id": event.id, "data": event.data}
    sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def _state(data: dict[str, Any]) -> str:
    number = f", attempt {data['attempt']}" if data.get("attempt") else ""
    cause = ": " + printable(data.get("error") or data["reason"]) if data.get("reason") else ""
    return f"{data.get('at') or ''} {data['status']}{number}{cause}".lstrip()
