"""`faas schedules`: routes that are called by the clock."""

import base64
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from faas.cli.apps import AppName
from faas.cli.errors import ClientError
from faas.cli.output import Output, print_json, print_note, print_record, print_table
from faas.cli.session import Session, with_session
from faas.cli.values import parse_duration_s, parse_headers, route_path
from faas.schedule import MissedPolicy, OverlapPolicy

if TYPE_CHECKING:
    from faas.cli.client import ScheduleJSON

__all__ = ["schedules"]

schedules = typer.Typer()

Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.")]
RoutePath = Annotated[str, typer.Argument(metavar="PATH", help="The route that is called.", parser=route_path)]
PathOption = Annotated[
    str | None, typer.Option("--path", metavar="PATH", help="The route that is called.", parser=route_path)
]
Cron = Annotated[
    str | None,
    typer.Option("--cron", metavar="EXPRESSION", help="When: 'minute hour day month weekday', or @hourly ..."),
]
Every = Annotated[
    int | None,
    typer.Option("--every", metavar="DURATION", help="When: every 90 (seconds), 5m, 1h30m.", parser=parse_duration_s),
]
Timezone = Annotated[
    str | None, typer.Option("--timezone", metavar="ZONE", help="In which --cron is meant, for example Europe/Berlin.")
]
Method = Annotated[str | None, typer.Option("--method", "-X", metavar="METHOD", help="The call's method.")]
Header = Annotated[
    list[str] | None, typer.Option("--header", "-H", metavar="KEY=VALUE", help="A header of the call; repeatable.")
]
Data = Annotated[str | None, typer.Option("--data", "-d", metavar="TEXT", help="The call's body.")]
DataFile = Annotated[str | None, typer.Option("--data-file", metavar="FILE", help="The call's body; - is stdin.")]
Priority = Annotated[int | None, typer.Option("--priority", min=0, max=2, help="Of the calls; 2 goes first.")]
Missed = Annotated[
    MissedPolicy | None, typer.Option("--missed", help="Firings nobody could make in time: skip them, or once for all.")
]
Overlap = Annotated[OverlapPolicy | None, typer.Option("--overlap", help="A firing while the last call has not ended.")]
Enabled = Annotated[bool | None, typer.Option("--enabled/--disabled", help="Whether it fires.")]


@schedules.command("list")
@with_session
def list_schedules(session: Session, app: AppName) -> None:
    """List an app's schedules."""
    found = session.client.list_schedules(app)
    if session.output is Output.JSON:
        print_json(found)
        return
    columns = ("name", "path", "when", "enabled", "next", "last_call_id")
    print_table(
        columns,
        [
            [one["name"], one["path"], _when(one), one["enabled"], next(iter(one["next"]), ""), one["last_call_id"]]
            for one in found
        ],
    )


@schedules.command()
@with_session
def create(
    session: Session,
    *,
    app: AppName,
    name: Name,
    path: RoutePath,
    cron: Cron = None,
    every: Every = None,
    timezone: Timezone = None,
    method: Method = None,
    header: Header = None,
    data: Data = None,
    data_file: DataFile = None,
    priority: Priority = None,
    missed: Missed = None,
    overlap: Overlap = None,
    enabled: Enabled = None,
) -> None:
    """Have a route called by the clock: by --cron, or --every so often."""
    if (cron is None) == (every is None):
        raise typer.BadParameter("say when: either --cron or --every")
    fields = _fields(
        path=path,
        cron=cron,
        interval_s=every,
        timezone=timezone,
        request=_request(method, header, data, data_file),
        priority=priority,
        missed=missed,
        overlap=overlap,
        enabled=enabled,
    )
    created = session.client.create_schedule(app, {"name": name, **fields})
    first = next(iter(created["next"]), "never")
    _print_schedule(session, created, f"Created the schedule {name} of the app {app}; first at {first}.")


@schedules.command()
@with_session
def get(session: Session, app: AppName, name: Name) -> None:
    """Show a schedule, its next firings and its last call."""
    found = session.client.get_schedule(app, name)
    if session.output is Output.JSON:
        print_json(found)
    else:
        print_record(dict(found))


@schedules.command("next")
@with_session
def show_next(session: Session, app: AppName, name: Name) -> None:
    """Show when a schedule fires next, a line each; nothing while it is disabled."""
    firings = session.client.get_schedule(app, name)["next"]
    if session.output is Output.JSON:
        print_json(firings)
    else:
        sys.stdout.writelines(f"{firing}\n" for firing in firings)


@schedules.command()
@with_session
def update(
    session: Session,
    *,
    app: AppName,
    name: Name,
    path: PathOption = None,
    cron: Cron = None,
    every: Every = None,
    timezone: Timezone = None,
    method: Method = None,
    header: Header = None,
    data: Data = None,
    data_file: DataFile = None,
    priority: Priority = None,
    missed: Missed = None,
    overlap: Overlap = None,
    enabled: Enabled = None,
) -> None:
    """Change what is given; --cron replaces --every and the other way round, --header all headers."""
    fields = _fields(
        path=path,
        cron=cron,
        interval_s=every,
        timezone=timezone,
        request=_request(method, header, data, data_file),
        priority=priority,
        missed=missed,
        overlap=overlap,
        enabled=enabled,
    )
    if not fields:
        raise typer.BadParameter("say what to change")
    updated = session.client.update_schedule(app, name, fields)
    _print_schedule(session, updated, f"Updated the schedule {name} of the app {app}.")


@schedules.command()
@with_session
def delete(session: Session, app: AppName, name: Name) -> None:
    """Delete a schedule; the calls that it has made stay."""
    session.client.delete_schedule(app, name)
    _print_schedule(session, None, f"Deleted the schedule {name} of the app {app}.")


def _fields(**given: object) -> "ScheduleJSON":
    """What was given, as the API names it."""
    fields: ScheduleJSON = {name: value for name, value in given.items() if value is not None}  # type: ignore[assignment]
    return fields


def _request(
    method: str | None, headers: list[str] | None, data: str | None, data_file: str | None
) -> dict[str, object] | None:
    if data is not None and data_file is not None:
        raise typer.BadParameter("give either --data or --data-file")
    request: dict[str, object] = {}
    if method is not None:
        request["method"] = method
    if headers:
        request["headers"] = dict(parse_headers(headers))
    if data is not None:
        request["body"] = data
    if data_file is not None:
        request["body_base64"] = base64.b64encode(_content(data_file)).decode()
    return request or None


def _content(path: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise ClientError(f"Can't read {path}: {error.strerror}", code="bad_data") from error


def _when(schedule: "ScheduleJSON") -> str:
    if schedule["cron"]:
        return f"{schedule['cron']} {schedule['timezone']}"
    return f"every {schedule['interval_s']} s"


def _print_schedule(session: Session, schedule: object, sentence: str) -> None:
    """What a change came to: the schedule as it is now for scripts, a sentence for people."""
    if session.output is Output.JSON:
        print_json(schedule if schedule is not None else {"message": sentence})
    else:
        print_note(sentence)
