"""The head of a request under `/r/`: what the parser found, and everything that is derived from it, once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from faas.wire.headers import end_to_end

if TYPE_CHECKING:
    from faas.wire.headers import Headers

__all__ = ["RepeatedRequest", "RequestHead"]

_MAX_REPEATED_BYTES = 4096
"""Of a head that is remembered."""


class RequestHead:
    """A parsed head. Requests that repeat it share it: nobody changes it, except to add to `memo`."""

    __slots__ = ("content_length", "fields", "headers", "is_http_1_1", "keep_alive", "memo", "method", "path", "url")

    def __init__(
        self, scheme: bytes, method: bytes, target: bytes, headers: Headers, *, is_http_1_1: bool, keep_alive: bool
    ) -> None:
        self.method = method
        self.path = target.partition(b"?")[0]
        self.fields = fields = dict(headers)
        """By lower-case name; of a repeated one the last."""
        self.url = b"%b://%b%b" % (scheme, fields.get(b"host", b""), target)
        self.is_http_1_1 = is_http_1_1
        self.keep_alive = keep_alive
        length = fields.get(b"content-length")
        self.content_length = int(length) if length is not None else None
        connection = fields.get(b"connection")
        if connection is not None and connection.lower() not in (b"keep-alive", b"close"):
            headers = end_to_end(headers)  # it names headers that end here
        self.headers = headers
        self.memo: dict[object, bytes] = {}
        """What was written of this head before, by who wrote it."""

    @property
    def wants_async(self) -> bool:
        """Whether the caller does not wait for the answer (RFC 7240 section 4.1)."""
        return b"respond-async" in self.prefer.lower()

    @property
    def prefer(self) -> bytes:
        """All that the caller prefers, also when it is said in several lines (RFC 7240 section 2)."""
        return b",".join(value for name, value in self.headers if name == b"prefer")

    @property
    def expects_continue(self) -> bool:
        """Whether the caller waits with the body until it is asked for (RFC 9110 section 10.1.1)."""
        return self.fields.get(b"expect", b"").lower() == b"100-continue"


class RepeatedRequest:
    """The bytes of a head that came in one piece with its body: who sends them again means the same."""

    __slots__ = ("data", "head", "size", "total")

    def __init__(self, data: bytes, head: RequestHead, body_bytes: int) -> None:
        self.data = data
        self.size = len(data)
        self.total = len(data) + body_bytes
        """Of the head and its body."""
        self.head = head

    @classmethod
    def of_packet(cls, packet: bytes, head: RequestHead, body_bytes: int) -> RepeatedRequest | None:
        """`packet` is all that came of one request; None when it is not worth remembering, or not that simple."""
        data = packet[: len(packet) - body_bytes]
        is_simple = head.keep_alive and head.is_http_1_1 and (head.content_length or 0) == body_bytes
        # An empty line before the request line, or after the body, is tolerated; there the lengths don't add up.
        is_exact = len(data) <= _MAX_REPEATED_BYTES and data.find(b"\r\n\r\n") == len(data) - 4
        if not is_simple or not is_exact or b"expect" in head.fields or b"transfer-encoding" in head.fields:
            return None
        return cls(data, head, body_bytes)
