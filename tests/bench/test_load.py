"""What wrk prints, as numbers."""

from __future__ import annotations

import pytest

from tests.bench.load import figures

PRINTED = """\
Running 2s test @ http://127.0.0.1:18765/call
  1 threads and 8 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   563.82us  788.46us   9.58ms   90.40%
    Req/Sec    20.89k     3.23k   25.44k    65.00%
  Latency Distribution
     50%  295.00us
     75%  563.00us
     90%    1.31ms
     99%    4.13ms
  41555 requests in 2.00s, 8.40MB read
Requests/sec:  20773.21
Transfer/sec:      4.20MB
"""


def test_a_load_is_understood() -> None:
    assert figures(PRINTED) == {
        "requests": 41555.0,
        "requests_per_s": 20773.21,
        "p50_us": 295.0,
        "p99_us": 4130.0,
        "failed": 0.0,
    }


def test_wrong_answers_and_errors_of_sockets_have_failed() -> None:
    errors = "  Socket errors: connect 1, read 20, write 300, timeout 4000\n  Non-2xx or 3xx responses: 50000\n"
    assert figures(PRINTED + errors)["failed"] == 54321


def test_seconds_and_minutes_are_told_apart_from_milliseconds() -> None:
    assert figures(PRINTED.replace("4.13ms", "1.50s"))["p99_us"] == 1.5e6
    assert figures(PRINTED.replace("4.13ms", "2.00m"))["p99_us"] == 120e6


def test_something_unexpected_is_shown() -> None:
    with pytest.raises(RuntimeError, match="unable to connect"):
        figures("unable to connect to 127.0.0.1:1 Connection refused")
