"""What people type, turned into what the API takes; mistakes are usage errors that show the right form."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import typer

from faas import clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["parse_duration_s", "parse_headers", "parse_instant", "parse_pairs", "parse_retries", "route_path"]

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?\Z")
_HEADER = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+)\s*[:=]\s*(.*)\Z", re.DOTALL)


def parse_pairs(pairs: Iterable[str], *, option: str) -> dict[str, str]:
    """`KEY=VALUE` arguments as a mapping; a value may hold `=` and may be empty."""
    parsed = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise typer.BadParameter(f"'{pair}' is not KEY=VALUE", param_hint=option)
        parsed[key] = value
    return parsed


def parse_headers(headers: Iterable[str], *, option: str = "--header") -> list[tuple[str, str]]:
    """`Name: value` or `Name=value` arguments, in their order."""
    parsed = []
    for header in headers:
        match = _HEADER.match(header)
        if match is None or "\r" in header or "\n" in header:
            raise typer.BadParameter(f"'{header}' is not 'Name: value' or Name=value", param_hint=option)
        parsed.append((match[1], match[2].strip()))
    return parsed


def parse_duration_s(text: str) -> int:
    """Seconds from `90`, `90s`, `5m` or `1h30m`."""
    if text.isdecimal():
        return int(text)
    match = _DURATION.match(text)
    if not text or match is None:
        raise typer.BadParameter(f"'{text}' is no duration: write seconds (90) or 90s, 5m, 1h30m, 2d")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def parse_retries(text: str) -> dict[str, object]:
    """A route's `retries` from `5`, or from `max=5,backoff=fixed,delay_s=2,on=timeout+502`; empty (none) from `0`."""
    if text == "0":
        return {}
    if text.isdecimal():
        return {"max": int(text)}
    fields: dict[str, object] = {}
    for name, value in parse_pairs(text.split(","), option="--retries").items():
        kind = _RETRY_FIELDS.get(name)
        if kind is None:
            raise typer.BadParameter(f"'{name}' is none of {', '.join(_RETRY_FIELDS)}")
        try:
            fields[name] = kind(value)
        except ValueError:
            raise typer.BadParameter(f"'{value}' can't be {name}: it is a number") from None
    return fields


def _causes(text: str) -> list[str | int]:
    return [int(cause) if cause.isdecimal() else cause for cause in text.split("+")]


_RETRY_FIELDS: dict[str, Callable[[str], object]] = {
    "max": int,
    "backoff": str,
    "delay_s": float,
    "max_delay_s": float,
    "jitter": float,
    "on": _causes,
}


def parse_instant(text: str) -> str:
    """An RFC 3339 instant in UTC from one of any zone (none is UTC), or from a duration before now."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        try:
            instant = clock.utc_now() - timedelta(seconds=parse_duration_s(text))
        except (typer.BadParameter, OverflowError):
            raise typer.BadParameter(
                f"'{text}' is no time: write 2026-01-31T12:00:00Z, or how long ago: 90s, 5m, 2h, 1d"
            ) from None
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def route_path(text: str) -> str:
    """The path with the leading slash that IronFunctions' command line adds, too."""
    return text if text.startswith("/") else f"/{text}"
