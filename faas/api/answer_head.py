"""The head of an answer under `/r/`, as bytes: what every call sends is put together here, nothing else is."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING

from faas.clock import monotonic
from faas.wire.headers import HOP_BY_HOP, canonical_name

if TYPE_CHECKING:
    from faas.runner.invocation import Invocation
    from faas.wire.headers import Headers

__all__ = ["call_head", "encode_head"]

_STATUS_LINES = {
    status: f"HTTP/1.1 {status} {http.client.responses.get(status, '')}\r\n".encode() for status in range(200, 600)
}

_OURS = HOP_BY_HOP | {b"content-length", b"date", b"faas-error", b"server-timing", b"x-call-id"}
"""Headers of an answer that only this node may set, and sets otherwise."""

_SPELLING = {
    name: canonical_name(name) + b": "
    for name in (b"content-type", b"cache-control", b"location", b"set-cookie", b"etag", b"retry-after")
}


def encode_head(status: int, headers: Headers, default_head: bytes, extra: bytes) -> bytes:
    """Status line and headers, without what frames the body and without the blank line.

    `default_head` and `extra` are this node's own lines; of `headers` those pass that anybody may set.
    """
    lines = [_STATUS_LINES[status], default_head, extra]
    for name, value in headers:
        if name not in _OURS:
            lines.append((_SPELLING.get(name) or canonical_name(name) + b": ") + value + b"\r\n")
    return b"".join(lines)


def call_head(invocation: Invocation) -> bytes:
    """`X-Call-Id` and `Server-Timing` (W3C), durations in milliseconds."""
    running_since = invocation.running_since
    exec_ms = (monotonic() - running_since) * 1e3 if running_since else 0.0
    launch = invocation.launch
    if launch is None:
        return b"X-Call-Id: %b\r\nServer-Timing: queue;dur=%.3f, exec;dur=%.3f, warm\r\n" % (
            invocation.id.encode(),
            ((running_since or monotonic()) - invocation.accepted_at) * 1e3,
            exec_ms,
        )
    return (
        b"X-Call-Id: %b\r\nServer-Timing: queue;dur=%.3f, pull;dur=%.3f, create;dur=%.3f, start;dur=%.3f,"
        b" exec;dur=%.3f, cold\r\n"
        % (
            invocation.id.encode(),
            invocation.queue_s * 1e3 if running_since else 0.0,
            launch.pull_s * 1e3,
            launch.create_s * 1e3,
            launch.start_s * 1e3,
            exec_ms,
        )
    )
