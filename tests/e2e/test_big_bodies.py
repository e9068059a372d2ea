"""A gibibyte either way through a node: exact to the byte, in little memory, at whatever pace, beside others' calls."""

from __future__ import annotations

import http.client
import socket
import struct
import zlib
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.support.waiting import wait_until_blocking

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.node import App, NodeProcess

GIB = 1 << 30
MAX_GROWTH_MIB = 32
MAX_ON_THE_WAY_MIB = 64
"""The buffers of both sockets, and what the node itself holds; the kernel gives a socket some MiB."""
TIMEOUT_S = 60.0
ROUNDS = 100
"""Of somebody slow and somebody else in turn: enough for a node without back-pressure to take it all in meanwhile."""

PERIOD = bytes(range(251))
PIECE = PERIOD * 4096
"""A megabyte of what the function `stream` sends: byte i is i mod 251."""


@contextmanager
def little_memory(node: NodeProcess) -> Iterator[None]:
    """Check that the node's memory does not grow in the block, not even for a moment."""
    before_mib = node.memory_mib("VmRSS")
    node.forget_memory_peak()
    yield
    assert node.memory_mib("VmHWM") - before_mib < MAX_GROWTH_MIB


def pieces_of(size: int) -> Iterator[bytes]:
    for _ in range(size // len(PIECE)):
        yield PIECE
    yield PIECE[: size % len(PIECE)]


def sum_of(size: int) -> bytes:
    """What the function says of that stream."""
    crc = 0
    for piece in pieces_of(size):
        crc = zlib.crc32(piece, crc)
    return b"%d %08x\n" % (size, crc)


def connect(node: NodeProcess) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(node.url).netloc, timeout=TIMEOUT_S)


def begin(node: NodeProcess, text: str) -> socket.socket:
    """Send the lines of a request's head on a connection of its own."""
    parts = urlsplit(node.url)
    client = socket.create_connection((parts.hostname, parts.port or 80), timeout=TIMEOUT_S)
    client.sendall(text.replace("|", "\r\n").encode() + b"\r\n\r\n")
    return client


def ask(other: http.client.HTTPConnection, url: str) -> None:
    """A call of somebody else, who does not wait for anybody slow."""
    other.request("POST", url, b"quick")
    assert other.getresponse().read() == b"5 %08x\n" % zlib.crc32(b"quick")


def hang_up(client: socket.socket) -> None:
    """At once: what was sent and has not arrived is dropped, too."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def assert_cancelled(app: App, path: str) -> None:
    """The app's one call is cancelled, and its container is gone."""
    with app.node.api() as api:
        calls = f"/v1/apps/{app.name}/calls"
        wait_until_blocking(lambda: api.get(calls).json()["calls"], timeout_s=TIMEOUT_S)
        [record] = api.get(calls).json()["calls"]
    assert (record["status"], record["reason"]) == ("cancelled", "client_request")
    wait_until_blocking(lambda: not app.containers(path), timeout_s=TIMEOUT_S)


@pytest.mark.parametrize("size", [GIB, 100_000_007])
def test_a_body_with_a_length_reaches_its_function_whole(size: int, node: NodeProcess, stream: str) -> None:
    with closing(connect(node)) as connection, little_memory(node):
        connection.request("POST", stream, pieces_of(size), {"Content-Length": str(size)})
        assert connection.getresponse().read() == sum_of(size)


def test_a_chunked_body_reaches_its_function_whole(node: NodeProcess, stream: str) -> None:
    with closing(connect(node)) as connection, little_memory(node):
        connection.request("POST", stream, pieces_of(GIB), encode_chunked=True)
        assert connection.getresponse().read() == sum_of(GIB)
        connection.request("POST", stream, b"the next one")
        assert connection.getresponse().read() == b"12 %08x\n" % zlib.crc32(b"the next one")


@pytest.mark.parametrize("chunked", ["", "&chunked=1"])
def test_an_answer_reaches_its_client_whole(chunked: str, node: NodeProcess, stream: str) -> None:
    with closing(connect(node)) as connection, little_memory(node):
        connection.request("GET", f"{stream}?bytes={GIB}{chunked}")
        answer = connection.getresponse()
        assert answer.headers.get("Transfer-Encoding") == ("chunked" if chunked else None)
        for expected in pieces_of(GIB):
            assert answer.read(len(expected)) == expected
        assert answer.read() == b""
        connection.request("GET", f"{stream}?bytes=251")
        assert connection.getresponse().read() == PERIOD


def test_a_client_that_reads_at_a_crawl_costs_no_memory_and_nobody_else_time(
    app: App, node: NodeProcess, stream: str
) -> None:
    url = app.deploy("/stream", "stream")
    with closing(connect(node)) as other, little_memory(node):
        slow = begin(node, f"GET {url}?bytes={GIB} HTTP/1.1|Host: here")
        answer = slow.makefile("rb", buffering=0)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += answer.read(1) or b""
        for _ in range(ROUNDS):
            assert slow.recv(len(PERIOD), socket.MSG_WAITALL) == PERIOD
            ask(other, stream)
        answer.close()
        hang_up(slow)
    assert_cancelled(app, "/stream")


def test_a_client_that_sends_at_a_crawl_keeps_nobody_else_waiting(app: App, node: NodeProcess, stream: str) -> None:
    url = app.deploy("/stream", "stream")
    size = ROUNDS * 1024
    with closing(connect(node)) as other, little_memory(node):
        slow = begin(node, f"POST {url} HTTP/1.1|Host: here|Connection: close|Content-Length: {size}")
        for number in range(ROUNDS):
            slow.sendall(PIECE[number * 1024 : (number + 1) * 1024])
            ask(other, stream)
        with closing(slow), slow.makefile("rb") as answer:
            assert answer.read().endswith(b"\r\n\r\n" + sum_of(size))


def test_a_function_that_does_not_read_costs_no_memory_and_nobody_else_time(
    app: App, node: NodeProcess, stream: str
) -> None:
    url = app.deploy("/never", "misfit", config={"MODE": "never"})
    sent = 0
    with closing(connect(node)) as other, little_memory(node):
        client = begin(node, f"POST {url} HTTP/1.1|Host: here|Content-Length: {GIB}")
        client.setblocking(False)
        for _ in range(ROUNDS):
            with suppress(BlockingIOError):
                while sent < GIB:
                    sent += client.send(PIECE)
            ask(other, stream)
        assert sent < MAX_ON_THE_WAY_MIB << 20
        wait_until_blocking(node.busy_containers, timeout_s=TIMEOUT_S)
        hang_up(client)
    assert_cancelled(app, "/never")
