"""What a caller may say when submitting."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from faas.api.submission_options import MAX_DELAY_S, SubmissionOptions, submission_options, wait_preference_s
from faas.errors import InvalidRequestError

NOW = datetime(2030, 1, 31, 8, tzinfo=UTC)


def said(**headers: str) -> SubmissionOptions:
    return submission_options({name.replace("_", "-").encode(): text.encode() for name, text in headers.items()}, NOW)


def test_who_says_nothing_has_the_call_run_at_once_and_some_time() -> None:
    assert said(host="here") == SubmissionOptions(priority=0, not_before=None, expires_at=None)


def test_a_delay_and_an_instant_say_when_a_call_may_begin() -> None:
    assert said(x_delay="1.5").not_before == NOW + timedelta(seconds=1.5)
    assert said(x_delay="0").not_before == NOW
    assert said(x_not_before="2030-01-31T10:00:01+02:00").not_before == NOW + timedelta(seconds=1)
    assert said(x_not_before="2030-01-31T08:00:00.250Z").not_before == NOW + timedelta(milliseconds=250)


def test_priority_and_expiry_are_kept() -> None:
    options = said(x_priority="2", x_expires="60", x_delay="30")
    assert (options.priority, options.expires_at) == (2, NOW + timedelta(seconds=60))


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"x_delay": "soon"}, f"X-Delay must be a number of seconds from 0 to {MAX_DELAY_S}, not 'soon'"),
        ({"x_delay": "-1"}, f"X-Delay must be a number of seconds from 0 to {MAX_DELAY_S}, not '-1'"),
        ({"x_delay": "nan"}, f"X-Delay must be a number of seconds from 0 to {MAX_DELAY_S}, not 'nan'"),
        ({"x_delay": "inf"}, f"X-Delay must be a number of seconds from 0 to {MAX_DELAY_S}, not 'inf'"),
        ({"x_delay": "2592001"}, f"X-Delay must be a number of seconds from 0 to {MAX_DELAY_S}, not '2592001'"),
        ({"x_expires": ""}, f"X-Expires must be a number of seconds from 0 to {MAX_DELAY_S}, not ''"),
        ({"x_expires": "0"}, "X-Expires passes before the call may begin; give more seconds"),
        ({"x_expires": "5", "x_delay": "5"}, "X-Expires passes before the call may begin; give more seconds"),
        ({"x_priority": "3"}, "X-Priority must be a whole number from 0 to 2, not '3'"),
        ({"x_priority": "high"}, "X-Priority must be a whole number from 0 to 2, not 'high'"),
        (
            {"x_not_before": "2030-01-31T08:00:00"},
            "X-Not-Before must be an RFC 3339 time such as 2030-01-31T08:00:00Z, not '2030-01-31T08:00:00'",
        ),
        ({"x_not_before": "9"}, "X-Not-Before must be an RFC 3339 time such as 2030-01-31T08:00:00Z, not '9'"),
        ({"x_not_before": "2031-01-31T08:00:00Z"}, f"X-Not-Before must not be more than {MAX_DELAY_S} s ahead"),
        (
            {"x_not_before": "2030-01-31T09:00:00Z", "x_delay": "1"},
            "X-Delay and X-Not-Before say the same in two ways: give one of them",
        ),
    ],
)
def test_what_cannot_be_obeyed_is_refused_with_words(headers: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        said(**headers)
    assert refused.value.message == message


@pytest.mark.parametrize(
    ("prefer", "wait_s"),
    [
        (b"wait=10", 10),
        (b'respond-async, Wait = "7"; foo=bar', 7),
        (b"wait=301", 300),
        (b"wait=" + b"9" * 5000, 300),
        (b"respond-async", 0),
        (b"wait=soon, wait=-1", 0),
        (b"await=5", 0),
        (b"", 0),
    ],
)
def test_a_wait_is_a_preference_and_never_refused(prefer: bytes, wait_s: int) -> None:
    assert wait_preference_s(prefer) == wait_s
