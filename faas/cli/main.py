"""The command `faas`: all nouns in one place, and what ends it besides its commands."""

from __future__ import annotations

import sys

import typer

from faas.cli.apps import apps
from faas.cli.call import call
from faas.cli.calls import calls
from faas.cli.exits import ExitCode
from faas.cli.lazy import lazy
from faas.cli.routes import routes
from faas.cli.version import version

__all__ = ["app", "run"]

app = typer.Typer(
    name="faas",
    help="Container images as functions, on plain Docker.",
    no_args_is_help=True,
    # A failure is a sentence with a next step; a defect is a plain traceback, without the values of variables.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _filled_in_later() -> None:
    """The body comes with the options."""


app.command("serve", cls=lazy("faas.cli.serve", "serve"), help="Run a node.")(_filled_in_later)
app.command("call")(call)
app.add_typer(apps, name="apps")
app.add_typer(routes, name="routes")
app.add_typer(calls, name="calls")
app.command("config", cls=lazy("faas.cli.config", "config"), help="Print what `faas serve` would run with.")(
    _filled_in_later
)
app.command("doctor", cls=lazy("faas.cli.doctor", "doctor"), help="Check this machine, say what to fix.")(
    _filled_in_later
)
app.command("version")(version)


def run() -> None:
    """Run the command line; the entry point."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
