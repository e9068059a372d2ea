"""What the control API takes: addresses without a zero byte; bodies whole, at most 1 MiB, JSON whatever their label."""

from __future__ import annotations

from typing import TYPE_CHECKING

from faas.api.errors import error_response
from faas.errors import BodyTooLargeError, InvalidRequestError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["MAX_CONTROL_BODY_BYTES", "ControlRequests"]

MAX_CONTROL_BODY_BYTES = 1024 * 1024
"""No app or route is bigger; what functions take and give passes through the data plane."""


class ControlRequests:
    """Pure ASGI. Hands the application each body in one piece; beyond the limit answers 413 and reads no further.

    `curl -d` labels a body as a form and IronFunctions does not look at the label, so that it is replaced.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int = MAX_CONTROL_BODY_BYTES) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http" and ("\0" in scope["path"] or b"%00" in scope["query_string"]):
            # No name holds one, and PostgreSQL can't even be asked.
            response = error_response(InvalidRequestError("The address holds a zero byte (%00)"))
            await response(scope, receive, send)
            return
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        body = await self._read(scope, receive)
        if body is None:
            error = BodyTooLargeError(f"The body is larger than the {self._max_bytes} bytes that this address takes")
            response = error_response(error)
            # What is left of the body is not read, so that the connection can't be used again.
            response.headers["connection"] = "close"
            await response(scope, receive, send)
            return
        headers = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
        headers.append((b"content-type", b"application/json"))
        await self._app({**scope, "headers": headers}, _replay(body, receive), send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The body, `None` when it is too large."""
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        if declared.isdigit() and int(declared) > self._max_bytes:
            return None
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return bytes(body)  # Nobody reads the answer any more; the rest of a body is no JSON.
            body += message.get("body", b"")
            if len(body) > self._max_bytes:
                return None
            if not message.get("more_body", False):
                return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    is_given = False

    async def replay() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
