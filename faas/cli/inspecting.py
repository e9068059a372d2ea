"""One property out of a record, by a dotted name: `faas apps inspect APP config.KEY`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from faas.cli.errors import ClientError
from faas.cli.output import Output, print_json

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["print_property"]

_NOT_FOUND = 404


def print_property(record: Mapping[str, object], name: str, output: Output) -> None:
    """Print a value as it is, so that `$(...)` gets exactly that; containers and `--output json` as JSON."""
    value = _find(record, name)
    if output is Output.JSON:
        print_json(value)
    elif isinstance(value, str):
        sys.stdout.write(f"{value}\n")
    else:
        sys.stdout.write(f"{json.dumps(value, ensure_ascii=False)}\n")


def _find(record: Mapping[str, object], name: str) -> object:
    """The value at a dotted name; a key that holds dots itself (`config.a.b`) is found as well."""
    if name in record:
        return record[name]
    first, _, rest = name.partition(".")
    inner = record.get(first)
    if rest and isinstance(inner, dict):
        return _find(inner, rest)
    raise ClientError(
        f"There is no property '{name}'",
        code="property_not_found",
        status=_NOT_FOUND,
        hint=f"There are: {', '.join(record)}." if record else "",
    )
