"""No piece that goes to the parser has bytes of two requests."""

from __future__ import annotations

import random

import httptools
import pytest

from faas.processes.cutting import RequestCutter

PLAIN = b"GET /r/a/b HTTP/1.1\r\nHost: x\r\n\r\n"
SIZED = b"POST /r/a/b HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\nab\r\n\r\ncd\r\n\r\n"
CHUNKED = (
    b"POST /r/a/b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"8\r\n\r\n\r\nabcd\r\n4\r\n\r\n\r\n\r\n0\r\nTrailer: x\r\n\r\n"
)
BARE_CHUNKED = b"POST /r/a/b HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
EMPTY = b"POST /r/a/b HTTP/1.1\r\ncontent-length:0\r\n\r\n"
KINDS = (PLAIN, SIZED, CHUNKED, BARE_CHUNKED, EMPTY)


class Connection:
    """A parser behind a cutter, as in a satellite; keeps the bytes that went to the parser for each request."""

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.cutter = RequestCutter()
        self.is_between = True
        self.requests: list[bytes] = []
        self.begun: list[bytes] = []

    def on_message_begin(self) -> None:
        self.is_between = False

    def on_headers_complete(self) -> None:
        self.begun.append(self.cutter.begun)

    def on_message_complete(self) -> None:
        self.is_between = True

    def receive(self, data: bytes) -> None:
        while data:
            if self.is_between:
                self.requests.append(b"")
            size = self.cutter.next_piece(data, is_between=self.is_between)
            assert 0 < size <= len(data)
            self.requests[-1] += data[:size]
            self.parser.feed_data(data[:size])
            data = data[size:]


@pytest.mark.parametrize("seed", range(60))
def test_each_request_of_a_pipeline_goes_to_the_parser_by_itself(seed: int) -> None:
    chance = random.Random(seed)
    sent = [chance.choice(KINDS) for _ in range(8)]
    stream, connection = b"".join(sent), Connection()
    while stream:
        size = min(len(stream), chance.choice((1, 2, 3, 7, 30, 100, 1000)))
        connection.receive(stream[:size])
        stream = stream[size:]
    assert connection.requests == sent
    assert connection.is_between


@pytest.mark.parametrize("request_bytes", KINDS)
@pytest.mark.parametrize("step", [1, 5, 1000])
def test_what_has_come_of_a_request_is_known_when_its_head_is_complete(request_bytes: bytes, step: int) -> None:
    connection = Connection()
    data = PLAIN + request_bytes
    for start in range(0, len(data), step):
        connection.receive(data[start : start + step])
    assert len(connection.begun) == 2
    begun = connection.begun[1]
    assert request_bytes.startswith(begun)
    assert b"\r\n\r\n" in begun


def test_a_short_request_in_one_packet_is_one_piece() -> None:
    assert RequestCutter().next_piece(SIZED, is_between=True) == len(SIZED)
