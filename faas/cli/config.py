"""`faas config`: the settings in effect, where each comes from, and their reference."""

from __future__ import annotations

import shlex
import sys
from enum import StrEnum
from typing import Annotated

import typer

from faas.cli import settings
from faas.cli.output import print_json, print_table
from faas.cli.session import option

__all__ = ["config"]


class Form(StrEnum):
    """How the settings are written."""

    TABLE = "table"
    JSON = "json"
    ENV = "env"


def config(*, output: Form, reference: bool, **given: object) -> None:
    """Print what `faas serve` would run with."""
    if reference:
        sys.stdout.write(settings.reference())
        return
    values = settings.masked(settings.load(given))
    if output is Form.JSON:
        print_json(values)
    elif output is Form.ENV:
        for setting in settings.describe():
            _print_assignment(setting.env[0], values[setting.name])
    else:
        rows = [
            (setting.name, _text(values[setting.name]), settings.origin_of(setting, given))
            for setting in settings.describe()
        ]
        print_table(("setting", "value", "from"), rows)


def _print_assignment(name: str, value: object) -> None:
    text = _text(value)
    # What is masked must not be put to use by somebody who sources this.
    prefix = "# " if settings.MASK in text else ""
    sys.stdout.write(f"{prefix}{name}={shlex.quote(text)}\n")


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


FormOption = Annotated[Form, typer.Option("--output", "-o", help="A table, JSON, or lines for a shell.")]
Reference = Annotated[bool, typer.Option("--reference", help="Print a reference of them in Markdown.")]

settings.add_flags(config, option("output", FormOption, Form.TABLE), option("reference", Reference, False))
