"""Polite callers, against a server of the test's own."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from tests.bench.callers import WARM_UP_ROUNDS, call_exactly, call_once_each, warm_up
from tests.bench.servers import Served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONNECTIONS = 4
POLL_S = 0.01


class Echo(BaseHTTPRequestHandler):
    """Answers what it got, or what the test makes of it."""

    protocol_version = "HTTP/1.1"
    is_chunked = False
    change: Callable[[bytes], bytes] = staticmethod(lambda body: body)
    heard: list[str]
    """The paths that were called."""

    def do_POST(self) -> None:
        body = self.change(self.rfile.read(int(self.headers["Content-Length"])))
        self.heard.append(self.path)
        self.send_response(200)
        if self.is_chunked:
            self.send_header("Transfer-Encoding", "chunked")
            body = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


class Server(ThreadingHTTPServer):
    """All connect at once: five, the default, would make the sixth wait for a second."""

    request_queue_size = 64


@contextmanager
def echo(**behaviour: object) -> Iterator[tuple[str, list[str]]]:
    """URL of a server, and the list of the paths that it was called at."""
    heard: list[str] = []
    with Server(("127.0.0.1", 0), type("Handler", (Echo,), {"heard": heard, **behaviour})) as server:
        thread = threading.Thread(target=server.serve_forever, args=(POLL_S,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", heard
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("is_chunked", [False, True])
def test_every_call_is_made_and_equal_answers_are_right(is_chunked: bool) -> None:
    with echo(is_chunked=is_chunked) as (url, heard):
        found = call_exactly(f"{url}/there", calls=50, connections=CONNECTIONS)
    assert (found.calls, found.wrong) == (50, 0)
    assert heard == ["/there"] * 50


def test_an_answer_that_differs_in_one_byte_is_wrong() -> None:
    spoilt = {b"7": b"?", b"8": b""}
    with echo(change=staticmethod(lambda body: spoilt.get(body[:1], body[:1]) + body[1:])) as (url, _):
        found = call_exactly(url, calls=10, connections=CONNECTIONS)
    assert found.wrong == 2


def test_all_urls_are_called() -> None:
    with echo() as (url, heard):
        call_once_each(f"{url}/{number}" for number in range(9))
    assert sorted(heard) == [f"/{number}" for number in range(9)]


def test_a_server_is_warm_when_no_more_containers_come() -> None:
    counts = iter([1, 1, 3, 3, 4, 4, 4])
    with echo() as (url, heard):
        warm_up(Served(url=url, pid=0, containers=lambda: next(counts)), CONNECTIONS)
    assert len(heard) == 3 * CONNECTIONS


def test_warming_up_ends_although_containers_come_and_go() -> None:
    counts = iter(range(1000))
    with echo() as (url, heard):
        warm_up(Served(url=url, pid=0, containers=lambda: next(counts)), 1)
    assert len(heard) == WARM_UP_ROUNDS
