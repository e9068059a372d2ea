"""One HTTP/1.1 client connection: writes a request, hands the answer on as it arrives.

Callbacks all the way, no task and no future, because this is the hot path of every function call. It speaks over
any asyncio transport: a function's Unix socket, a container's standard streams.

    IDLE -- send --> BUSY -- answer complete --> IDLE (reusable) | CLOSED
                       +-- peer broke off, or is not speaking HTTP --> CLOSED
"""

from __future__ import annotations

import asyncio
import logging
import select
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, cast

import httptools

from faas.errors import FaasError, InternalError, ProtocolViolationError, ResponseTooLargeError
from faas.wire.peer import is_dying

if TYPE_CHECKING:
    from collections.abc import Iterable

    from faas.wire.headers import Headers

__all__ = ["HttpConnection", "KnownHeads", "ResponseReceiver"]

logger = logging.getLogger(__name__)

_EXCERPT_BYTES = 200
"""How much of a garbled answer an error shows."""

Decode = Callable[[int, "Headers"], "tuple[int, Headers]"]

KnownHeads = dict[bytes, "tuple[int, Headers, int]"]
"""Heads of answers as they came, blank line and all -> status and headers as decoded, and the length of the body."""

_MAX_KNOWN_HEADS = 256
_MAX_KNOWN_HEAD_BYTES = 2048
"""What is remembered of heads has an end: peers choose them."""

_NO_BODY_STATUSES = frozenset({204, 304})


class ResponseReceiver(Protocol):
    """Gets one answer; the calls come from the event loop and must not block."""

    def response_started(self, status: int, headers: Headers, content_length: int | None) -> None:
        """Status and headers as they came; the length when the peer declared one."""

    def response_body(self, data: bytes) -> None:
        """Some of the body."""

    def response_flush(self) -> None:
        """All bytes at hand have been handed on; more will come."""

    def response_ended(self, *, is_reusable: bool) -> None:
        """The answer is complete; the connection can take another request when it is reusable."""

    def response_failed(self, error: FaasError) -> None:
        """The answer will never be complete; the connection is closed."""


class HttpConnection(asyncio.Protocol):
    """The client's side of one HTTP/1.1 connection, one request at a time.

    `max_header_bytes` bounds the answer's header block. `decode` turns the head that came into the one that the
    receiver gets, and may raise `FaasError` to refuse it; what it makes of a head depends on that head alone.

    A function's answers mostly begin with the same bytes. `known_heads`, which connections with the same `decode` may
    share, remembers what short ones were parsed to: an answer that comes in one piece with such a head passes the
    parser by, which saves a third of the time that an answer takes here.
    """

    def __init__(
        self, *, max_header_bytes: int, decode: Decode | None = None, known_heads: KnownHeads | None = None
    ) -> None:
        self._max_header_bytes = max_header_bytes
        self._decode = decode
        self._known_heads: KnownHeads = {} if known_heads is None else known_heads
        self._transport: asyncio.Transport | None = None
        self._input: select.poll | None = None
        """Of a socket: whether anything is to be read."""
        self._parser = httptools.HttpResponseParser(self)
        self._can_write: asyncio.Future[None] | None = None
        self._is_paused = False
        self._is_peer_dying = False
        # Per answer.
        self._receiver: ResponseReceiver | None = None
        self._status = 0
        self._headers: Headers = []
        self._head_bytes = 0
        self._packet_bytes = 0
        self._bodyless_bytes = 0
        """What came behind the head since the latest packet with some of the body in it."""
        self._content_length: int | None = None
        self._is_chunked = False
        self._in_head = True
        self._is_complete = False
        self._keep_alive = True

    @property
    def is_usable(self) -> bool:
        """Whether a request can begin now.

        The kernel is asked, too: what the peer has sent of its own accord would be taken for the next answer, and it
        may have hung up, and the event loop has heard of neither yet.
        """
        if self._transport is None or self._receiver is not None or self._transport.is_closing():
            return False
        return self._input is None or not self._input.poll(0)

    def send(self, receiver: ResponseReceiver, request: bytes) -> None:
        """Send a request's head, with as much of its body as is at hand; the answer goes to the receiver."""
        assert self._transport is not None
        assert self._receiver is None
        self._receiver = receiver
        self._head_bytes = 0
        self._in_head = True
        self._transport.write(request)

    def write(self, data: bytes) -> None:
        """Send more of the request's body; `drain` after much."""
        if self._transport is not None:
            self._transport.write(data)

    def writelines(self, parts: Iterable[bytes]) -> None:
        """The same, in parts that belong together."""
        if self._transport is not None:
            self._transport.writelines(parts)

    async def drain(self) -> None:
        """Wait until the peer has taken most of what was written; returns when the connection is lost, too."""
        if self._can_write is not None:
            await asyncio.shield(self._can_write)

    def pause_reading(self) -> None:
        """Stop the answer for a while (back-pressure)."""
        if self._transport is not None and not self._transport.is_closing():
            self._is_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on with the answer."""
        if self._transport is not None and not self._transport.is_closing():
            self._is_paused = False
            self._transport.resume_reading()

    def close(self) -> None:
        """Close the connection; an answer under way fails."""
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; asyncio calls this."""
        self._transport = cast("asyncio.Transport", transport)
        connected = transport.get_extra_info("socket")
        if connected is not None:
            self._input = select.poll()
            self._input.register(connected.fileno(), select.POLLIN | select.POLLRDHUP)

    def data_received(self, data: bytes) -> None:
        """Parse what came and hand it on; asyncio calls this."""
        receiver = self._receiver
        if receiver is None:
            # Bytes nobody asked for: whatever follows could be taken for another call's answer.
            self.close()
            return
        is_whole = not self._head_bytes
        if is_whole:
            end = data.find(b"\r\n\r\n") + 4
            known = self._known_heads.get(data[:end])
            if known is not None and known[2] == len(data) - end:
                self._pass_on_known(receiver, known, data[end:])
                return
        self._packet_bytes = len(data)
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(ProtocolViolationError("the function tried to switch protocols"))
            return
        except httptools.HttpParserError as error:
            self._fail(_as_faas_error(error, data))
            return
        if self._is_complete:
            if is_whole and self._keep_alive and self._content_length is not None:
                self._remember_head(data[: len(data) - self._content_length])
            self._finish(is_reusable=self._keep_alive)
        elif self._receiver is receiver:
            self._go_on(receiver)

    def _go_on(self, receiver: ResponseReceiver) -> None:
        """A packet has ended in the middle of an answer; the parser would collect a head or a trailer without end."""
        if self._in_head:
            if self._head_bytes > self._max_header_bytes:
                self._fail(_headers_too_large(self._max_header_bytes))
            return
        self._bodyless_bytes += self._packet_bytes
        if self._bodyless_bytes > self._max_header_bytes:
            self._fail(_headers_too_large(self._max_header_bytes))
        else:
            receiver.response_flush()

    def _pass_on_known(self, receiver: ResponseReceiver, known: tuple[int, Headers, int], body: bytes) -> None:
        """Hand on a whole answer whose head was parsed before."""
        try:
            receiver.response_started(*known)
            if body:
                receiver.response_body(body)
        except FaasError as error:
            self._fail(error)
        except Exception:
            logger.exception("response_callback_failed")
            self._fail(InternalError())
        else:
            self._finish(is_reusable=True)

    def _remember_head(self, head: bytes) -> None:
        # An answer to HEAD or without a body has another length than it declares, and an informational one before it
        # makes the first blank line another's: such heads never match.
        if len(head) <= _MAX_KNOWN_HEAD_BYTES and head.find(b"\r\n\r\n") == len(head) - 4:
            if len(self._known_heads) >= _MAX_KNOWN_HEADS:
                self._known_heads.clear()
            assert self._content_length is not None
            self._known_heads[head] = (self._status, self._headers, self._content_length)

    def eof_received(self) -> None:
        """Let asyncio close the transport; `connection_lost` decides what it means. asyncio calls this."""
        if self._receiver is not None and self._is_body_until_close and self._transport is not None:
            self._is_peer_dying = is_dying(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Settle what was under way; asyncio calls this."""
        self._transport = None
        if self._can_write is not None:
            self._can_write.set_result(None)
            self._can_write = None
        if self._receiver is not None:
            if self._is_body_until_close and exc is None and not self._is_peer_dying:
                self._finish(is_reusable=False)
            else:
                self._fail(ProtocolViolationError("error receiving function response: the connection was closed"))
        # The parser refers to this; without it the garbage collector, which comes seldom, need not come.
        del self._parser

    def pause_writing(self) -> None:
        """The transport's buffer is full; asyncio calls this."""
        self._can_write = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """The transport's buffer is small again; asyncio calls this."""
        if self._can_write is not None:
            self._can_write.set_result(None)
            self._can_write = None

    # --- the parser's side

    def on_message_begin(self) -> None:
        """Reset for an answer; the parser calls this."""
        if self._is_complete:
            # Another answer glued to the one that just ended.
            self._keep_alive = False
        self._headers = []
        self._content_length = None
        self._is_chunked = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, note the framing; the parser calls this. What comes behind a body (trailers) is dropped."""
        if not self._in_head:
            return
        self._headers.append((name, value))
        # Lengths first: a lower() for every header would cost more than all the rest of this method.
        if len(name) == 14 and name.lower() == b"content-length":
            self._content_length = int(value)
        elif len(name) == 17 and name.lower() == b"transfer-encoding":
            self._is_chunked = True

    def on_headers_complete(self) -> None:
        """Hand on the head; the parser calls this."""
        if self._is_complete:
            return
        status = self._parser.get_status_code()
        if status < 200:
            return  # 100 Continue and its like are between us and the peer.
        if self._head_bytes > self._max_header_bytes and self._header_block_size() > self._max_header_bytes:
            raise _headers_too_large(self._max_header_bytes)
        self._in_head = False
        self._bodyless_bytes = -self._packet_bytes
        if status in _NO_BODY_STATUSES:
            self._content_length = 0
        assert self._receiver is not None
        if self._decode is not None:
            status, self._headers = self._decode(status, self._headers)
        self._status = status
        self._receiver.response_started(status, self._headers, self._content_length)

    def on_body(self, data: bytes) -> None:
        """Hand on some body; the parser calls this."""
        self._bodyless_bytes = -self._packet_bytes
        if not self._is_complete and self._receiver is not None:
            self._receiver.response_body(data)

    def on_message_complete(self) -> None:
        """Note the end; the parser calls this."""
        if self._in_head:
            return  # the end of an informational answer
        if not self._is_complete:
            self._is_complete = True
            self._keep_alive = self._keep_alive and self._parser.should_keep_alive()

    @property
    def _is_body_until_close(self) -> bool:
        return not self._in_head and self._content_length is None and not self._is_chunked

    def _header_block_size(self) -> int:
        return sum(len(name) + len(value) + 4 for name, value in self._headers)

    def _finish(self, *, is_reusable: bool) -> None:
        receiver, self._receiver = self._receiver, None
        self._is_complete = False
        self._in_head = True
        if not is_reusable:
            self.close()
        elif self._is_paused:
            # Its reader was slow, and has all of it now; without this, what comes between two answers, or the end of
            # the connection, would only be seen when the next request is out.
            self.resume_reading()
        assert receiver is not None
        receiver.response_ended(is_reusable=is_reusable)

    def _fail(self, error: FaasError) -> None:
        receiver, self._receiver = self._receiver, None
        self.close()
        if receiver is not None:
            receiver.response_failed(error)


def _headers_too_large(limit: int) -> ResponseTooLargeError:
    return ResponseTooLargeError(f"function response header too large: the limit is {limit} bytes")


def _as_faas_error(error: httptools.HttpParserError, data: bytes) -> FaasError:
    """What a parser's error means; the parser wraps what its callbacks raise, so a receiver may raise, too."""
    cause = error.__context__
    if isinstance(cause, FaasError):
        return cause
    if cause is not None:
        logger.error("response_callback_failed", exc_info=cause)
        return InternalError()
    return ProtocolViolationError(f"invalid function response: {error}; it wrote {data[:_EXCERPT_BYTES]!r}")
