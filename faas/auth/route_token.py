"""A route's own door: `Authorization: Bearer` with a JWT signed by the route's `jwt_key`, as IronFunctions has it."""

from __future__ import annotations

import jwt

from faas import clock
from faas.errors import UnauthorizedError

__all__ = ["check", "make_token"]

ALGORITHMS = ("HS256", "HS384", "HS512")
"""The HMAC family; naming it is what keeps `none` and public-key confusion out."""

NOT_BEFORE_SLACK_S = 60
"""A token made here is valid on a machine whose clock is a minute behind; IronFunctions' number."""

_OPTIONS: jwt.types.Options = {
    # A token need not have them, but those it has count. Who it is for and from is not asked: the key says that.
    "verify_exp": True,
    "verify_nbf": True,
    "verify_iat": True,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}

HMAC_KEY_BYTES = 64
"""The shortest key that PyJWT takes for HS512 without a warning."""


def check(authorization_header: bytes | None, key: str) -> None:
    """Raise `UnauthorizedError` unless the header holds a token signed by `key` that is valid now."""
    if not authorization_header:
        raise UnauthorizedError("no token present in request")
    scheme, _, token = authorization_header.strip().partition(b" ")
    if scheme.lower() != b"bearer" or not token:
        raise UnauthorizedError("no token present in request: send `Authorization: Bearer <token>`")
    try:
        jwt.decode(token.strip(), _hmac_key(key), algorithms=ALGORITHMS, options=_OPTIONS)
    except jwt.ExpiredSignatureError:
        raise UnauthorizedError("token is expired; make a new one") from None
    except jwt.ImmatureSignatureError:
        raise UnauthorizedError("token is not valid yet; compare the clocks of both machines") from None
    except jwt.InvalidSignatureError:
        raise UnauthorizedError("signature is invalid: the token was made with another key") from None
    except jwt.InvalidAlgorithmError:
        raise UnauthorizedError("signing method is not supported; use HS256, HS384 or HS512") from None
    except jwt.InvalidKeyError:
        raise UnauthorizedError("the route's jwt_key is a public or private key; give the route a secret") from None
    except jwt.PyJWTError:
        raise UnauthorizedError("token is malformed") from None


def make_token(key: str, expires_in_s: int) -> str:
    """A token for `key` that is valid from a minute ago until `expires_in_s` from now."""
    now = int(clock.utc_now().timestamp())
    claims = {"exp": now + expires_in_s, "iat": now, "nbf": now - NOT_BEFORE_SLACK_S}
    return jwt.encode(claims, _hmac_key(key), algorithm="HS256")


def _hmac_key(key: str) -> bytes:
    """The same HMAC key in a length that PyJWT does not warn of: how short a key may be is its owner's decision.

    HMAC itself fills a key up with zero bytes to the hash's block, 64 bytes at least (RFC 2104, section 2).
    """
    return key.encode().ljust(HMAC_KEY_BYTES, b"\0")
