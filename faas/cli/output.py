"""What a command prints: tables for people, JSON for scripts, errors on stderr with their next step."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import IO

    from faas.cli.errors import ClientError

__all__ = ["Output", "print_error", "print_json", "print_note", "print_record", "print_table", "printable"]

PIPE_WIDTH = 100_000
"""Columns when nobody looks: a script's `grep` and `awk` need whole values, each row on one line."""


class Output(StrEnum):
    """For whom the output is."""

    TABLE = "table"
    JSON = "json"


def print_json(value: object) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table with a heading."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.upper().replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    _console(sys.stdout).print(table)


def print_record(record: Mapping[str, object]) -> None:
    """One thing, a field a line; a mapping inside it has a line for each key."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in record.items():
        if isinstance(value, dict) and value:
            for inner, entry in value.items():
                table.add_row(Text(f"{key}.{printable(str(inner))}"), Text(_cell(entry)))
        else:
            table.add_row(Text(key), Text(_cell(value)))
    _console(sys.stdout).print(table)


def print_note(text: str) -> None:
    """A sentence for the person at the terminal; on stderr, so that stdout stays what a script expects."""
    _console(sys.stderr).print(Text(printable(text)))


def print_error(error: ClientError, output: Output) -> None:
    """The cause, and the next step where there is one."""
    if output is Output.JSON:
        content = {"message": error.message, "code": error.code, "status": error.status, "hint": error.hint}
        sys.stderr.write(json.dumps({"error": content}, ensure_ascii=False) + "\n")
        return
    console = _console(sys.stderr)
    console.print(Text.assemble(("Error: ", "bold red"), printable(error.message, keep="\n")))
    if error.hint:
        console.print(Text(error.hint))


def printable(text: str, *, keep: str = "") -> str:
    """The text with control characters written out: what a function sent must not drive the terminal."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape").decode() for char in text
    )


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False) if value else ""
    return printable(str(value))


def _console(stream: IO[str]) -> Console:
    is_terminal = stream.isatty()
    return Console(
        file=stream,
        width=None if is_terminal else PIPE_WIDTH,
        soft_wrap=not is_terminal,
        highlight=False,
        markup=False,
        emoji=False,
    )
