"""Accepting calls for later."""

from __future__ import annotations

from typing import TYPE_CHECKING

from faas.clock import utc_now
from faas.errors import InvalidRequestError
from faas.ids import created_at_of, new_id
from faas.models import Call, CallStatus, CallType
from faas.webhooks import Webhooks

if TYPE_CHECKING:
    from datetime import datetime

    from faas.calls.acceptance import Acceptance
    from faas.calls.events import CallEvents
    from faas.models import CallRequest
    from faas.runner.functions import Function

__all__ = ["Submission"]


class Submission:
    """Accepts calls: first on disk, then in line."""

    def __init__(self, acceptance: Acceptance, events: CallEvents) -> None:
        self._acceptance = acceptance
        self._events = events

    async def submit(
        self,
        function: Function,
        request: CallRequest,
        *,
        priority: int = 0,
        not_before: datetime | None = None,
        expires_at: datetime | None = None,
        callback_url: str = "",
        call_id: str | None = None,
    ) -> Call:
        """Accept a call for later; when this returns it is on disk and will run, unless it can't begin by `expires_at`.

        `callback_url`: who is told of the end instead of the route's webhooks; signed with their secret.
        `call_id`: a fresh id that somebody has written down already.

        Raises `InvalidRequestError` for a `callback_url` when the route has no secret, `StoreUnavailableError`,
        `QueueUnavailableError`; then nothing was accepted.
        """
        is_delayed = not_before is not None and not_before > utc_now()
        call_id = call_id or new_id()
        call = Call(
            id=call_id,
            app_name=function.app_name,
            path=function.path,
            type=CallType.ASYNC,
            status=CallStatus.DELAYED if is_delayed else CallStatus.QUEUED,
            created_at=created_at_of(call_id),
            priority=priority,
            not_before=not_before,
            expires_at=expires_at,
            webhooks=_webhooks_of(function, callback_url),
        )
        await self._acceptance.accept(call, request)
        self._events.publish(call)
        return call


def _webhooks_of(function: Function, callback_url: str) -> Webhooks | None:
    known = function.webhooks
    if not callback_url:
        return known if known is not None and (known.on_success or known.on_failure) else None
    if known is None:
        raise InvalidRequestError(
            "X-Callback-Url needs a secret to sign with: give the route `webhooks` with a `secret`"
        )
    return Webhooks(on_success=callback_url, on_failure=callback_url, secret=known.secret)
