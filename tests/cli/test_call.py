"""`faas call`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import Answer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Faas, Server

MIB = 1024 * 1024


def test_a_call_without_data_is_a_get(faas: Faas, server: Server) -> None:
    server.on("GET /r/shop/a/b?x=1&y=%20z", Answer(200, b"hello"))
    result = faas("call", "shop", "a/b?x=1&y=%20z")
    assert result.exit_code == 0
    assert result.stdout == "hello"
    assert result.stderr == ""


def test_standard_input_goes_to_the_function_and_the_answer_is_byte_exact(faas: Faas, server: Server) -> None:
    body = bytes(range(256)) * 1000
    server.on("POST /r/shop/a", Answer(200, body, {"content-encoding": "gzip"}))
    result = faas("call", "shop", "/a", stdin=body)
    assert server.received[0].body == body
    assert result.stdout_bytes == body


def test_data_comes_from_an_option_or_a_file(faas: Faas, server: Server, tmp_path: Path) -> None:
    server.on("POST /r/shop/a", Answer())
    server.on("PUT /r/shop/a", Answer())
    file = tmp_path / "data"
    file.write_bytes(b"\0" * (3 * MIB))
    assert faas("call", "shop", "/a", "--data", "").exit_code == 0
    assert faas("call", "shop", "/a", "--data", "héllo").exit_code == 0
    assert faas("call", "shop", "/a", "--data-file", str(file), "--method", "put").exit_code == 0
    assert [request.body for request in server.received] == [b"", "héllo".encode(), b"\0" * (3 * MIB)]
    assert server.received[2].headers["Content-Length"] == str(3 * MIB)


def test_a_file_that_is_not_there_is_a_usage_error(faas: Faas, server: Server) -> None:
    result = faas("call", "shop", "/a", "--data-file", "/nowhere")
    assert result.exit_code == 2
    assert result.stderr == "Error: Can't read /nowhere: No such file or directory\n"
    assert server.received == []


def test_headers_are_sent_and_the_token_for_the_api_is_not_given_to_a_function(
    faas: Faas, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAAS_TOKEN", "secret")
    server.on("GET /r/shop/a", Answer())
    faas("call", "shop", "/a", "-H", "X-One: 1: 2", "-H", "x-two=2", "-H", "Host: other")
    headers = server.received[0].headers
    assert (headers["X-One"], headers["x-two"], headers["Host"]) == ("1: 2", "2", "other")
    assert "Authorization" not in headers


@pytest.mark.parametrize("wrong", ["novalue", "bad name: 1", ": x", "a: b\r\nc: d"])
def test_a_header_that_is_none_is_a_usage_error(faas: Faas, server: Server, wrong: str) -> None:
    assert faas("call", "shop", "/a", "-H", wrong).exit_code == 2
    assert server.received == []


def test_include_shows_status_and_headers_first(faas: Faas, server: Server) -> None:
    server.on("GET /r/shop/a", Answer(201, b"body", {"X-Call-Id": "c1"}))
    result = faas("call", "shop", "/a", "--include")
    assert result.stdout_bytes == b"HTTP/1.1 201 Created\r\nX-Call-Id: c1\r\ncontent-length: 4\r\n\r\nbody"


def test_head_ends_with_the_headers(faas: Faas, server: Server) -> None:
    server.on("HEAD /r/shop/a", Answer(200, b"12345"))
    result = faas("call", "shop", "/a", "-X", "HEAD", "-i")
    assert result.exit_code == 0
    assert "content-length: 5" in result.stdout


def test_an_answer_that_ends_with_the_connection_is_whole(faas: Faas, server: Server) -> None:
    server.on("GET /r/shop/a", Answer(chunks=(b"one ", b"two")))
    assert faas("call", "shop", "/a").stdout == "one two"


def test_an_error_status_of_the_functions_own_is_its_answer_and_exits_with_1(faas: Faas, server: Server) -> None:
    server.on("GET /r/shop/a", Answer(404, b"no such page"))
    result = faas("call", "shop", "/a")
    assert result.exit_code == 1
    assert result.stdout == "no such page"
    assert result.stderr == "The function answered 404 Not Found\n"


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        (404, "route_not_found", 4),
        (401, "unauthorized", 5),
        (413, "body_too_large", 3),
        (500, "bad_exit", 1),
        (504, "timeout", 7),
        (503, "no_capacity", 8),
        (500, "internal", 10),
    ],
)
def test_the_platforms_errors_go_to_stderr_and_each_kind_has_its_exit_code(
    faas: Faas, server: Server, status: int, code: str, exit_code: int
) -> None:
    server.on_error("GET /r/shop/a", status, code, "what happened")
    result = faas("call", "shop", "/a")
    assert result.exit_code == exit_code
    assert result.stdout == ""
    assert result.stderr.startswith("Error: what happened\n")


def test_a_failed_function_points_at_its_log(faas: Faas, server: Server) -> None:
    error = {"error": {"message": "exit code 3", "code": "bad_exit"}, "request_id": "c9"}
    server.on_json("GET /r/shop/a", error, 500, {"faas-error": "bad_exit", "x-call-id": "c9"})
    assert "faas calls log c9" in faas("call", "shop", "/a").stderr


def test_async_prints_the_calls_id(faas: Faas, server: Server) -> None:
    server.on_json("POST /r/shop/a", {"call_id": "c1"}, 202)
    result = faas("call", "shop", "/a", "--data", "x", "--async")
    assert result.stdout == "c1\n"
    assert server.received[0].headers["Prefer"] == "respond-async"
    assert json.loads(faas("call", "shop", "/a", "--data", "x", "--async", "-o", "json").stdout) == {"call_id": "c1"}


def test_what_is_said_of_an_async_call_is_sent_and_makes_it_one(faas: Faas, server: Server) -> None:
    server.on("POST /r/shop/a", Answer(202, b'{"call_id": "c1"}'), Answer(202, b'{"call_id": "c2"}'))
    said = ("--delay", "1m", "--expires", "2h", "--priority", "0", "--idempotency-key", "k")
    assert faas("call", "shop", "/a", "--data", "x", *said).stdout == "c1\n"
    assert faas("call", "shop", "/a", "--data", "x", "--not-before", "2030-01-31T08:00:00Z").stdout == "c2\n"
    names = ("Prefer", "X-Delay", "X-Expires", "X-Priority", "Idempotency-Key", "X-Not-Before")
    first, second = ([request.headers.get(name) for name in names] for request in server.received)
    assert first == ["respond-async", "60", "7200", "0", "k", None]
    assert second == ["respond-async", None, None, None, None, "2030-01-31T08:00:00Z"]


def test_a_key_alone_leaves_a_call_sync(faas: Faas, server: Server) -> None:
    server.on("POST /r/shop/a", Answer(200, b"hello"))
    assert faas("call", "shop", "/a", "--data", "x", "--idempotency-key", "k").stdout == "hello"
    assert server.received[0].headers.get("Prefer") is None


def test_async_and_wait_prints_the_result(faas: Faas, server: Server) -> None:
    server.on_json("GET /r/shop/a", {"call_id": "c1"}, 202)
    running = Answer(200, b'{"call": {"id": "c1", "status": "running"}}')
    server.on("GET /v1/calls/c1?wait=20", running, Answer(200, b'{"call": {"id": "c1", "status": "success"}}'))
    server.on("GET /v1/calls/c1/result", Answer(200, b"\xff\x00result"))
    result = faas("call", "shop", "/a", "--async", "--wait")
    assert result.exit_code == 0
    assert result.stdout_bytes == b"\xff\x00result"


def test_wait_alone_waits_for_a_route_of_type_async(faas: Faas, server: Server) -> None:
    server.on_json("GET /r/shop/a", {"call_id": "c1"}, 202)
    server.on("GET /v1/calls/c1?wait=20", Answer(200, b'{"call": {"id": "c1", "status": "error"}}'))
    server.on_error("GET /v1/calls/c1/result", 504, "timeout", "Timed out")
    result = faas("call", "shop", "/a", "--wait")
    assert result.exit_code == 7
    assert "Prefer" not in server.received[0].headers


def test_a_function_that_answers_202_itself_is_not_taken_for_an_accepted_call(faas: Faas, server: Server) -> None:
    server.on("GET /r/shop/a", Answer(202, b"mine"))
    assert faas("call", "shop", "/a", "--wait").stdout == "mine"


def test_a_server_that_is_not_there_is_unreachable(faas: Faas) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    for arguments in (("call", "shop", "/a"), ("apps", "list")):
        result = faas(*arguments, "--url", url)
        assert result.exit_code == 6
        assert f"Error: Can't reach {url}: " in result.stderr
        assert "Connection refused" in result.stderr
        assert "faas serve" in result.stderr


def test_a_connection_that_breaks_off_is_no_whole_answer(faas: Faas, server: Server) -> None:
    server.on("GET /r/shop/a", Answer(headers={"content-length": "100"}, chunks=(b"some",)))
    result = faas("call", "shop", "/a")
    assert result.exit_code == 6
    assert "broke off" in result.stderr


@pytest.mark.parametrize("url", ["nonsense", "ftp://x", "http://"])
def test_a_url_that_is_none_is_a_usage_error(faas: Faas, url: str) -> None:
    for arguments in (("call", "shop", "/a"), ("apps", "list")):
        result = faas(*arguments, "--url", url)
        assert result.exit_code == 2, result.output
        assert "http://127.0.0.1:8080" in result.stderr


def test_a_body_larger_than_all_buffers_is_echoed_while_it_is_sent(tmp_path: Path) -> None:
    size = 64 * MIB
    source, sink = tmp_path / "in", tmp_path / "out"
    source.write_bytes(os.urandom(MIB) * (size // MIB))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_echo, args=(listener, size))
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with source.open("rb") as stdin, sink.open("wb") as stdout:
            command = [sys.executable, "-m", "faas", "call", "x", "/echo", "--url", url]
            process = subprocess.run(
                [*command, "--data-file", str(source)], stdin=stdin, stdout=stdout, timeout=60, check=False
            )
        thread.join()
    assert process.returncode == 0
    assert sink.read_bytes() == source.read_bytes()


def _echo(listener: socket.socket, size: int) -> None:
    """Answer while the request is still coming, byte for byte, with no buffer of its own."""
    connection, _ = listener.accept()
    with connection, connection.makefile("rb") as reader:
        while reader.readline().strip():
            pass
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        left = size
        while left:
            data = reader.read1(MIB)
            connection.sendall(data)
            left -= len(data)


def test_a_reader_that_leaves_ends_the_command_without_a_traceback(server: Server) -> None:
    server.on("GET /r/shop/a", Answer(200, b"x" * (4 * MIB)))
    command = [sys.executable, "-m", "faas", "call", "shop", "/a", "--url", server.url]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_an_answer_ends_the_command_also_while_standard_input_stays_open(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_answer_early, args=(listener,))
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        command = [sys.executable, "-m", "faas", "call", "shop", "/a", "--url", url]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(b"first")
            process.stdin.flush()
            assert process.stdout.read() == b"early"
            assert process.wait(timeout=20) == 0
        thread.join()


def _answer_early(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(MIB)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly")
