"""`faas apps`: named groups of routes with a configuration."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from faas.cli.errors import ClientError
from faas.cli.exits import ExitCode
from faas.cli.inspecting import print_property
from faas.cli.output import Output, print_json, print_note, print_record, print_table
from faas.cli.session import Session, with_session
from faas.cli.values import parse_pairs

__all__ = ["apps"]

apps = typer.Typer()
config = typer.Typer(help="An app's configuration: environment variables of all its functions.", no_args_is_help=True)
apps.add_typer(config, name="config")

AppName = Annotated[str, typer.Argument(metavar="APP", help="The app's name.")]
ConfigPairs = Annotated[
    list[str] | None, typer.Option("--config", "-c", metavar="KEY=VALUE", help="A configuration value; repeatable.")
]


@apps.command("list")
@with_session
def list_apps(session: Session) -> None:
    """List all apps."""
    found = session.client.list_apps()
    if session.output is Output.JSON:
        print_json(found)
    else:
        print_table(("name", "config"), [(app["name"], " ".join(app.get("config") or {})) for app in found])


@apps.command()
@with_session
def create(session: Session, app: AppName, config: ConfigPairs = None) -> None:
    """Make an app."""
    created = session.client.create_app({"name": app, "config": parse_pairs(config or (), option="--config")})
    _print_app(session, created, f"Created the app {app}.")


@apps.command()
@with_session
def inspect(
    session: Session,
    app: AppName,
    prop: Annotated[str, typer.Argument(metavar="[PROPERTY]", help="Only this, for example config.KEY.")] = "",
) -> None:
    """Show an app, or one property of it."""
    found = session.client.get_app(app)
    if prop:
        print_property(found, prop, session.output)
    elif session.output is Output.JSON:
        print_json(found)
    else:
        print_record(dict(found))


@apps.command()
@with_session
def update(session: Session, app: AppName, config: ConfigPairs = None) -> None:
    """Add or replace configuration values; an empty value deletes the key."""
    if not config:
        raise typer.BadParameter("say what to change", param_hint="--config")
    updated = session.client.update_app(app, {"config": parse_pairs(config or (), option="--config")})
    _print_app(session, updated, f"Updated the app {app}.")


@apps.command()
@with_session
def delete(
    session: Session,
    app: AppName,
    force: Annotated[bool, typer.Option("--force", help="Delete its schedules and routes first.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask no question.")] = False,
) -> None:
    """Delete an app; one that has routes only with --force."""
    if force:
        _delete_routes(session, app, is_sure=yes)
    session.client.delete_app(app)
    _print_app(session, None, f"Deleted the app {app}.")


@config.command("set")
@with_session
def config_set(
    session: Session,
    app: AppName,
    key: Annotated[str, typer.Argument()],
    value: Annotated[str, typer.Argument()],
) -> None:
    """Set one configuration value."""
    if not value:
        raise typer.BadParameter(f"an empty value would delete it: `faas apps config unset {app} {key}`")
    updated = session.client.update_app(app, {"config": {key: value}})
    _print_app(session, updated, f"Set {key} of the app {app}.")


@config.command("unset")
@with_session
def config_unset(session: Session, app: AppName, keys: Annotated[list[str], typer.Argument(metavar="KEY...")]) -> None:
    """Delete configuration values."""
    # An empty value is how the API deletes a key; the whole app sent back without it would keep it.
    updated = session.client.update_app(app, {"config": dict.fromkeys(keys, "")})
    _print_app(session, updated, f"Deleted {', '.join(keys)} from the app {app}.")


def _delete_routes(session: Session, app: str, *, is_sure: bool) -> None:
    session.client.get_app(app)
    routes = session.client.list_routes(app)
    if not routes:
        return
    paths = [route["path"] for route in routes]
    if not is_sure:
        question = f"Delete the app {app} and its {len(paths)} routes ({', '.join(paths)})?"
        try:
            is_sure = typer.confirm(question, err=True)
        except typer.Abort:
            is_sure = False
    if not is_sure:
        print_note("Nothing was deleted. --yes skips the question.")
        raise typer.Exit(ExitCode.CANCELLED)
    for schedule in session.client.list_schedules(app):
        with _tolerating("schedule_not_found"):
            session.client.delete_schedule(app, schedule["name"])
    for path in paths:
        with _tolerating("route_not_found"):
            session.client.delete_route(app, path)


@contextmanager
def _tolerating(code: str) -> Iterator[None]:
    """Somebody else was quicker."""
    try:
        yield
    except ClientError as error:
        if error.code != code:
            raise


def _print_app(session: Session, app: object, sentence: str) -> None:
    """What a change came to: the app as it is now for scripts, a sentence for people."""
    if session.output is Output.JSON:
        print_json(app if app is not None else {"message": sentence})
    else:
        print_note(sentence)
