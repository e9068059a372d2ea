"""One HTTP exchange that sends and receives at the same time.

A function may answer while it still reads, `cat` does. A client that sends its whole body before it reads anything
would wait for ever on a body larger than the buffers in between, so this one speaks through `faas.wire`.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from faas.cli.errors import ClientError, UnreachableError
from faas.tasks import TaskSet
from faas.wire.connection import HttpConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from faas.cli.answers import AnswerPrinter
    from faas.cli.bodies import Body
    from faas.errors import FaasError
    from faas.wire.headers import Headers

__all__ = ["Exchange", "run"]

CONNECT_TIMEOUT_S = 10.0
MAX_HEADER_BYTES = 1024 * 1024
CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """What to send where."""

    url: str
    method: str
    headers: list[tuple[str, str]]
    body: Body | None
    is_verifying_tls: bool = True


def run(exchange: Exchange, printer: AnswerPrinter) -> None:
    """Send the request, hand the answer to the printer (all but its `end`). Raises `ClientError`."""
    asyncio.run(_run(exchange, printer))


async def _run(exchange: Exchange, printer: AnswerPrinter) -> None:
    connection = await _connect(exchange)
    receiver = _Receiver(exchange, printer, connection)
    try:
        connection.send(receiver, _head(exchange))
        async with TaskSet("call") as tasks:
            if exchange.body is not None:
                tasks.spawn(_send(exchange.body, connection, receiver), name="body")
            await receiver.done
    finally:
        connection.close()


async def _connect(exchange: Exchange) -> HttpConnection:
    url = urlsplit(exchange.url)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ClientError(f"'{exchange.url}' is no URL of a server", code="bad_url")
    context = None
    if url.scheme == "https":
        context = ssl.create_default_context()
        if not exchange.is_verifying_tls:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: HttpConnection(max_header_bytes=MAX_HEADER_BYTES),
                url.hostname,
                url.port or (443 if context else 80),
                ssl=context,
            )
    except TimeoutError:
        raise UnreachableError(_origin(exchange), "no answer in time") from None
    except OSError as error:
        is_plain = error.errno is not None and not isinstance(error, ssl.SSLError)
        cause = os.strerror(error.errno) if is_plain and error.errno and error.errno > 0 else str(error)
        raise UnreachableError(_origin(exchange), cause) from error
    return connection


def _head(exchange: Exchange) -> bytes:
    url = urlsplit(exchange.url)
    given = {name.lower() for name, _ in exchange.headers}
    headers = [("Host", url.netloc.rpartition("@")[2]), ("Accept", "*/*")]
    headers = [(name, value) for name, value in headers if name.lower() not in given] + exchange.headers
    headers.append(("Connection", "close"))
    if exchange.body is not None:
        length = exchange.body.length
        headers.append(("Transfer-Encoding", "chunked") if length is None else ("Content-Length", str(length)))
    target = url.path + (f"?{url.query}" if url.query else "")
    lines = [f"{exchange.method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


async def _send(body: Body, connection: HttpConnection, receiver: _Receiver) -> None:
    is_chunked = body.length is None
    try:
        data = body.first
        while data:
            connection.write(b"%x\r\n%b\r\n" % (len(data), data) if is_chunked else data)
            await connection.drain()
            data = await _read(body.read, CHUNK_BYTES) if body.read is not None else b""
        if is_chunked:
            connection.write(b"0\r\n\r\n")
    except OSError as error:
        receiver.fail(ClientError(f"Can't read the data to send: {error}", code="bad_data"))


async def _read(read: Callable[[int], bytes], size: int) -> bytes:
    """Read in a daemon thread: an executor's would keep the command alive until its standard input ends."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[bytes] = loop.create_future()

    def settle(data: bytes, error: OSError | None) -> None:
        if result.done():
            return
        if error is not None:
            result.set_exception(error)
        else:
            result.set_result(data)

    def work() -> None:
        data, failure = b"", None
        try:
            data = read(size)
        except OSError as error:
            failure = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, data, failure)

    threading.Thread(target=work, name="read-body", daemon=True).start()
    return await result


class _Receiver:
    """Hands the answer to the printer; `done` ends with it."""

    def __init__(self, exchange: Exchange, printer: AnswerPrinter, connection: HttpConnection) -> None:
        self._exchange = exchange
        self._printer = printer
        self._connection = connection
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def response_started(self, status: int, headers: Headers, content_length: int | None) -> None:
        """Print the head; an answer to HEAD ends here, whatever length it declares."""
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        self._guarded(lambda: self._printer.start(status, pairs))
        if self._exchange.method == "HEAD":
            self._settle(None)

    def response_body(self, data: bytes) -> None:
        """Print some of the body."""
        if not self.done.done():
            self._guarded(lambda: self._printer.write(data))

    def response_flush(self) -> None:
        """Nothing is held back here."""

    def response_ended(self, *, is_reusable: bool) -> None:
        """The answer is complete."""
        self._settle(None)

    def response_failed(self, error: FaasError) -> None:
        """The connection broke off, or the peer does not speak HTTP."""
        cause = f"the connection broke off before the answer was complete ({error.message})"
        self._settle(UnreachableError(_origin(self._exchange), cause))

    def fail(self, error: Exception) -> None:
        """End the exchange for a reason on this side."""
        self._settle(error)

    def _guarded(self, step: Callable[[], None]) -> None:
        """Standard output may be closed (`| head`); the parser must not see that."""
        try:
            step()
        except OSError as error:
            self._settle(error)

    def _settle(self, error: Exception | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


def _origin(exchange: Exchange) -> str:
    url = urlsplit(exchange.url)
    return f"{url.scheme}://{url.netloc}"
