"""One request under `/r/` and its answer, on a client's connection.

    head parsed -> its turn on the connection -> matched, authorised -> sync: the agent runs it, this is its sink
                                                                    -> async: body read, accepted, 202
The answer's head is written together with the first of its body: a short answer leaves in one write, with a
`Content-Length` even when the function sent it in chunks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from faas.api.answer_head import call_head, encode_head
from faas.api.error_answer import error_body, error_headers
from faas.api.request_body import FEW_PIECES, STREAM_BYTES, RequestBody
from faas.auth import route_token
from faas.errors import (
    BodyTooLargeError,
    ClientGoneError,
    FaasError,
    InternalError,
    ResponseTooLargeError,
)
from faas.ids import new_id
from faas.models import FormatName
from faas.runner.invocation import Invocation

if TYPE_CHECKING:
    from collections.abc import Callable

    from faas.api.dataplane import DataPlane, FaasProtocol
    from faas.api.request_head import RequestHead
    from faas.runner.functions import Function
    from faas.runner.invocation import Sink
    from faas.wire.headers import Headers

__all__ = ["Exchange"]


class _Latch:
    """Stands where uvicorn's cycle has an `asyncio.Event` that nobody here waits for."""

    def set(self) -> None:
        """Nothing."""


_LATCH = _Latch()


class Exchange:
    """A request and its answer. Attributes without a leading underscore are what uvicorn's protocol expects."""

    # Most calls leave most of these as they are here: an attribute that is not set costs nothing.
    # What uvicorn's protocol looks at.
    response_complete = False
    disconnected = False
    more_body = True
    message_event = _LATCH
    # The request.
    body: bytes | bytearray = b""
    is_active = False
    is_request_complete = False
    _is_dispatched = False
    is_async = False
    _needs_admission = False
    _is_buffered = False
    _is_continued = False
    _stream: RequestBody | None = None
    _invocation: Invocation | None = None
    function: Function
    """Set when it is its turn."""
    on_client_gone: Callable[[], object] | None = None
    """Called when nobody waits for the answer any more."""
    # The answer.
    _head = b""
    _is_head_sent = False
    _is_chunked = False
    ends_with_connection = False
    """Whether the end of the connection is all that tells the caller the end of the answer."""
    _has_body = True
    _may_have_length = True
    _declared_length: int | None = None
    _out_bytes = 0
    _sent_bytes = 0

    def __init__(self, protocol: FaasProtocol, head: RequestHead) -> None:
        self._protocol = protocol
        self._plane: DataPlane = protocol.plane
        self.request_head = head
        self.keep_alive = head.keep_alive
        self._out: list[bytes] = []

    # --- the request arrives

    def body_received(self, data: bytes) -> None:
        """Some of the body; the protocol calls this."""
        if self.response_complete:
            return
        if self._stream is not None:
            self._stream.feed(data)
        elif not self.body:
            self.body = data
        elif isinstance(self.body, bytearray):
            self.body += data
        else:
            self.body = bytearray(self.body + data)
        if self.is_active and not self.response_complete:
            self._check_size()

    def request_complete(self) -> None:
        """All of it is here; the protocol calls this."""
        self.is_request_complete = True
        self.more_body = False
        if self._stream is not None:
            self._stream.end()
        if not self._protocol.is_turn_of(self):
            return
        if not self.is_active:
            self.activate()
        if not (self.response_complete or self._is_dispatched):
            self._dispatch()

    def take_turn(self) -> None:
        """The answer before this one is complete."""
        self.activate()
        if not self.is_request_complete:
            self.progress()
        elif not self.response_complete:
            self._dispatch()

    def activate(self) -> None:
        """Match and authorise, refuse what can't be: as soon as the head is here, when the body is not."""
        self.is_active = True
        self._protocol.answering = self
        plane, request = self._plane, self.request_head
        try:
            function = self.function = plane.table.match(request.path)
            if function.jwt_key:
                route_token.check(request.fields.get(b"authorization"), function.jwt_key)
            if function.is_async or (b"prefer" in request.fields and request.wants_async):
                self.is_async = self._needs_admission = self._is_buffered = True
            elif b"idempotency-key" in request.fields:
                self._needs_admission = self._is_buffered = True
            elif request.content_length is None and function.format is FormatName.HTTP:
                # Its functions know Content-Length only; what they don't read, they take for the next call.
                self._is_buffered = True
            self._check_limit(request.content_length or len(self.body))
        except FaasError as error:
            self.refuse(error)

    def progress(self) -> None:
        """A part of the request is here and more is to come: go on as far as that allows."""
        if self.response_complete or self._is_dispatched:
            return
        request = self.request_head
        if request.is_http_1_1 and request.expects_continue and not self._is_continued:
            self._is_continued = True
            self._protocol.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self._is_buffered and (request.content_length is None or request.content_length > STREAM_BYTES):
            self._stream = RequestBody(self._protocol)
            self._dispatch()

    def client_gone(self) -> None:
        """The connection is lost; the protocol calls this."""
        self.disconnected = True
        if self.on_client_gone is not None:
            self.on_client_gone()
        if self._invocation is not None and not self.response_complete:
            if self._needs_admission:
                self.resume_answer()  # its answer is kept for who repeats the request: nobody waits for this client
            else:
                self._plane.agent.stop(self._invocation, ClientGoneError("the client hung up before the answer"))

    def broke(self) -> None:
        """Handling it raised what nobody expected."""
        if self._invocation is None and not self.response_complete:
            self.refuse(InternalError())
        else:
            self._protocol.cut()

    def pause_answer(self) -> None:
        """The client takes no more for now."""
        if self._invocation is not None and self._invocation.runner is not None:
            self._invocation.runner.pause_answer()

    def resume_answer(self) -> None:
        """The client takes more."""
        if self._invocation is not None and self._invocation.runner is not None:
            self._invocation.runner.resume_answer()

    def _check_size(self) -> None:
        size = self._stream.total if self._stream is not None else len(self.body)
        try:
            self._check_limit(size)
        except FaasError as error:
            if self._invocation is not None:
                self._plane.agent.stop(self._invocation, error)
            else:
                self.refuse(error)

    def _check_limit(self, size: int) -> None:
        name = "max_buffered_request_bytes" if self._is_buffered else "max_request_bytes"
        limit = self._plane.max_buffered_request_bytes if self._is_buffered else self._plane.max_request_bytes
        if limit and size > limit:
            raise BodyTooLargeError(f"Request body too large: the limit is {limit} bytes ({name})")

    # --- what becomes of it

    def _dispatch(self) -> None:
        self._is_dispatched = True
        if self._needs_admission:
            self._plane.tasks.spawn(self._plane.admit(self), name="admit")
        else:
            self.run(new_id(), self)

    def run(self, call_id: str, sink: Sink) -> Invocation:
        """Run the call here and now; the answer goes to `sink`, which is this exchange or hands it on to it."""
        request = self.request_head
        self._invocation = Invocation(
            call_id,
            self.function,
            sink,
            method=request.method,
            url=request.url,
            headers=request.headers,
            body=bytes(self.body),
            stream=self._stream,
            content_length=request.content_length,
            memo=request.memo,
        )
        self._plane.agent.start(self._invocation)
        return self._invocation

    def refuse(self, error: FaasError) -> None:
        """Answer with an error before anything ran."""
        call_id = new_id()
        extra = b"X-Call-Id: %b\r\nFaas-Error: %b\r\n" % (call_id.encode(), error.code.encode())
        self.respond(error.http_status, error_headers(error), error_body(error, call_id), extra)

    def respond(self, status: int, headers: Headers, body: bytes, extra: bytes) -> None:
        """Answer with all of it at once; `extra` has lines that only this node may write."""
        if not self.is_request_complete:
            self.keep_alive = False
        self._begin_head(status, headers, extra)
        self._out = [body] if self._has_body else []
        self._out_bytes = len(body)
        self._end()

    # --- Sink: the answer

    def start(self, invocation: Invocation, status: int, headers: Headers, content_length: int | None) -> None:
        """The answer's head, from the function."""
        self._declared_length = content_length
        limit = self._plane.max_response_bytes
        if limit and content_length is not None and content_length > limit:
            raise ResponseTooLargeError(f"function response body too large: the limit is {limit} bytes")
        self._begin_head(status, invocation.function.add_headers(headers), call_head(invocation))

    def write(self, data: bytes) -> None:
        """Some of the answer's body."""
        self._out_bytes += len(data)
        if not self._has_body:
            return
        self._out.append(data)
        limit = self._plane.max_response_bytes
        if limit and self._sent_bytes + self._out_bytes > limit:
            raise ResponseTooLargeError(f"function response body too large: the limit is {limit} bytes")

    def flush(self) -> None:
        """Send what is at hand; more will come."""
        if self.disconnected or not self._may_have_length:
            self._out.clear()
            return
        parts = self._take()
        if parts:
            self._protocol.transport.writelines(parts)
            if self._protocol.flow.write_paused:
                self.pause_answer()  # an earlier answer on the connection may have filled the buffer already

    def _take(self) -> list[bytes]:
        """What is at hand, ready to be sent: the head, when it is its time, and the body's bytes as they came."""
        parts = []
        if not self._is_head_sent:
            self._is_head_sent = True
            parts.append(self._head + self._framing())
        if self._out:
            self._sent_bytes += self._out_bytes
            if self._is_chunked:
                parts.append(b"%x\r\n" % self._out_bytes)
            parts.extend(self._out if len(self._out) <= FEW_PIECES else (b"".join(self._out),))
            if self._is_chunked:
                parts.append(b"\r\n")
            self._out.clear()
            self._out_bytes = 0
        return parts

    def _framing(self) -> bytes:
        """The last headers of a head that is sent before all of the body is here: how the caller will know its end."""
        if self._declared_length is not None:
            framing = b"Content-Length: %d\r\n" % self._declared_length
        elif self.request_head.is_http_1_1:
            self._is_chunked = self._has_body
            framing = b"Transfer-Encoding: chunked\r\n"
        else:
            self.keep_alive = False
            self.ends_with_connection = self._has_body
            framing = b""
        return framing + (b"\r\n" if self.keep_alive else b"Connection: close\r\n\r\n")

    async def drain(self) -> None:
        """Wait until the client has taken most of it."""
        await self._protocol.flow.drain()

    def finish(self, invocation: Invocation) -> None:
        """The answer is complete."""
        if not self.is_request_complete:
            # What is still to come of the request belongs to nobody.
            self.keep_alive = False
        self._end()

    def fail(self, invocation: Invocation, error: FaasError) -> None:
        """There is no complete answer."""
        if self._is_head_sent:
            # The caller was promised more; cutting the connection is the only way left to say that it won't come.
            self.response_complete = True
            self._protocol.cut()
            return
        self._declared_length = None
        headers = error_headers(error)
        if invocation.running_since:
            extra = invocation.function.response_headers
            headers += [header for header in extra if header[0] != b"content-type"]  # the body is ours
        ours = call_head(invocation) + b"Faas-Error: %b\r\n" % error.code.encode()
        self.respond(error.http_status, headers, error_body(error, invocation.id), ours)

    def _begin_head(self, status: int, headers: Headers, extra: bytes) -> None:
        # RFC 9110 section 6.4.1: these have no body, and HEAD's has a length but is not sent.
        self._may_have_length = status not in (204, 304)
        self._has_body = self._may_have_length and self.request_head.method != b"HEAD"
        self._head = encode_head(status, headers, self._protocol.default_head(), extra)

    def _end(self) -> None:
        if self.disconnected:
            self.response_complete = True
            return
        transport = self._protocol.transport
        if self._is_head_sent:
            parts = self._take()
            if self._is_chunked:
                parts.append(b"0\r\n\r\n")
            if parts:
                transport.writelines(parts)
        else:
            head = self._head
            if self._may_have_length:
                length = self._out_bytes if self._declared_length is None else self._declared_length
                head += b"Content-Length: %d\r\n" % length
            if not self.keep_alive:
                head += b"Connection: close\r\n"
            transport.write(b"%b\r\n%b" % (head, b"".join(self._out)))
        self.response_complete = True
        if not self.keep_alive:
            if self.is_request_complete:
                transport.close()
            else:
                self._protocol.close_lingering()
        self._protocol.on_response_complete()
