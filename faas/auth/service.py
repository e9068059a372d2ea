"""The service's own door: with `JWT_AUTH_KEY` set, `/v1` and `/tasks` want a bearer token signed by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from faas.auth import route_token
from faas.errors import UnauthorizedError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["ServiceAuth"]

GUARDED = ("/v1", "/tasks")

BODY = b'{"error":"Invalid API Authorization token."}\n'
"""IronFunctions' very words, a string where all other errors have an object; its clients look for them."""


class ServiceAuth:
    """Pure ASGI: passes on what is not guarded or carries a valid token, answers 401 to the rest."""

    def __init__(self, app: ASGIApp, *, key: str) -> None:
        self._app = app
        self._key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http" and _is_guarded(scope["path"]):
            header = next((value for name, value in scope["headers"] if name == b"authorization"), None)
            try:
                route_token.check(header, self._key)
            except UnauthorizedError as error:
                await _refuse(send, error)
                return
        await self._app(scope, receive, send)


def _is_guarded(path: str) -> bool:
    return any(path == prefix or path.startswith(prefix + "/") for prefix in GUARDED)


async def _refuse(send: Send, error: UnauthorizedError) -> None:
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(BODY)).encode()),
        (b"faas-error", error.code.encode()),
        (b"www-authenticate", b'Bearer realm=""'),
    ]
    await send({"type": "http.response.start", "status": error.http_status, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})
