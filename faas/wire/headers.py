"""HTTP header rules that every hop needs: what is connection-level, and how Go spells a name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["HOP_BY_HOP", "Headers", "canonical_name", "end_to_end"]

Headers = list[tuple[bytes, bytes]]
"""Pairs in the order they came; names of requests are lower-case."""

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""RFC 9110 section 7.6.1, plus the two de-facto Proxy- and Keep-Alive ones."""


def canonical_name(name: bytes) -> bytes:
    """The name as Go's `textproto.CanonicalMIMEHeaderKey` spells it: `x-call-id` -> `X-Call-Id`."""
    return b"-".join(part[:1].upper() + part[1:].lower() for part in name.split(b"-"))


def end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The headers without connection-level ones, also those that `Connection` names; names become lower-case."""
    lowered = [(name.lower(), value) for name, value in headers]
    named = {token.strip().lower() for name, value in lowered if name == b"connection" for token in value.split(b",")}
    return [(name, value) for name, value in lowered if name not in HOP_BY_HOP and name not in named]
