"""`faas routes`: one function each: its path, its image and what it may use."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from faas.cli.apps import AppName, ConfigPairs
from faas.cli.errors import ClientError
from faas.cli.inspecting import print_property
from faas.cli.output import Output, print_json, print_note, print_record, print_table
from faas.cli.route_options import with_route_options
from faas.cli.session import Session, with_session
from faas.cli.values import parse_duration_s, parse_headers, parse_pairs, route_path

if TYPE_CHECKING:
    from faas.cli.client import RouteJSON

__all__ = ["routes"]

routes = typer.Typer()
config = typer.Typer(help="A route's configuration: environment variables of its function.", no_args_is_help=True)
headers = typer.Typer(help="A route's headers: set on each of its answers.", no_args_is_help=True)
routes.add_typer(config, name="config")
routes.add_typer(headers, name="headers")

DEFAULT_LIFETIME = "1h"
"""IronFunctions' default."""

Path = Annotated[str, typer.Argument(metavar="PATH", help="The route's path, for example /hello.", parser=route_path)]
Image = Annotated[str, typer.Argument(metavar="IMAGE", help="The container image.")]
ImageOption = Annotated[str | None, typer.Option("--image", "-i", metavar="IMAGE", help="The container image.")]
Headers = Annotated[
    list[str] | None,
    typer.Option("--header", "-H", metavar="KEY=VALUE", help="A header of each answer; repeatable."),
]


@routes.command("list")
@with_session
def list_routes(
    session: Session,
    app: AppName,
    image: Annotated[str, typer.Option(metavar="IMAGE", help="Only those of exactly this image.")] = "",
) -> None:
    """List an app's routes."""
    found = session.client.list_routes(app, image=image)
    if session.output is Output.JSON:
        print_json(found)
        return
    columns = ("path", "image", "type", "format", "memory", "timeout", "max_concurrency")
    print_table(columns, [[route.get(column) for column in columns] for route in found])


@routes.command()
@with_session
@with_route_options
def create(
    session: Session,
    *,
    app: AppName,
    path: Path,
    image: Image,
    config: ConfigPairs = None,
    header: Headers = None,
    fields: "RouteJSON",
) -> None:
    """Make a route; the app is made, too, when it does not exist. What is not given is the server's default."""
    route: RouteJSON = {"path": path, "image": image, **fields, **_mappings(config, header)}
    created = session.client.create_route(app, route)
    _print_route(session, created, f"Created the route {path} of the app {app}: {session.url}/r/{app}{path}")


@routes.command()
@with_session
def inspect(
    session: Session,
    app: AppName,
    path: Path,
    prop: Annotated[str, typer.Argument(metavar="[PROPERTY]", help="Only this, for example config.KEY.")] = "",
) -> None:
    """Show a route, or one property of it."""
    found = session.client.get_route(app, path)
    if prop:
        print_property(found, prop, session.output)
    elif session.output is Output.JSON:
        print_json(found)
    else:
        print_record(dict(found))


@routes.command()
@with_session
@with_route_options
def update(
    session: Session,
    *,
    app: AppName,
    path: Path,
    image: ImageOption = None,
    config: ConfigPairs = None,
    header: Headers = None,
    fields: "RouteJSON",
) -> None:
    """Change what is given and nothing else; an empty configuration value deletes its key."""
    if image is not None:
        fields["image"] = image
    patch: RouteJSON = {**_reset_empty(fields), **_mappings(config, header)}
    if not patch:
        raise typer.BadParameter("say what to change, for example --memory 256")
    updated = session.client.update_route(app, path, patch)
    _print_route(session, updated, f"Updated the route {path} of the app {app}.")


@routes.command()
@with_session
def delete(session: Session, app: AppName, path: Path) -> None:
    """Delete a route."""
    session.client.delete_route(app, path)
    _print_route(session, None, f"Deleted the route {path} of the app {app}.")


@routes.command()
@with_session
def token(
    session: Session,
    app: AppName,
    path: Path,
    lifetime: Annotated[
        str, typer.Argument(metavar="[DURATION]", help="How long it is valid: 3600, 90s, 5m ...")
    ] = DEFAULT_LIFETIME,
    jwt_key: Annotated[
        str | None, typer.Option(envvar="FAAS_ROUTE_JWT_KEY", help="The route's key, when the server does not tell it.")
    ] = None,
) -> None:
    """Make a token for a route that has a jwt_key: `Authorization: Bearer TOKEN`."""
    expires_in_s = parse_duration_s(lifetime)
    key = jwt_key or str(session.client.get_route(app, path).get("jwt_key") or "")
    if not key:
        raise ClientError(
            f"The server tells no key for {path}: the route has none, or it is kept secret",
            code="no_jwt_key",
            hint=f"Give it with --jwt-key, or set one: `faas routes update {app} {path} --jwt-key KEY`.",
        )
    # For start-up time: no other command of this file signs anything.
    from faas.auth.route_token import make_token

    made = make_token(key, expires_in_s)
    if session.output is Output.JSON:
        print_json({"token": made, "expires_in_s": expires_in_s})
    else:
        sys.stdout.write(f"{made}\n")


@config.command("set")
@with_session
def config_set(
    session: Session,
    app: AppName,
    path: Path,
    key: Annotated[str, typer.Argument()],
    value: Annotated[str, typer.Argument()],
) -> None:
    """Set one configuration value."""
    if not value:
        raise typer.BadParameter(f"an empty value would delete it: `faas routes config unset {app} {path} {key}`")
    updated = session.client.update_route(app, path, {"config": {key: value}})
    _print_route(session, updated, f"Set {key} of the route {path} of the app {app}.")


@config.command("unset")
@with_session
def config_unset(
    session: Session, app: AppName, path: Path, keys: Annotated[list[str], typer.Argument(metavar="KEY...")]
) -> None:
    """Delete configuration values."""
    updated = session.client.update_route(app, path, {"config": dict.fromkeys(keys, "")})
    _print_route(session, updated, f"Deleted {', '.join(keys)} from the route {path} of the app {app}.")


@headers.command("set")
@with_session
def headers_set(
    session: Session,
    app: AppName,
    path: Path,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    values: Annotated[list[str], typer.Argument(metavar="VALUE...")],
) -> None:
    """Set a header, replacing its values."""
    # The server replaces a header's values; a list in a PATCH never grows by what was there before.
    updated = session.client.update_route(app, path, {"headers": {name: values}})
    _print_route(session, updated, f"Set the header {name} of the route {path} of the app {app}.")


@headers.command("unset")
@with_session
def headers_unset(
    session: Session, app: AppName, path: Path, names: Annotated[list[str], typer.Argument(metavar="NAME...")]
) -> None:
    """Delete headers."""
    removed: dict[str, list[str]] = {name: [] for name in names}
    updated = session.client.update_route(app, path, {"headers": removed})
    _print_route(session, updated, f"Deleted {', '.join(names)} from the route {path} of the app {app}.")


def _reset_empty(fields: "RouteJSON") -> "RouteJSON":
    """Zero and empty mean "as it is" in IronFunctions' PATCH; `null` is how this API puts a field back."""
    patch: RouteJSON = {key: value or None for key, value in fields.items()}  # type: ignore[assignment]
    return patch


def _mappings(config: list[str] | None, header: list[str] | None) -> "RouteJSON":
    given: RouteJSON = {}
    if config:
        given["config"] = parse_pairs(config, option="--config")
    if header:
        given["headers"] = {}
        for name, value in parse_headers(header):
            given["headers"].setdefault(name, []).append(value)
    return given


def _print_route(session: Session, route: object, sentence: str) -> None:
    if session.output is Output.JSON:
        print_json(route if route is not None else {"message": sentence})
    else:
        print_note(sentence)
