"""Who may be told of a call's end, and how a message is signed."""

from __future__ import annotations

import base64

import pytest

from faas.webhooks import Webhooks, signature_of, url_problem

SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()


def test_a_message_is_signed_as_the_standard_has_it() -> None:
    # The example of https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    signature = signature_of(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    "url", ["http://a.example", "https://a.example:8443/x?y=1", "http://10.0.0.1/", "http://[::1]"]
)
def test_an_absolute_url_is_taken(url: str) -> None:
    assert url_problem(url) == ""


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("a.example/x", "must be an absolute http or https URL"),
        ("ftp://a.example", "must be an absolute http or https URL"),
        ("http://", "must be an absolute http or https URL"),
        ("http://a.example:99999", "must be an absolute http or https URL"),
        ("http://[::1", "must be an absolute http or https URL"),
        ("http://me:secret@a.example", "must have no user, password or fragment"),
        ("http://a.example/#x", "must have no user, password or fragment"),
        ("http://a.example/\r\nX: 1", "must be a URL of at most 2048 printable ASCII characters"),
        ("http://a.example/" + "x" * 2048, "must be a URL of at most 2048 printable ASCII characters"),
    ],
)
def test_any_other_url_is_refused(url: str, problem: str) -> None:
    assert url_problem(url) == problem


@pytest.mark.parametrize("secret", ["", "plain", "whsec_", "whsec_!!", "whsec_" + base64.b64encode(b"short").decode()])
def test_webhooks_need_a_key_and_no_message_shows_it(secret: str) -> None:
    webhooks = Webhooks(on_success="http://a.example", secret=secret)
    assert webhooks.problems() == ["webhooks: secret must be `whsec_` and 24 to 64 bytes in base64"]
    assert Webhooks(secret=SECRET).problems() == []
    assert SECRET not in repr(Webhooks(secret=SECRET))
