"""IronFunctions' names: variables of a cold call, headers of a hot one."""

from __future__ import annotations

import pytest

from faas.errors import ProtocolViolationError
from faas.models import FormatName
from faas.runner.formats import default
from faas.runner.formats.http import HttpFormat
from faas.runner.formats.iron import payload_of, variables_of
from tests.support.rig import a_function, an_invocation

CONFIG = {"app_config": {"db-url": "app", "MODE": "app"}, "config": {"mode": "route"}}
HEADERS = [(b"accept", b"text/a"), (b"x-y-z", b"1"), (b"accept", b"text/b"), (b"host", b"here"), (b"connection", b"x")]


@pytest.fixture
def codec() -> HttpFormat:
    return HttpFormat(max_header_bytes=1000)


def test_a_call_has_ironfunctions_variables() -> None:
    invocation = an_invocation(a_function(**CONFIG), headers=HEADERS, method=b"PUT")
    assert variables_of(invocation) == {
        "METHOD": "PUT",
        "ROUTE": "/echo",
        "REQUEST_URL": "http://localhost/r/demo/echo",
        "DB_URL": "app",
        "MODE": "route",
        "HEADER_ACCEPT": "text/a text/b",
        "HEADER_X_Y_Z": "1",
    }


def test_a_cold_container_is_told_its_calls_id_too() -> None:
    invocation = an_invocation(a_function(format=FormatName.DEFAULT))
    assert default.container_env(invocation)["TASK_ID"] == invocation.id


def test_nothing_of_a_caller_is_in_a_hot_containers_environment(codec: HttpFormat) -> None:
    assert codec.container_env(a_function(**CONFIG)) == {"DB_URL": "app", "MODE": "route", "FN_FORMAT": "http"}


def test_a_hot_call_is_a_get_with_headers_named_after_the_variables(codec: HttpFormat) -> None:
    invocation = an_invocation(a_function(**CONFIG), headers=HEADERS, method=b"PUT")
    assert codec.encode(invocation).decode().split("\r\n") == [
        "GET / HTTP/1.1",
        "Method: PUT",
        "Route: /echo",
        "Request_url: http://localhost/r/demo/echo",
        "Db_url: app",
        "Mode: route",
        "Header_accept: text/a text/b",
        "Header_x_y_z: 1",
        "Content-Length: 5",
        f"Task-Id: {invocation.id}",
        "",
        "",
    ]


def test_line_breaks_in_the_configuration_make_no_header(codec: HttpFormat) -> None:
    config = {
        "KEY": "line one\r\nContent-Length: 0\r\n\r\nGET /",
        "EVIL\r\nX": "1",
        "A: b\nC": "2",
        "": "3",
        "ÜX": "ü€",
    }
    invocation = an_invocation(a_function(config=config))
    head = codec.encode(invocation).decode("latin-1")
    assert head.count("\r\n\r\n") == 1
    assert head.count("Content-Length") <= 2
    names = [line.partition(":")[0] for line in head[:-4].split("\r\n")[1:]]
    assert names.count("Content-Length") == 1
    assert all(name and not set(name) & set(" \t\r\n") for name in names), names
    assert "\n" not in head.replace("\r\n", "")


def test_the_answer_of_a_hot_function_is_its_own_but_for_its_connection(codec: HttpFormat) -> None:
    head = [
        (b"Content-Type", b"a"),
        (b"Content-Length", b"5"),
        (b"Connection", b"X-Hop"),
        (b"X-Hop", b"1"),
        (b"B", b"2"),
    ]
    assert codec.decode(404, head) == (404, [(b"content-type", b"a"), (b"b", b"2")])


@pytest.mark.parametrize("status", [600, 999])
def test_a_status_that_http_does_not_have_breaks_the_contract(codec: HttpFormat, status: int) -> None:
    with pytest.raises(ProtocolViolationError):
        codec.decode(status, [])


@pytest.mark.parametrize(
    ("method", "query", "body", "payload"),
    [
        (b"GET", b"?payload=hello", b"", b"hello"),
        (b"GET", b"?a=1&payload=%7B%22a%22%3A+1%7D", b"", b'{"a": 1}'),
        (b"GET", b"?payload=%ff", b"", b"\xff"),
        (b"GET", b"?payload=one&payload=two", b"", b"one"),
        (b"GET", b"?payload=hello", b"body", b"body"),
        (b"GET", b"?other=payload=", b"", b""),
        (b"GET", b"", b"", b""),
        (b"POST", b"?payload=hello", b"", b""),
    ],
)
def test_a_gets_payload_parameter_is_its_body(method: bytes, query: bytes, body: bytes, payload: bytes) -> None:
    invocation = an_invocation(a_function(), method=method, url=b"http://here/r/demo/echo" + query, body=body)
    assert payload_of(invocation) == payload


@pytest.mark.parametrize(
    ("output", "content_type"),
    [
        (b"", b"text/plain; charset=utf-8"),
        (b"hello\n", b"text/plain; charset=utf-8"),
        (b"gr\xc3\xbc\xc3\x9fe \x1b[1m", b"text/plain; charset=utf-8"),
        (b"cut in a character \xc3", b"text/plain; charset=utf-8"),
        (b"latin gr\xfc\xdfe", b"application/octet-stream"),
        (b"\x7fELF", b"application/octet-stream"),
        (b"text\x00", b"application/octet-stream"),
        (b"\x89PNG\r\n\x1a\n", b"application/octet-stream"),
    ],
)
def test_output_without_a_type_is_text_or_bytes(output: bytes, content_type: bytes) -> None:
    assert default._sniff(output) == content_type
