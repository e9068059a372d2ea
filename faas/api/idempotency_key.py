"""The header `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header-07), and what makes two requests the same."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from faas.errors import InvalidRequestError

if TYPE_CHECKING:
    from faas.api.request_head import RequestHead

__all__ = ["fingerprint_of", "read_key"]

MAX_KEY_CHARS = 255

TELLING_HEADERS = (b"authorization", b"content-encoding", b"content-type")
"""Headers that belong to the request's meaning. Credentials do: nobody gets an answer that was made for another.
What differs from try to try of the same request (traces, dates, agents) does not."""


def read_key(value: bytes) -> str:
    """The key in a header's value: the draft wants it in quotes, most clients send it without; both are taken.

    Raises `InvalidRequestError`.
    """
    text = value.decode("latin-1").strip()
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1]
    if not 0 < len(text) <= MAX_KEY_CHARS or not text.isascii() or not text.isprintable():
        raise InvalidRequestError(f"Idempotency-Key must be 1 to {MAX_KEY_CHARS} printable ASCII characters")
    return text


def fingerprint_of(head: RequestHead, body: bytes) -> str:
    """A digest of what has to be equal in a repeat: method, path and query, `TELLING_HEADERS`, body.

    Not the host: a repeat may come by another name of the same service.
    """
    target = head.url.split(b"/", 3)[3]
    parts = [head.method, target, *(head.fields.get(name, b"") for name in TELLING_HEADERS), body]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d:" % len(part))  # so that no part can pass for the end of another
        digest.update(part)
    return digest.hexdigest()
