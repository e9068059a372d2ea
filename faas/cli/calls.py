"""`faas calls`: what became of calls: list, get, wait, result, log, cancel, retry; see `following` for the others."""

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from faas import clock
from faas.cli.answers import AnswerPrinter
from faas.cli.apps import AppName
from faas.cli.call_filters import Limit, PathFilter, Since, Until, bulk, collect, query_of
from faas.cli.errors import ClientError
from faas.cli.exits import ExitCode, of_call
from faas.cli.following import follow, watch
from faas.cli.outcome import finish
from faas.cli.output import Output, print_json, print_note, print_record, print_table
from faas.cli.session import Session, with_session
from faas.cli.values import parse_duration_s
from faas.models import CallStatus

if TYPE_CHECKING:
    from faas.cli.client import CallJSON

__all__ = ["calls", "print_result", "wait_for"]

calls = typer.Typer()
calls.command("follow")(follow)
calls.command("watch")(watch)

FOLLOW_INTERVAL_S = 1.0
LONG_POLL_S = 20.0
"""One long poll; below the idle limits of the proxies people put in between."""
_NOT_FINISHED = 202
_ABSENT: tuple[object, ...] = ("", None, [], {})

CallId = Annotated[str, typer.Argument(metavar="ID", help="The call's id.")]
Timeout = Annotated[
    int | None,
    typer.Option("--timeout", metavar="DURATION", parser=parse_duration_s, help="Wait at most so long: 90, 5m ..."),
]


@calls.command("list")
@with_session
def list_calls(
    session: Session,
    app: AppName,
    status: Annotated[CallStatus | None, typer.Option(help="Only those in this state.")] = None,
    path: PathFilter = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 30,
) -> None:
    """List an app's calls, newest first."""
    query = query_of(status=status, path=path, since=since, until=until)
    found = collect(lambda page: session.client.list_calls(app, page), query, limit)
    if session.output is Output.JSON:
        print_json(found)
        return
    columns = ("id", "path", "type", "status", "reason", "created_at", "completed_at")
    print_table(columns, [[call.get(column) for column in columns] for call in found])


@calls.command()
@with_session
def get(session: Session, call_id: CallId) -> None:
    """Show a call: its state, its attempts and why it failed."""
    _print_call(session.client.get_call(call_id), session.output)


@calls.command()
@with_session
def wait(session: Session, call_id: CallId, timeout: Timeout = None) -> None:
    """Wait until a call has ended, and show it; the exit code is its outcome."""
    call = wait_for(session, call_id, timeout_s=timeout)
    _print_call(call, session.output)
    finish(call, session.output)


@calls.command()
@with_session
def result(
    session: Session,
    call_id: CallId,
    include: Annotated[bool, typer.Option("--include", "-i", help="Show status and headers, too.")] = False,
) -> None:
    """Write a call's answer to stdout exactly as the function gave it."""
    print_result(session, call_id, is_including=include)


@calls.command()
@with_session
def log(
    session: Session,
    call_id: CallId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the call has ended.")] = False,
    attempt: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only what this attempt wrote.")] = None,
) -> None:
    """Write a call's log to stdout."""
    if attempt is not None:
        if follow:
            raise typer.BadParameter("--follow goes through all attempts; leave --attempt out")
        with session.client.open_log(call_id, attempt=attempt) as answer:
            _write_beyond(answer.iter_raw(), 0)
        return
    written = 0
    has_ended = not follow
    while True:
        with session.client.open_log(call_id, is_following=follow) as answer:
            written = _write_beyond(answer.iter_raw(), written)
        if has_ended:
            return
        # A server that can't stream a log answers what there is; asked again until the call has ended.
        has_ended = _has_ended(session.client.get_call(call_id, wait_s=FOLLOW_INTERVAL_S))


@calls.command()
@with_session
def cancel(
    session: Session,
    call_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="The call's id.")] = None,
    app: Annotated[str | None, typer.Option("--all", metavar="APP", help="All calls of this app instead.")] = None,
    status: Annotated[CallStatus | None, typer.Option(help="With --all: delayed, queued or running ones.")] = None,
    path: PathFilter = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """End a call: one that waits never runs, a running one's container is killed. Or all async calls of an app."""
    query = query_of(status=status, path=path, since=since, until=until)
    if (call_id is None) is (app is None) or (app is None and query):
        raise typer.BadParameter("say which: ID, or --all APP with --status, --path, --since, --until as needed")
    if app is not None:
        _cancel_all(session, app, query)
    elif call_id is not None:
        _cancel(session, call_id)


def _cancel(session: Session, call_id: str) -> None:
    call = session.client.cancel_call(call_id)
    if session.output is Output.JSON:
        print_json(call)
    status = call.get("status")
    if status == CallStatus.CANCELLED:
        if session.output is Output.TABLE:
            print_note(f"Cancelled the call {call_id}.")
        return
    if session.output is Output.TABLE:
        print_note(
            f"The call {call_id} had already ended in {status}."
            if _has_ended(call)
            else f"The call {call_id} is to end, and has not yet: its node does not answer."
        )
    raise typer.Exit(ExitCode.REFUSED if _has_ended(call) else ExitCode.NOT_NOW)


def _cancel_all(session: Session, app: str, query: dict[str, str]) -> None:
    done = bulk(lambda page: session.client.cancel_calls(app, page), query)
    if session.output is Output.JSON:
        print_json(done)
    else:
        sentence = f"Cancelled {done['count']} calls of the app {app}."
        print_note(f"{sentence} {done['skipped']} had ended, or have not yet." if done["skipped"] else sentence)


@calls.command()
@with_session
def retry(session: Session, call_id: CallId) -> None:
    """Run an ended call again, as a new one with the same request; prints its id."""
    accepted = session.client.retry_call(call_id)
    if session.output is Output.JSON:
        print_json(accepted)
    else:
        sys.stdout.write(f"{accepted['id']}\n")


def wait_for(session: Session, call_id: str, *, timeout_s: float | None) -> "CallJSON":
    """The call's record once it has ended; raises `ClientError` when it has not after `timeout_s`."""
    deadline = None if timeout_s is None else clock.monotonic() + timeout_s
    while True:
        left_s = LONG_POLL_S if deadline is None else min(LONG_POLL_S, max(0.0, deadline - clock.monotonic()))
        call = session.client.get_call(call_id, wait_s=left_s)
        if _has_ended(call):
            return call
        if deadline is not None and clock.monotonic() >= deadline:
            raise ClientError(
                f"The call {call_id} is still {call.get('status')} after {timeout_s:g} s",
                code="call_not_finished",
                status=_NOT_FINISHED,
                hint=f"It goes on: `faas calls wait {call_id}`, or end it: `faas calls cancel {call_id}`.",
            )


def print_result(session: Session, call_id: str, *, is_including: bool) -> None:
    """A call's answer on stdout, as the sync caller would have got it; ends with its outcome."""
    with session.client.open_result(call_id) as answer:
        printer = AnswerPrinter(url=session.url, call_id=call_id, is_including=is_including)
        printer.start(
            answer.status_code,
            [(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers.raw],
        )
        for chunk in answer.iter_raw():
            printer.write(chunk)
        printer.end()


def _has_ended(call: "CallJSON") -> bool:
    return of_call(call.get("status", ""), "") is not ExitCode.NOT_NOW


def _write_beyond(chunks: Iterable[bytes], written: int) -> int:
    """Write to stdout what comes after the first `written` bytes; returns how many there were at least."""
    position = 0
    for chunk in chunks:
        sys.stdout.buffer.write(chunk[max(0, written - position) :])
        sys.stdout.buffer.flush()
        position += len(chunk)
    return max(position, written)


def _print_call(call: "CallJSON", output: Output) -> None:
    if output is Output.JSON:
        print_json(call)
        return
    record = {key: value for key, value in call.items() if key != "attempts" and value not in _ABSENT}
    for number, attempt in enumerate(call.get("attempts") or [], 1):
        present = {key: value for key, value in attempt.items() if value not in _ABSENT}
        record[f"attempt {attempt.get('number', number)}"] = present
    print_record(record)
