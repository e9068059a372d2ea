"""A channel that speaks HTTP/1.1, shared by the formats whose containers are HTTP servers of some kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from faas.wire.connection import HttpConnection

if TYPE_CHECKING:
    from faas.runner.invocation import Invocation
    from faas.wire.connection import KnownHeads, ResponseReceiver
    from faas.wire.headers import Headers

__all__ = ["Codec", "HttpChannel"]


class Codec(Protocol):
    """How a format writes a call as an HTTP request, and what it makes of the answer's head."""

    @property
    def known_heads(self) -> KnownHeads:
        """What its connections remember together."""

    def encode(self, invocation: Invocation) -> bytes:
        """Request line, headers, blank line; framed for the invocation's body or stream."""

    def decode(self, status: int, headers: Headers) -> tuple[int, Headers]:
        """Status and headers for the caller; raises `FaasError` when the answer breaks the contract."""


class HttpChannel(HttpConnection):
    """One connection to one container."""

    def __init__(self, codec: Codec, *, max_header_bytes: int) -> None:
        super().__init__(max_header_bytes=max_header_bytes, decode=codec.decode, known_heads=codec.known_heads)
        self._encode = codec.encode
        self._is_request_chunked = False

    def begin(self, invocation: Invocation, receiver: ResponseReceiver) -> None:
        """Send the call's head and the body at hand."""
        self._is_request_chunked = invocation.stream is not None and invocation.content_length is None
        if self._is_request_chunked:
            self.send(receiver, self._encode(invocation))
            if invocation.body:
                self.write_body(invocation.body)
        else:
            self.send(receiver, self._encode(invocation) + invocation.body)

    def write_body(self, data: bytes) -> None:
        """Send more of a streamed body."""
        if self._is_request_chunked:
            self.writelines((b"%x\r\n" % len(data), data, b"\r\n"))
        else:
            self.write(data)

    def end_body(self) -> None:
        """A streamed body is complete."""
        if self._is_request_chunked:
            self.write(b"0\r\n\r\n")
