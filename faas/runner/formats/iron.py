"""IronFunctions' variables of a call, which its formats give as environment (`default`) or headers (`http`).

Names and rules: `METHOD`, `ROUTE`, `REQUEST_URL`, the configuration, `HEADER_<NAME>`; upper case, `-` becomes `_`,
several values of a header are joined by one space.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from faas.wire.headers import HOP_BY_HOP

if TYPE_CHECKING:
    from faas.runner.functions import Function
    from faas.runner.invocation import Invocation

__all__ = ["call_variables", "config_variables", "payload_of"]


_NOT_THE_FUNCTIONS = HOP_BY_HOP | {b"host", b"expect"}


def variable_name(name: str) -> str:
    """A configuration key or header name as IronFunctions spells it."""
    return name.upper().replace("-", "_")


def config_variables(function: Function) -> dict[str, str]:
    """The configuration, app's and route's."""
    return {variable_name(key): value for key, value in function.config.items()}


def call_variables(invocation: Invocation) -> dict[str, str]:
    """Everything a container is told of a call besides its body."""
    variables = {
        "METHOD": invocation.method.decode("latin-1"),
        "ROUTE": invocation.function.path,
        "REQUEST_URL": invocation.url.decode("latin-1"),
        **config_variables(invocation.function),
    }
    for name, value in invocation.headers:
        if name in _NOT_THE_FUNCTIONS:
            continue
        key = "HEADER_" + variable_name(name.decode("latin-1"))
        text = value.decode("latin-1")
        # A header may shadow an earlier value of the same header, nothing else: other names have no such prefix.
        variables[key] = f"{variables[key]} {text}" if key in variables else text
    return variables


def payload_of(invocation: Invocation) -> bytes:
    """The body; for a GET without one, the value of `?payload=`, as IronFunctions reads it."""
    if invocation.body or invocation.method != b"GET" or b"payload=" not in invocation.url:
        return invocation.body
    query = urlsplit(invocation.url.decode("latin-1")).query
    return (
        parse_qs(query, encoding="utf-8", errors="surrogateescape")
        .get("payload", [""])[0]
        .encode("utf-8", "surrogateescape")
    )
