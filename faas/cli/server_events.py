"""Reading Server-Sent Events (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from faas.cli.errors import ClientError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["ServerEvent", "parse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerEvent:
    """One event of a faas server."""

    name: str
    id: str
    """Empty for one that can't be gone on from."""
    data: dict[str, Any]


def parse(chunks: Iterable[bytes]) -> Iterator[ServerEvent]:
    """The events of a stream; one that its end cut off is left out. Raises `ClientError` for what is none of ours."""
    fields: dict[str, str] = {}
    for line in _lines(chunks):
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
            continue
        if "data" in fields:
            yield _event(fields)
        fields = {}


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    # Not at all the ends of line that Unicode has: JSON may hold some of them.
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode(errors="replace")


def _event(fields: dict[str, str]) -> ServerEvent:
    try:
        data = json.loads(fields["data"])
    except json.JSONDecodeError:
        data = None
    if not isinstance(data, dict):
        raise ClientError("The stream of events has something other than JSON: is that a faas server?", code="not_faas")
    return ServerEvent(name=fields.get("event", "message"), id=fields.get("id", ""), data=data)
