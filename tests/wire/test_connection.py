"""One HTTP/1.1 client connection: whatever a peer may write, in whatever pieces."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from faas.errors import FaasError, ProtocolViolationError, ResponseTooLargeError
from faas.wire import connection as connection_module
from faas.wire.connection import HttpConnection
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from faas.wire.headers import Headers

LIMIT = 500
REQUEST = b"GET / HTTP/1.1\r\n\r\n"
SMALL = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self, connection: HttpConnection) -> None:
        super().__init__()
        self.connection = connection
        self.written = bytearray()
        self.is_closed = False
        self.is_reading = True
        connection.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.is_closed

    def abort(self) -> None:
        self.is_closed = True

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def lose(self, error: Exception | None = None) -> None:
        """The peer hangs up."""
        if error is None:
            self.connection.eof_received()
        self.is_closed = True
        self.connection.connection_lost(error)


@dataclass
class Reader:
    """A receiver that keeps all it gets and checks the order."""

    status: int = 0
    headers: Headers = field(default_factory=list)
    content_length: int | None = None
    body: bytearray = field(default_factory=bytearray)
    flushes: int = 0
    end: str = ""
    error: FaasError | None = None
    on_start: Callable[[], None] = lambda: None
    on_body: Callable[[], None] = lambda: None

    def response_started(self, status: int, headers: Headers, content_length: int | None) -> None:
        assert (self.status, self.end) == (0, "")
        self.status, self.headers, self.content_length = status, headers, content_length
        self.on_start()

    def response_body(self, data: bytes) -> None:
        assert self.status
        assert not self.end
        self.body += data
        self.on_body()

    def response_flush(self) -> None:
        assert self.status
        assert not self.end
        self.flushes += 1

    def response_ended(self, *, is_reusable: bool) -> None:
        assert not self.end
        self.end = "reusable" if is_reusable else "used up"

    def response_failed(self, error: FaasError) -> None:
        assert not self.end
        self.end, self.error = "failed", error

    @property
    def summary(self) -> tuple[int, bytes, str]:
        return self.status, bytes(self.body), self.end


@pytest.fixture
def connection() -> HttpConnection:
    return HttpConnection(max_header_bytes=LIMIT)


@pytest.fixture
def wire(connection: HttpConnection) -> Wire:
    return Wire(connection)


def asked(wire: Wire, *pieces: bytes, **options: object) -> Reader:
    """Send a request, get these bytes."""
    reader = Reader(**options)  # type: ignore[arg-type]
    wire.connection.send(reader, REQUEST)
    for piece in pieces:
        wire.connection.data_received(piece)
    return reader


# --- framing

ANSWERS = {
    "a length": (SMALL, (200, b"hello", "reusable")),
    "length zero": (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", (404, b"", "reusable")),
    "chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n7;ext=1\r\n, world\r\n0\r\n\r\n",
        (200, b"hello, world", "reusable"),
    ),
    "chunks and a trailer": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
        (200, b"hello", "reusable"),
    ),
    "no body by its status": (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"", "reusable")),
    "a length that its status denies": (
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        (304, b"", "reusable"),
    ),
    "informational ones first": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + SMALL,
        (200, b"hello", "reusable"),
    ),
    "its last": (
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        (200, b"hello", "used up"),
    ),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", (200, b"hello", "used up")),
    "HTTP/1.0 kept alive": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
        (200, b"hello", "reusable"),
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_may_be_cut_anywhere(name: str) -> None:
    data, expected = ANSWERS[name]
    for cut in range(1, len(data)):
        wire = Wire(HttpConnection(max_header_bytes=LIMIT))
        reader = asked(wire, data[:cut], data[cut:])
        assert reader.summary == expected, cut
        assert wire.connection.is_usable == (expected[2] == "reusable")


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_may_come_byte_by_byte(name: str, wire: Wire) -> None:
    data, expected = ANSWERS[name]
    assert asked(wire, *(data[at : at + 1] for at in range(len(data)))).summary == expected


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_that_breaks_off_fails(name: str) -> None:
    data, _ = ANSWERS[name]
    for cut in range(len(data)):
        wire = Wire(HttpConnection(max_header_bytes=LIMIT))
        reader = asked(wire, *([data[:cut]] if cut else []))
        wire.lose()
        assert reader.end == "failed"
        assert isinstance(reader.error, ProtocolViolationError)


def test_a_body_may_last_until_the_peer_hangs_up(wire: Wire) -> None:
    reader = asked(wire, b"HTTP/1.1 200 OK\r\n\r\nhello", b", world")
    assert reader.end == ""
    wire.lose()
    assert reader.summary == (200, b"hello, world", "used up")
    assert reader.content_length is None


def test_a_body_until_the_end_fails_when_the_peer_is_dying(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "is_dying", lambda _transport: True)
    reader = asked(wire, b"HTTP/1.1 200 OK\r\n\r\nhello")
    wire.lose()
    assert reader.end == "failed"


def test_a_body_until_the_end_that_ends_in_an_error_fails(wire: Wire) -> None:
    reader = asked(wire, b"HTTP/1.1 200 OK\r\n\r\nhello")
    wire.lose(ConnectionResetError())
    assert reader.end == "failed"


def test_headers_come_as_they_were_written_and_the_length_beside_them(wire: Wire) -> None:
    reader = asked(wire, b"HTTP/1.1 200 OK\r\nX-A: 1\r\nx-a:  2\r\ncontent-LENGTH: 5\r\n\r\nhello")
    assert reader.headers == [(b"X-A", b"1"), (b"x-a", b"2"), (b"content-LENGTH", b"5")]
    assert reader.content_length == 5


def test_what_is_at_hand_is_flushed_while_more_is_to_come(wire: Wire) -> None:
    reader = asked(wire, SMALL[:-3])
    assert (reader.body, reader.flushes) == (b"he", 1)
    wire.connection.data_received(SMALL[-3:])
    assert (reader.summary, reader.flushes) == ((200, b"hello", "reusable"), 1)


def test_decode_makes_the_head_that_the_receiver_gets() -> None:
    connection = HttpConnection(max_header_bytes=LIMIT, decode=lambda status, headers: (status + 1, headers[:1]))
    reader = asked(Wire(connection), SMALL.replace(b"\r\n", b"\r\nX-A: 1\r\n", 1))
    assert (reader.status, reader.headers, reader.content_length) == (201, [(b"X-A", b"1")], 5)


# --- one answer after another


def test_a_connection_carries_one_answer_after_the_other(wire: Wire) -> None:
    for number in range(5):
        body = b"x" * number
        reader = asked(wire, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (number, body))
        assert reader.summary == (200, body, "reusable")
    assert wire.written == REQUEST * 5


@pytest.mark.parametrize("name", ["a length", "chunks", "no body by its status"])
def test_a_second_answer_glued_to_the_first_uses_the_connection_up(wire: Wire, name: str) -> None:
    data, (status, body, _) = ANSWERS[name]
    reader = asked(wire, data + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen")
    assert reader.summary == (status, body, "used up")
    assert wire.is_closed
    assert not wire.connection.is_usable


def test_the_beginning_of_a_second_answer_uses_the_connection_up_too(wire: Wire) -> None:
    assert asked(wire, SMALL + b"HT").end in ("used up", "failed")
    assert wire.is_closed


def test_a_body_longer_than_declared_reaches_nobody_else(wire: Wire) -> None:
    reader = asked(wire, SMALL + b", and more")
    assert bytes(reader.body) == b"hello"
    assert reader.end in ("used up", "failed")
    assert wire.is_closed


def test_bytes_that_nobody_asked_for_close_the_connection(wire: Wire) -> None:
    assert asked(wire, SMALL).end == "reusable"
    wire.connection.data_received(SMALL)
    assert wire.is_closed
    assert not wire.connection.is_usable


def test_bytes_before_the_first_request_close_the_connection(wire: Wire) -> None:
    wire.connection.data_received(b"H")
    assert not wire.connection.is_usable


def test_a_connection_lost_between_calls_is_not_usable(wire: Wire) -> None:
    asked(wire, SMALL)
    wire.lose()
    assert not wire.connection.is_usable
    wire.connection.close()
    wire.connection.write(b"nothing happens")


# --- what is wrong


@pytest.mark.parametrize(
    "data",
    [
        b"hello, world\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nX A: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: \x00\r\n\r\n",
        b"\x00" * 100,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ],
)
def test_what_is_not_http_fails_the_answer_and_closes(wire: Wire, data: bytes) -> None:
    reader = asked(wire, data)
    assert reader.end == "failed"
    assert isinstance(reader.error, ProtocolViolationError)
    assert len(reader.error.message) < 1000
    assert wire.is_closed
    wire.lose()


BIG_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n" + b"X-Big: %b\r\n" % (b"x" * 80) * 6 + b"\r\nhello"


def test_a_header_block_over_the_limit_fails_in_one_packet(wire: Wire) -> None:
    reader = asked(wire, BIG_HEAD)
    assert reader.status == 0
    assert isinstance(reader.error, ResponseTooLargeError)


@pytest.mark.parametrize("size", [1, 7, 100])
def test_a_header_block_over_the_limit_fails_when_it_trickles(wire: Wire, size: int) -> None:
    reader = Reader()
    wire.connection.send(reader, REQUEST)
    fed = 0
    while not reader.end:
        wire.connection.data_received(BIG_HEAD[fed : fed + size])
        fed += size
    assert isinstance(reader.error, ResponseTooLargeError)
    assert fed <= LIMIT + 2 * size


def test_a_header_that_never_ends_is_not_collected(wire: Wire) -> None:
    reader = asked(wire, b"HTTP/1.1 200 OK\r\nX-Endless: ", b"x" * 300, b"x" * 300)
    assert isinstance(reader.error, ResponseTooLargeError)


def test_what_comes_behind_the_body_does_not_become_a_header(wire: Wire) -> None:
    late = CHUNKED[:-2] + b"X-Late: 1\r\nFn-Http-Status: 500\r\n\r\n"
    for pieces in ([late], [late[:60], late[60:]]):
        reader = asked(wire, *pieces)
        assert reader.summary == (200, b"hello", "reusable")
        assert reader.headers == [(b"Transfer-Encoding", b"chunked")]


def test_a_trailer_that_never_ends_is_not_collected(wire: Wire) -> None:
    reader = asked(wire, CHUNKED[:-2] + b"X-Long: ", *[b"x" * 50] * 20)
    assert isinstance(reader.error, ResponseTooLargeError)
    assert wire.is_closed


def test_chunks_may_go_on_for_longer_than_a_trailer(wire: Wire) -> None:
    reader = asked(wire, CHUNKED[:-5], *[b"5\r\nhello\r\n"] * 200, CHUNKED[-5:])
    assert reader.summary == (200, b"hello" * 201, "reusable")


def test_a_long_body_in_the_packet_of_its_head_is_not_the_heads(wire: Wire) -> None:
    body = b"x" * 10_000
    for _ in range(2):
        reader = asked(wire, b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n" + body)
        assert reader.summary == (200, body, "reusable")


@pytest.mark.parametrize("where", ["on_start", "on_body"])
@pytest.mark.parametrize("is_in_parts", [False, True])
def test_a_receiver_may_refuse_the_answer(wire: Wire, where: str, is_in_parts: bool) -> None:
    refusal = ResponseTooLargeError("not that much")

    def refuse() -> None:
        raise refusal

    pieces = (SMALL[:-5], SMALL[-5:]) if is_in_parts else (SMALL,)
    reader = asked(wire, *pieces, **{where: refuse}) if where == "on_body" or not is_in_parts else None
    if reader is None:
        reader = asked(wire, SMALL[:-5], on_start=refuse)
    assert reader.error is refusal
    assert wire.is_closed
    wire.lose()


def test_a_defect_of_the_receiver_is_logged_and_told_as_ours(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    reader = asked(wire, SMALL, on_body=fail)
    assert reader.error is not None
    assert reader.error.code == "internal"
    assert "response_callback_failed" in caplog.text


def test_closing_fails_the_answer_under_way(wire: Wire) -> None:
    reader = asked(wire, SMALL[:-3])
    wire.connection.close()
    assert wire.is_closed
    wire.lose()
    assert reader.end == "failed"


# --- flow control


def test_reading_is_paused_and_resumed(wire: Wire) -> None:
    reader = asked(wire, SMALL[:-3])
    wire.connection.pause_reading()
    assert not wire.is_reading
    wire.connection.resume_reading()
    assert wire.is_reading
    wire.connection.data_received(SMALL[-3:])
    assert reader.end == "reusable"


def test_reading_goes_on_when_an_answer_ended_while_it_was_paused(wire: Wire) -> None:
    # Its receiver is gone by then and will not resume it: bytes that nobody asked for must be seen, and the end, too.
    reader = asked(wire, SMALL[:-3])
    wire.connection.pause_reading()
    wire.connection.data_received(SMALL[-3:])
    assert reader.end == "reusable"
    assert wire.is_reading
    wire.connection.data_received(b"H")
    assert not wire.connection.is_usable


async def test_drain_waits_until_the_peer_has_read(connection: HttpConnection, wire: Wire) -> None:
    await connection.drain()
    connection.pause_writing()
    draining = [asyncio.create_task(connection.drain()) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in draining)
    draining[0].cancel()
    await asyncio.sleep(0)
    connection.resume_writing()
    await draining[1]
    assert draining[0].cancelled()


async def test_drain_returns_when_the_connection_is_lost(connection: HttpConnection, wire: Wire) -> None:
    connection.pause_writing()
    draining = asyncio.create_task(connection.drain())
    await asyncio.sleep(0)
    wire.lose()
    await draining


# --- on real sockets


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    yield ours, theirs
    theirs.close()
    ours.close()


@pytest.mark.both_loops
async def test_a_real_peer_answers_and_hangs_up(
    connection: HttpConnection, ends: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = ends
    loop = asyncio.get_running_loop()
    await loop.create_unix_connection(lambda: connection, sock=ours)
    reader = Reader()
    connection.send(reader, REQUEST)
    assert await loop.sock_recv(theirs, 1000) == REQUEST
    await loop.sock_sendall(theirs, SMALL)
    await wait_until(lambda: reader.end)
    assert reader.summary == (200, b"hello", "reusable")
    theirs.close()
    await wait_until(lambda: not connection.is_usable)


@pytest.mark.both_loops
@pytest.mark.parametrize("is_talking", [True, False])
async def test_what_a_peer_did_between_two_answers_is_known_before_the_event_loop_tells(
    connection: HttpConnection, ends: tuple[socket.socket, socket.socket], is_talking: bool
) -> None:
    ours, theirs = ends
    await asyncio.get_running_loop().create_unix_connection(lambda: connection, sock=ours)
    assert connection.is_usable
    if is_talking:
        theirs.send(SMALL)  # nobody asked; the next request's answer it is not
    else:
        theirs.close()
    assert not connection.is_usable


@pytest.mark.both_loops
async def test_a_real_peer_that_does_not_read_makes_drain_wait(
    connection: HttpConnection, ends: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = ends
    loop = asyncio.get_running_loop()
    await loop.create_unix_connection(lambda: connection, sock=ours)
    reader = Reader()
    connection.send(reader, b"x" * 2_000_000)
    await asyncio.sleep(0.01)
    draining = asyncio.create_task(connection.drain())
    await asyncio.sleep(0.01)
    assert not draining.done()
    while not draining.done():
        await asyncio.wait_for(loop.sock_recv(theirs, 1_000_000), 5)
        await asyncio.sleep(0)
    await draining
    connection.close()
    await wait_until(lambda: reader.end)
    assert reader.end == "failed"


# --- heads that were seen before


class Answers:
    """A connection that asks again and again, and notes what its parser was given."""

    def __init__(self) -> None:
        self.decoded: list[int] = []
        self.connection = HttpConnection(max_header_bytes=LIMIT, decode=self._decode)
        self.wire = Wire(self.connection)

    def _decode(self, status: int, headers: Headers) -> tuple[int, Headers]:
        self.decoded.append(status)
        return status, headers

    def ask(self, *packets: bytes) -> Reader:
        reader = Reader()
        self.connection.send(reader, REQUEST)
        for packet in packets:
            self.connection.data_received(packet)
        return reader


@pytest.mark.parametrize(
    "packet",
    [SMALL, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\nEtag: x\r\n\r\n"],
)
def test_a_head_that_was_seen_before_is_answered_as_it_was_the_first_time(packet: bytes) -> None:
    answers = Answers()
    first, second, third = (answers.ask(packet) for _ in range(3))
    assert first.summary == second.summary == third.summary
    assert first.headers == second.headers
    assert first.end == "reusable"
    assert len(answers.decoded) == 1


@pytest.mark.parametrize(
    "packets",
    [
        [SMALL[:20], SMALL[20:]],  # in pieces
        [SMALL[:-5], SMALL[-5:]],
        [SMALL[:-1], SMALL[-1:]],
        [SMALL.replace(b"hello", b"hello!")],  # more than it declares
        [SMALL + SMALL],
        [b"HTTP/1.1 100 Continue\r\n\r\n" + SMALL],
        [SMALL.replace(b"200 OK", b"201 OK")],
        [SMALL.replace(b"OK", b"OK\r\nConnection: close")],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"],
        [b"garbage"],
    ],
)
def test_what_only_resembles_a_known_head_is_parsed(packets: list[bytes]) -> None:
    fresh, answers = Answers(), Answers()
    answers.ask(SMALL)
    known, unknown = answers.ask(*packets), fresh.ask(*packets)
    assert (known.summary, known.headers, str(known.error)) == (unknown.summary, unknown.headers, str(unknown.error))


def test_what_is_remembered_of_heads_has_an_end() -> None:
    answers = Answers()
    for number in range(1000):
        answers.ask(b"HTTP/1.1 200 OK\r\nEtag: %d\r\nContent-Length: 0\r\n\r\n" % number)
    assert len(answers.connection._known_heads) <= 256


def test_a_receiver_that_refuses_a_known_head_ends_the_connection() -> None:
    def refuse() -> None:
        raise ResponseTooLargeError("too large")

    answers = Answers()
    answers.ask(SMALL)
    refusing = Reader(on_start=refuse)
    answers.connection.send(refusing, REQUEST)
    answers.connection.data_received(SMALL)
    assert isinstance(refusing.error, ResponseTooLargeError)
    assert answers.wire.is_closed
