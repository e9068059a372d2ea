"""IronFunctions' variables of a call, which its formats give as environment (`default`) or headers (`http`).

Names and rules: `METHOD`, `ROUTE`, `REQUEST_URL`, the configuration, `HEADER_<NAME>`; upper case, `-` becomes `_`,
several values of a header are joined by one space.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from faas.wire.headers import HOP_BY_HOP

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from faas.runner.invocation import Invocation

__all__ = ["call_variables", "config_variables", "payload_of", "variables_of"]


_NOT_THE_FUNCTIONS = HOP_BY_HOP | {b"host", b"expect"}


def variable_name(name: str) -> str:
    """A configuration key or header name as IronFunctions spells it."""
    return name.upper().replace("-", "_")


def config_variables(config: Mapping[str, str]) -> dict[str, str]:
    """The configuration, app's and route's."""
    return {variable_name(key): value for key, value in config.items()}


def call_variables(
    *, method: str, route: str, url: str, config: Mapping[str, str], headers: Iterable[tuple[bytes, bytes]]
) -> dict[str, str]:
    """Everything a container is told of a call besides its body."""
    variables = {"METHOD": method, "ROUTE": route, "REQUEST_URL": url, **config_variables(config)}
    seen: set[str] = set()
    for name, value in headers:
        if name in _NOT_THE_FUNCTIONS:
            continue
        key = "HEADER_" + variable_name(name.decode("latin-1"))
        text = value.decode("latin-1")
        variables[key] = f"{variables[key]} {text}" if key in seen else text
        seen.add(key)
    return variables


def variables_of(invocation: Invocation) -> dict[str, str]:
    """The variables of a call in flight."""
    function = invocation.function
    return call_variables(
        method=invocation.method.decode("latin-1"),
        route=function.path,
        url=invocation.url.decode("latin-1"),
        config=function.config,
        headers=invocation.headers,
    )


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
