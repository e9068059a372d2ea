"""What every command that talks to a server shares: its options, its client, and how its failures end."""

import functools
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Concatenate, ParamSpec

import typer

from faas.cli.errors import ClientError
from faas.cli.exits import ExitCode
from faas.cli.output import Output, print_error

if TYPE_CHECKING:
    from faas.cli.client import FaasClient

__all__ = ["OutputOption", "Session", "option", "with_session"]

DEFAULT_URL = "http://127.0.0.1:8080"
TOKEN_LIFETIME_S = 300
"""A token that is signed here is for one command."""

P = ParamSpec("P")

Url = Annotated[
    str,
    typer.Option(envvar=["FAAS_URL", "API_URL"], help="The server, or its load balancer.", metavar="URL"),
]
OutputOption = Annotated[
    Output, typer.Option("--output", "-o", help="A table for people, JSON for scripts; errors likewise.")
]
Insecure = Annotated[
    bool, typer.Option("--insecure", envvar="SSL_SKIP_VERIFY", help="Do not verify the server's TLS certificate.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One command's server and output."""

    client: "FaasClient"
    output: Output
    url: str
    is_verifying_tls: bool


def with_session(command: Callable[Concatenate[Session, P], None]) -> Callable[..., None]:
    """The command with `--url`, `--output` and `--insecure` added; a `ClientError` ends it with its exit code."""
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    shared = [
        option("url", Url, DEFAULT_URL),
        option("output", OutputOption, Output.TABLE),
        option("insecure", Insecure, False),
    ]

    @functools.wraps(command)
    def run(*, url: str, output: Output, insecure: bool, **arguments: object) -> None:
        # httpx takes longer to import than all the rest of `faas --help`.
        from faas.cli.client import FaasClient

        with FaasClient(url, authorization=bearer_token, is_verifying_tls=not insecure) as client:
            session = Session(client=client, output=output, url=client.url, is_verifying_tls=not insecure)
            try:
                command(session, **arguments)  # type: ignore[arg-type, call-arg]
            except ClientError as error:
                print_error(error, output)
                raise typer.Exit(error.exit_code) from None
            except BrokenPipeError:
                # What Python would still flush on its way out goes nowhere.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise typer.Exit(ExitCode.READER_LEFT) from None

    parameters = [*(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own), *shared]
    # What typer builds the command line from.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def bearer_token() -> str:
    """`FAAS_TOKEN`, or a short-lived JWT signed with `FAAS_JWT_AUTH_KEY` as IronFunctions' command line does."""
    if token := os.environ.get("FAAS_TOKEN"):
        return token
    if key := os.environ.get("FAAS_JWT_AUTH_KEY") or os.environ.get("JWT_AUTH_KEY"):
        # For start-up time: most commands run without a key.
        from faas.auth.route_token import make_token

        return make_token(key, TOKEN_LIFETIME_S)
    return ""


def option(name: str, annotation: object, default: object) -> inspect.Parameter:
    """A parameter for typer: `annotation` is an `Annotated` with a `typer.Option`."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
