"""Server-Sent Events (WHATWG HTML, section 9.2): how they are written, and the answer that carries them."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from starlette.responses import StreamingResponse

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from pydantic import BaseModel
    from starlette.types import Receive, Scope, Send

__all__ = ["EVENT_STREAM", "HEARTBEAT", "OPENING", "LiveResponse", "event"]

EVENT_STREAM = "text/event-stream"

OPENING = b"retry: 1000\n: following\n\n"
"""The first bytes of every stream: a client that lost it comes back after a second, and one that waits for this
line misses nothing from then on."""

HEARTBEAT = b": alive\n\n"


def event(name: str, data: BaseModel, *, event_id: str = "") -> bytes:
    """One event; its data is JSON on one line."""
    identity = f"id: {event_id}\n" if event_id else ""
    return f"event: {name}\n{identity}data: {data.model_dump_json()}\n\n".encode()


class LiveResponse(StreamingResponse):
    """An answer that goes on until its source ends or its client hangs up; then the source is closed, wherever it is.

    The source is asked for more only when the client has taken most of what was sent.
    """

    def __init__(self, source: AsyncGenerator[bytes, None], *, media_type: str) -> None:
        # Not to be kept, nor (nginx's word) to be gathered on the way.
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(source, headers=headers, media_type=media_type)
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One answer."""
        async with aclosing(self._source):
            await super().__call__(scope, receive, send)
