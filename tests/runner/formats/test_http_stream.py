"""Fn's contract: what the container is told, and what its answers mean."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from faas.errors import CallTimeoutError, FaasError, FunctionFailedError, ProtocolViolationError
from faas.runner.formats import http_stream
from faas.runner.formats.http_stream import HttpStreamFormat
from tests.support.rig import a_function, an_invocation

NOW = datetime(2026, 3, 1, 12, 0, 0, 999_000, UTC)


@pytest.fixture
def codec(monkeypatch: pytest.MonkeyPatch) -> HttpStreamFormat:
    monkeypatch.setattr(http_stream, "unix_s", NOW.timestamp)
    return HttpStreamFormat(max_header_bytes=1000)


def lines(data: bytes) -> list[str]:
    assert data.endswith(b"\r\n\r\n")
    return data[:-4].decode("latin-1").split("\r\n")


def test_a_call_is_a_post_whose_headers_carry_the_callers_request(codec: HttpStreamFormat) -> None:
    invocation = an_invocation(
        a_function(timeout_s=90),
        method=b"PUT",
        url=b"https://here/r/demo/echo?a=1",
        headers=[(b"content-type", b"text/x"), (b"x-a", b"1"), (b"x-a", b"2"), (b"accept", b"*/*"), (b"cookie", b"c")],
    )
    assert lines(codec.encode(invocation)) == [
        "POST /call HTTP/1.1",
        "Host: localhost",
        f"Fn-Call-Id: {invocation.id}",
        "Fn-Deadline: 2026-03-01T12:01:30Z",
        "Fn-Intent: httprequest",
        "Fn-Http-Method: PUT",
        "Fn-Http-Request-Url: https://here/r/demo/echo?a=1",
        "Content-Type: text/x",
        "Fn-Http-H-X-A: 1",
        "Fn-Http-H-X-A: 2",
        "Fn-Http-H-Accept: */*",
        "Fn-Http-H-Cookie: c",
        "Content-Length: 5",
    ]


@pytest.mark.parametrize(
    "name",
    ["connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host", "content-length", "expect"],
)
def test_headers_of_the_callers_connection_stay_there(codec: HttpStreamFormat, name: str) -> None:
    for _ in range(2):
        encoded = codec.encode(an_invocation(a_function(), headers=[(name.encode(), b"7")]))
        assert b": 7\r\n" not in encoded


@pytest.mark.parametrize(
    ("length", "framing"), [(None, "Transfer-Encoding: chunked"), (0, "Content-Length: 0"), (9, "Content-Length: 9")]
)
def test_a_streamed_body_is_framed_by_what_the_caller_declared(
    codec: HttpStreamFormat, length: int | None, framing: str
) -> None:
    invocation = an_invocation(a_function(), stream=object(), content_length=length)
    assert lines(codec.encode(invocation))[-1] == framing


def test_each_time_limit_has_a_deadline_of_its_own_and_each_second_new_ones(
    codec: HttpStreamFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deadline(timeout_s: int) -> str:
        encoded = lines(codec.encode(an_invocation(a_function(timeout_s=timeout_s))))
        return next(line for line in encoded if line.startswith("Fn-Deadline: "))[13:]

    assert [deadline(1), deadline(3600), deadline(1)] == [
        "2026-03-01T12:00:01Z",
        "2026-03-01T13:00:00Z",
        "2026-03-01T12:00:01Z",
    ]
    monkeypatch.setattr(http_stream, "unix_s", lambda: NOW.timestamp() + 1)
    assert deadline(1) == "2026-03-01T12:00:02Z"


def test_names_that_callers_invent_are_not_remembered_for_ever(codec: HttpStreamFormat) -> None:
    for number in range(1100):
        codec.encode(an_invocation(a_function(), headers=[(b"x-%d" % number, b"1")]))
    assert len(codec._request_names) <= 1024


def test_the_environment_is_the_configuration_under_fns_variables(codec: HttpStreamFormat) -> None:
    function = a_function(
        app_config={"a-key": "app", "BOTH": "app"}, config={"BOTH": "route", "FN_MEMORY": "mine"}, memory_mib=64
    )
    assert codec.container_env(function) == {
        "a-key": "app",
        "BOTH": "route",
        "FN_MEMORY": "64",
        "FN_TYPE": "sync",
        "FN_FN_ID": "demo/echo",
        "FN_APP_ID": "demo",
        "FN_FN_NAME": "/echo",
        "FN_APP_NAME": "demo",
        "FN_LISTENER": "unix:/tmp/iofs/lsnr.sock",
        "FN_FORMAT": "http-stream",
    }


# --- the answer table


def test_200_is_the_functions_answer(codec: HttpStreamFormat) -> None:
    head = [
        (b"Fn-Http-Status", b"418"),
        (b"Fn-Http-H-Set-Cookie", b"a"),
        (b"fn-http-h-set-cookie", b"b"),
        (b"Fn-Http-H-Connection", b"close"),
        (b"Fn-Http-H-Content-Length", b"7"),
        (b"Fn-Http-H-Transfer-Encoding", b"chunked"),
        (b"Content-Type", b"text/x"),
        (b"Content-Length", b"5"),
        (b"Fn-Fdk-Version", b"fdk-x"),
        (b"X-Other", b"not for the caller"),
    ]
    assert codec.decode(200, head) == (
        418,
        [(b"set-cookie", b"a"), (b"set-cookie", b"b"), (b"content-type", b"text/x")],
    )


def test_200_without_a_status_of_its_own_is_200(codec: HttpStreamFormat) -> None:
    assert codec.decode(200, []) == (200, [])


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (502, FunctionFailedError),
        (504, CallTimeoutError),
        *((status, ProtocolViolationError) for status in (201, 204, 301, 400, 404, 500, 503, 505, 599)),
    ],
)
def test_any_other_status_is_an_error(codec: HttpStreamFormat, status: int, error: type[FaasError]) -> None:
    with pytest.raises(error):
        codec.decode(status, [])


@pytest.mark.parametrize("value", [b"200", b"204", b"599"])
def test_a_status_of_the_functions_may_be_any_final_one(codec: HttpStreamFormat, value: bytes) -> None:
    assert codec.decode(200, [(b"Fn-Http-Status", value)])[0] == int(value)


@pytest.mark.parametrize("value", [b"", b"0", b"100", b"199", b"600", b"-200", b"abc", b"2e2", b"9" * 50])
def test_a_status_that_is_none_breaks_the_contract(codec: HttpStreamFormat, value: bytes) -> None:
    with pytest.raises(ProtocolViolationError, match="Fn-Http-Status"):
        codec.decode(200, [(b"Fn-Http-Status", value)])
