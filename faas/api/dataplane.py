"""The data plane: `/r/{app}/{path...}`, on the HTTP protocol itself.

uvicorn takes a protocol class. This one is its httptools protocol, with one difference: when the request line names a
path under `/r/`, the request is handled here, on the connection, by an `Exchange`; everything else becomes ASGI as
usual. One port, one parser; uvicorn's flow control, pipelining, keep-alive and shutdown are kept.

A warm call passes `data_received` (the parser) -> `Exchange.request_complete` -> `Agent.start` and is done; its answer
comes by callbacks of the container's connection. No task, no await, no copy of a body but the one out of the parser.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import logging
import socket
import struct
from typing import TYPE_CHECKING, Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from faas.api.error_answer import error_body, error_headers
from faas.api.exchange import Exchange
from faas.api.request_head import RepeatedRequest, RequestHead
from faas.errors import HeadersTooLargeError, InternalError, InvalidRequestError, RequestTimeoutError
from faas.tasks import TaskSet
from faas.wire.headers import canonical_name
from faas.wire.peer import has_hung_up

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from faas.errors import FaasError
    from faas.runner.functions import FunctionTable
    from faas.runner.supervisor import Supervisor

__all__ = ["DataPlane", "FaasProtocol"]

logger = logging.getLogger(__name__)

RUN_PREFIX = b"/r/"

LINGER_S = 2.0
"""How long the rest of a request is read and dropped after its answer, before the connection is closed."""

SWEEP_S = 1.0
"""How often clients that are slow, or gone, are looked for."""

_RESET = struct.pack("ii", 1, 0)
"""`SO_LINGER` on, for no time at all: closing sends a reset (socket(7))."""


class DataPlane:
    """What all connections share."""

    def __init__(
        self,
        table: FunctionTable,
        agent: Supervisor,
        admit: Callable[[Exchange], Coroutine[Any, Any, None]],
        *,
        max_header_bytes: int,
        max_request_bytes: int,
        max_buffered_request_bytes: int,
        max_response_bytes: int,
        request_read_timeout_s: float,
    ) -> None:
        self.table = table
        self.agent = agent
        self.admit = admit
        """Answers a request that does not go straight into a container."""
        self.max_header_bytes = max_header_bytes
        self.max_request_bytes = max_request_bytes
        self.max_buffered_request_bytes = max_buffered_request_bytes
        self.max_response_bytes = max_response_bytes
        self.request_read_timeout_s = request_read_timeout_s
        self.tasks = TaskSet("dataplane")
        self.connections: set[FaasProtocol] = set()
        self.now = asyncio.get_running_loop().time()
        """Loop time at the last sweep: exact enough for silent clients, and free of charge for each packet."""

    def protocol(self, **arguments: Any) -> FaasProtocol:
        """What uvicorn is given as its `http` protocol class."""
        return FaasProtocol(self, **arguments)

    async def sweep_forever(self) -> None:
        """Close connections whose client is gone, or whose request stopped arriving."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_S)
            self.now = loop.time()
            self._sweep()

    def _sweep(self) -> None:
        # Not in the loop that waits: its variable would keep the last connection until there is another one.
        for connection in list(self.connections):
            connection.close_if_gone()
            connection.close_if_stalled(self.now)


class FaasProtocol(HttpToolsProtocol):
    """One client's connection."""

    def __init__(self, plane: DataPlane, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.plane = plane
        self.url = b""
        self.scheme_bytes = b"http"
        self.answering: Exchange | None = None
        """The exchange whose turn it is, or was last; `cycle` is the newest request, which may have to wait."""
        self._is_serving_pipeline = False
        self._packet_bytes = 0
        self._lingering: asyncio.TimerHandle | None = None
        """Closes the connection; nothing that comes is looked at meanwhile."""
        self._head_bytes = 0
        self._bodyless_bytes = 0
        """What came behind the head since the latest packet with some of the body in it."""
        self._is_in_head = True
        self._is_between_requests = True
        self._requests_in_packet = 0
        self._repeated: RepeatedRequest | None = None
        """The latest request that the client may send once more."""
        self._last_data = 0.0
        self._unsent_bytes = 0
        """Of a connection that is closing, when it was looked at last."""
        self._default_headers: object = None
        self._default_head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self.scheme_bytes = (self.scheme or "http").encode()
        self.plane.connections.add(self)
        self._last_data = self.plane.now

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self.plane.connections.discard(self)
        if self._lingering is not None:
            self._lingering.cancel()  # it would keep all of this for a while
        super().connection_lost(exc)
        for cycle in (self.answering, *(waiting for waiting, _ in self.pipeline)):
            if isinstance(cycle, Exchange):
                cycle.client_gone()
        # The parser refers to this; without it the garbage collector, which comes seldom, need not come.
        del self.parser
        self.cycle = None  # type: ignore[assignment]  # as before the first request
        self.answering = None
        self.pipeline.clear()

    def data_received(self, data: bytes) -> None:
        """Parse what came; requests begin, go on and end in the parser's callbacks."""
        if self._lingering is not None:
            return
        self._last_data = self.plane.now
        begins, repeated = self._is_between_requests, self._repeated
        if begins and repeated is not None and len(data) == repeated.total and data.startswith(repeated.data):
            self._repeat(repeated, data)
            return
        self._requests_in_packet = 0
        self._packet_bytes = len(data)
        if self._is_in_head:
            self._head_bytes += len(data)
        if not self._parse(data):
            return
        exchange = self._exchange()
        if self._is_in_head:
            if self._head_bytes > self.plane.max_header_bytes:
                self._refuse_head()
        elif not self._is_between_requests:
            self._body_goes_on(exchange, len(data))
        elif begins and exchange is not None and self._requests_in_packet == 1:
            self._repeated = RepeatedRequest.of_packet(data, exchange.request_head, len(exchange.body))

    def _body_goes_on(self, exchange: Exchange | None, size: int) -> None:
        """A packet has ended in the middle of a body."""
        self._bodyless_bytes += size
        if self._bodyless_bytes > self.plane.max_header_bytes:
            self.cut()  # the parser would collect a trailer without end
        elif exchange is not None and not exchange.is_request_complete and self.is_turn_of(exchange):
            if not exchange.is_active:
                exchange.activate()
            exchange.progress()

    def _parse(self, data: bytes) -> bool:
        """Whether the connection goes on."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # nothing here switches protocols: the request was answered as it stands
        except httptools.HttpParserError as error:
            if error.__context__ is not None:
                self.callback_failed(error.__context__)
            else:
                self.send_400_response("Invalid HTTP request received")
            return False
        return True

    def callback_failed(self, error: BaseException) -> None:
        """One of the parser's callbacks raised, and the parser stopped there: a defect, and not the client's fault."""
        logger.error("request_failed", exc_info=error)
        if self.answering is not None and self.answering is self._exchange():
            self.answering.broke()
        else:
            self._refuse(InternalError())

    def _repeat(self, repeated: RepeatedRequest, data: bytes) -> None:
        """A whole request whose head is the one before, byte for byte: the parser need not see it."""
        if self.transport.is_closing():
            return
        exchange = Exchange(self, repeated.head)
        exchange.body = data[repeated.size :]
        self._begin(exchange)
        try:
            exchange.request_complete()
        except Exception:
            logger.exception("request_failed")
            exchange.broke()

    def _exchange(self) -> Exchange | None:
        """The newest request on the connection, when it is one of ours."""
        cycle: Any = self.cycle  # uvicorn knows of its own kind only
        return cycle if cycle.__class__ is Exchange else None

    def on_response_complete(self) -> None:
        """An answer is complete; the next request in line has its turn.

        uvicorn sets a timer here to close the connection when it stays idle; a timer for each answer costs more than
        looking at all connections once a second (`close_if_stalled`).
        """
        self.server_state.total_requests += 1
        self._last_data = self.plane.now  # the client's time to be silent begins here
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline and not self._is_serving_pipeline:
            self._serve_pipeline()

    def _serve_pipeline(self) -> None:
        """Begin what waits; a loop, since each may be answered at once and the client chooses how many there are."""
        self._is_serving_pipeline = True
        try:
            is_free = True
            while self.pipeline and is_free:
                cycle, app = self.pipeline.pop()
                self._start_asgi_task(cycle, app)
                is_free = cycle.response_complete and not self.transport.is_closing()
        finally:
            self._is_serving_pipeline = False

    def is_turn_of(self, exchange: Exchange) -> bool:
        """Whether the answers before this one are complete."""
        return not self.pipeline

    def close_lingering(self) -> None:
        """Close after an answer whose request is still arriving.

        Closing at once would make the kernel answer the rest with a reset, and a reset can overtake the answer
        (RFC 9112 section 9.6).
        """
        if self.transport.can_write_eof():
            with contextlib.suppress(OSError):  # the client is gone, which nothing has told yet
                self.transport.write_eof()
        self._lingering = self.loop.call_later(LINGER_S, self.transport.close)

    def cut(self) -> None:
        """Break off, in the middle of an answer maybe, so that nobody takes what came of it for the whole."""
        if self.answering is not None and self.answering.ends_with_connection and not self.transport.is_closing():
            # An orderly end of the connection would be the end of that answer; it must be a reset.
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    def default_head(self) -> bytes:
        """The headers that uvicorn gives every answer (`Date`); it makes a new list of them every second."""
        headers = self.server_state.default_headers
        if headers is not self._default_headers:
            self._default_headers = headers
            self._default_head = b"".join(b"%b: %b\r\n" % header for header in headers)
        return self._default_head

    def resume_body(self) -> None:
        """Read on, there is room for more of a body; what is behind it waits until it has been answered."""
        if self.flow.read_paused and not self.pipeline:
            self._last_data = self.plane.now  # the client's time to be silent begins here
            self.flow.resume_reading()

    def close_if_gone(self) -> None:
        """Close when the client has hung up while nothing is read from it, so that the event loop can't tell."""
        if self.flow.read_paused and not self.transport.is_closing() and has_hung_up(self.transport):
            self.cut()

    def close_if_stalled(self, now: float) -> None:
        """Close when the client is silent in the middle of a request, or too long between two (`now` is loop time)."""
        silent_s = now - self._last_data
        if self.transport.is_closing():
            self._abort_if_unread(now)
            return
        if silent_s < self.plane.request_read_timeout_s:
            return
        exchange = self._exchange()
        if self._is_in_head:
            if not self._head_bytes:
                self._close_if_idle(silent_s)
            else:
                self._refuse(RequestTimeoutError("The request's head did not arrive in time"))
        elif exchange is not None and not exchange.is_request_complete and not self.flow.read_paused:
            self.cut()
        else:
            self._close_if_idle(silent_s)

    def _abort_if_unread(self, now: float) -> None:
        """The last of an answer does not wait for ever for a client that takes none of it."""
        unsent = self.transport.get_write_buffer_size()
        if unsent != self._unsent_bytes:
            self._unsent_bytes, self._last_data = unsent, now
        elif now - self._last_data >= self.plane.request_read_timeout_s:
            self.transport.abort()

    def _close_if_idle(self, silent_s: float) -> None:
        cycle: Any = self.cycle
        if silent_s > self.timeout_keep_alive and (cycle is None or cycle.response_complete):
            self.transport.close()

    # --- the parser's callbacks

    def on_message_begin(self) -> None:
        """A request begins; uvicorn's scope is only made when it is needed."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._is_in_head = True
        self._is_between_requests = False
        self._requests_in_packet += 1

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; what comes behind a chunked body (trailers) is dropped."""
        if self._is_in_head:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is here: an exchange of ours, or ASGI."""
        self._is_in_head = False
        if self.transport.is_closing():
            return  # its answer could not be sent, so it must not run
        limit = self.plane.max_header_bytes
        if self._head_bytes + self._packet_bytes > limit and self._header_block_size() > limit:
            self._refuse_head()
            return
        self._head_bytes = 0
        self._bodyless_bytes = -self._packet_bytes
        if not self.url.startswith(RUN_PREFIX) and not self._is_absolute_run_url():
            self._begin_asgi()
            return
        is_http_1_1 = self.parser.get_http_version() != "1.0"
        head = RequestHead(
            self.scheme_bytes,
            self.parser.get_method(),
            self.url,
            self.headers,
            is_http_1_1=is_http_1_1,
            keep_alive=is_http_1_1 and self.parser.should_keep_alive(),
        )
        self._begin(Exchange(self, head))

    def _begin(self, exchange: Exchange) -> None:
        """It is its turn, or it waits for the answers before it."""
        previous, self.cycle = self.cycle, cast("RequestResponseCycle", exchange)
        if previous is not None and not previous.response_complete:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def on_body(self, body: bytes) -> None:
        """Some of a request's body."""
        self._bodyless_bytes = -self._packet_bytes
        cycle: Any = self.cycle
        if cycle.__class__ is Exchange:
            cycle.body_received(body)
        elif self.cycle is not None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is complete."""
        self._is_between_requests = True
        cycle: Any = self.cycle
        if cycle.__class__ is Exchange:
            cycle.request_complete()
        elif self.cycle is not None:
            super().on_message_complete()

    def _begin_asgi(self) -> None:
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url = url
        self.headers = headers
        self.scope["headers"] = headers
        self.expect_100_continue = any(
            name == b"expect" and value.lower() == b"100-continue" for name, value in headers
        )
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """The next one in the pipeline has its turn."""
        if cycle.__class__ is Exchange:
            cycle.take_turn()
        else:
            super()._start_asgi_task(cycle, app)

    def _is_absolute_run_url(self) -> bool:
        """A proxy's form of the request line, `GET http://host/r/...`; then `url` becomes the path of it."""
        if self.url[:4].lower() != b"http":
            return False
        try:
            parsed = httptools.parse_url(self.url)
        except httptools.HttpParserInvalidURLError:
            return False
        path = parsed.path or b"/"
        if not path.startswith(RUN_PREFIX):
            return False
        self.url = path + (b"?" + parsed.query if parsed.query else b"")
        return True

    def _header_block_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def send_400_response(self, msg: str) -> None:
        """The client does not speak HTTP; uvicorn calls this."""
        self._refuse(InvalidRequestError(msg))

    def _refuse_head(self) -> None:
        limit = self.plane.max_header_bytes
        self._refuse(
            HeadersTooLargeError(f"Request header block too large: the limit is {limit} bytes (max_header_bytes)")
        )

    def _refuse(self, error: FaasError) -> None:
        """Answer outside of any exchange, and close; only close when the client would take it for another's answer."""
        cycle: Any = self.cycle
        if cycle is not None and not cycle.response_complete:
            self.cut()
            return
        body = error_body(error)
        head = [b"HTTP/1.1 %d %b\r\n" % (error.http_status, http.client.responses[error.http_status].encode())]
        head.extend(b"%b: %b\r\n" % (canonical_name(name), value) for name, value in error_headers(error))
        head.append(b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
        self.transport.write(b"".join(head) + body)
        self.transport.close()

    # --- back-pressure of a client that reads slowly

    def pause_writing(self) -> None:
        """The client takes no more for now: nor does its function's answer."""
        super().pause_writing()
        if self.answering is not None:
            self.answering.pause_answer()

    def resume_writing(self) -> None:
        """The client takes more."""
        super().resume_writing()
        if self.answering is not None:
            self.answering.resume_answer()
