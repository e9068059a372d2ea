"""Webhooks as a route asks for them, and how a message is signed (https://www.standardwebhooks.com)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import datetime  # noqa: TC003 - models are read by who needs their types
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SECRET_PREFIX", "Delivery", "DeliveryStatus", "Webhooks", "signature_of", "url_problem"]

MAX_URL = 2048
SECRET_PREFIX = "whsec_"  # noqa: S105 - what a secret begins with
MIN_SECRET_BYTES = 24
MAX_SECRET_BYTES = 64
"""Standard Webhooks' limits of a key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhooks:
    """Who is told of the ends of async calls; an empty URL is nobody."""

    on_success: str = ""
    on_failure: str = ""
    """Of a call that ends in `error` or `cancelled`."""
    secret: str = field(default="", repr=False)
    """`whsec_` and the key in base64; signs every message, never shown again."""

    def problems(self) -> list[str]:
        """A sentence for each thing that is wrong with it; the secret is in none."""
        problems = []
        for name, url in (("on_success", self.on_success), ("on_failure", self.on_failure)):
            if url and (problem := url_problem(url)):
                problems.append(f"webhooks: {name} {problem}")
        key = _key_of(self.secret)
        if key is None or not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
            problems.append(
                f"webhooks: secret must be `{SECRET_PREFIX}` and {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes"
                " in base64"
            )
        return problems

    def to_json(self) -> dict[str, str]:
        """As it is stored."""
        return {"on_success": self.on_success, "on_failure": self.on_failure, "secret": self.secret}

    @classmethod
    def from_json(cls, stored: Mapping[str, str]) -> Webhooks:
        """From what `to_json` made."""
        return cls(**stored)


class DeliveryStatus(StrEnum):
    """The life of a delivery: pending -> delivered | failed; `redeliver` makes it pending again."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One message about a call's end, and what became of it."""

    call_id: str
    number: int
    """From 1, in the order in which they were made for the call."""
    url: str
    status: DeliveryStatus
    created_at: datetime
    tries: int = 0
    """How many began; also the fence: only the latest may say what became of the message."""
    last_try: int
    """The number of the try after which it is given up."""
    next_try_at: datetime | None = None
    """When it is tried next; while a node tries, when another one may."""
    completed_at: datetime | None = None
    status_code: int | None = None
    """The receiver's latest answer."""
    error: str = ""

    @property
    def message_id(self) -> str:
        """The same for every try, so that the receiver can drop what it has had; without a dot, by the standard."""
        return f"{self.call_id}-{self.number}"


def url_problem(url: str) -> str:
    """What is wrong with the URL of a receiver, as the end of a sentence; empty when nothing is."""
    if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url:
        return f"must be a URL of at most {MAX_URL} printable ASCII characters"
    try:
        parts = urlsplit(url)
        is_complete = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_complete = False
    if not is_complete:
        return "must be an absolute http or https URL"
    if parts.username is not None or parts.fragment:
        return "must have no user, password or fragment"
    return ""


def signature_of(secret: str, message_id: str, timestamp_s: int, body: bytes) -> str:
    """The value of `webhook-signature`; raises `ValueError` for a secret that can't be one."""
    key = _key_of(secret)
    if key is None:
        raise ValueError("the webhook's secret can't be read")
    digest = hmac.digest(key, b"%b.%d.%b" % (message_id.encode(), timestamp_s, body), hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"


def _key_of(secret: str) -> bytes | None:
    if not secret.startswith(SECRET_PREFIX):
        return None
    try:
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return None
