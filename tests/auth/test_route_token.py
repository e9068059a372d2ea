"""Route tokens: whom the door lets in, and what it tells the others."""

from __future__ import annotations

from datetime import timedelta

import jwt
import pytest

from faas import clock
from faas.auth.route_token import check, make_token
from faas.errors import UnauthorizedError

KEY = "my secret, which is long enough even for HS512 to be quiet about its length"


def bearer(token: str) -> bytes:
    return f"Bearer {token}".encode()


def signed(*, key: str = KEY, algorithm: str = "HS256", **claims: object) -> bytes:
    return bearer(jwt.encode(dict(claims), key.encode(), algorithm=algorithm))


def test_a_token_made_for_the_key_is_accepted() -> None:
    check(bearer(make_token(KEY, 60)), KEY)


@pytest.mark.parametrize("key", ["a", "my-secret", "x" * 64, "x" * 65, "x" * 200])
@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
def test_a_key_of_any_length_works_together_with_other_makers_of_tokens(key: str) -> None:
    for algorithm in ("HS256", "HS384", "HS512"):
        check(signed(key=key, algorithm=algorithm), key)
    jwt.decode(make_token(key, 60), key.encode(), algorithms=["HS256"])


def test_a_made_token_is_valid_from_a_minute_ago_and_expires() -> None:
    claims = jwt.decode(make_token(KEY, 60), options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 60
    assert claims["iat"] - claims["nbf"] == 60


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_the_whole_hmac_family_is_accepted(algorithm: str) -> None:
    check(signed(algorithm=algorithm), KEY)


def test_audience_and_issuer_are_not_asked_for() -> None:
    check(signed(aud="somebody", iss="somebody else", sub=5), KEY)


def test_the_scheme_is_not_case_sensitive() -> None:
    check(bearer(make_token(KEY, 60)).replace(b"Bearer", b"bearer"), KEY)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (None, "no token present in request"),
        (b"", "no token present in request"),
        (b"Basic dXNlcjpwYXNz", "no token present in request"),
        (b"Bearer", "no token present in request"),
        (b"Bearer not.a.token", "token is malformed"),
        (b"Bearer \xff\xfe", "token is malformed"),
        (signed(key=KEY.upper()), "signature is invalid"),
        (signed(exp=1), "token is expired"),
        (signed(nbf=clock.utc_now() + timedelta(hours=1)), "token is not valid yet"),
        (signed(iat=clock.utc_now() + timedelta(hours=1)), "token is not valid yet"),
        (signed(exp="soon"), "token is malformed"),
        (bearer(jwt.encode({}, None, algorithm="none")), "signing method is not supported"),
    ],
)
def test_anything_else_is_refused_with_a_readable_reason(header: bytes | None, message: str) -> None:
    with pytest.raises(UnauthorizedError, match=message):
        check(header, KEY)
