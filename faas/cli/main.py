"""The command `faas`: all nouns in one place, and what ends it besides its commands."""

from __future__ import annotations

import sys

import typer

from faas.cli.exits import ExitCode
from faas.cli.lazy import lazy_command, lazy_group

__all__ = ["app", "run"]

COMMANDS = {
    "serve": "Run a node.",
    "call": "Run a function.",
    "config": "Print what `faas serve` would run with.",
    "doctor": "Check this machine, say what to fix.",
    "version": "Show the version of this command, and of the server when it answers.",
}
NOUNS = {
    "apps": "Apps: named groups of routes with a configuration.",
    "routes": "Routes: one function each.",
    "calls": "Calls: their state, result and log.",
    "schedules": "Schedules: routes that are called by the clock.",
    "dead-letters": "Dead letters: calls whose retries are exhausted.",
}
"""Each is a module of this package, with what it says of itself in `faas --help`."""

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


for name, text in COMMANDS.items():
    app.command(name, cls=lazy_command(f"faas.cli.{name}", name), help=text)(_filled_in_later)
for name, text in NOUNS.items():
    module = name.replace("-", "_")
    group = lazy_group(f"faas.cli.{module}", module)
    app.add_typer(typer.Typer(), name=name, cls=group, help=text, no_args_is_help=True)


def run() -> None:
    """Run the command line; the entry point."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
