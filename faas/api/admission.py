"""Requests under `/r/` that do not go straight from their connection into a container: those of async calls.

read in full -> options -> accepted, on disk -> 202 with the id
                                           `-> Prefer: wait=N -> the end within N seconds: the result
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from faas.api.encoding import JSON_CONTENT_TYPE, to_json
from faas.api.submission_options import submission_options, wait_preference_s
from faas.clock import utc_now
from faas.errors import FaasError, InternalError
from faas.models import CallRequest
from faas.wire.headers import HOP_BY_HOP

if TYPE_CHECKING:
    from datetime import datetime

    from faas.api.exchange import Exchange
    from faas.api.request_head import RequestHead
    from faas.models import Call, CallResult
    from faas.runner.functions import Function

__all__ = ["Admission", "Ends", "Submit"]


class Submit(Protocol):
    """Accepts calls for later."""

    async def __call__(
        self,
        function: Function,
        request: CallRequest,
        *,
        priority: int = 0,
        not_before: datetime | None = None,
        expires_at: datetime | None = None,
    ) -> Call:
        """When this returns the call is on disk; raises `FaasError` when it is not accepted."""


class Ends(Protocol):
    """What became of calls."""

    async def get(self, call_id: str, *, wait_s: float = 0) -> Call:
        """The record, after the call's end or `wait_s`."""

    async def result(self, call_id: str) -> CallResult:
        """What a sync caller would have got."""


class Admission:
    """Decides what becomes of such requests, and answers them."""

    def __init__(self, submit: Submit, ends: Ends) -> None:
        self._submit = submit
        self._ends = ends

    async def admit(self, exchange: Exchange) -> None:
        """Answer a request that is complete."""
        try:
            await self._accept(exchange)
        except FaasError as error:
            exchange.refuse(error)
        except Exception:
            if not exchange.response_complete:
                exchange.refuse(InternalError())
            raise

    async def _accept(self, exchange: Exchange) -> None:
        head = exchange.request_head
        options = submission_options(head.fields, utc_now())
        call = await self._submit(
            exchange.function,
            _call_request(head, bytes(exchange.body)),
            priority=options.priority,
            not_before=options.not_before,
            expires_at=options.expires_at,
        )
        await self._answer(exchange, call.id)

    async def _answer(self, exchange: Exchange, call_id: str) -> None:
        """Answer for a call that is accepted: nothing that happens from here on may look as if it were not."""
        head = exchange.request_head
        wait_s = wait_preference_s(head.prefer)
        extra = b"X-Call-Id: %b\r\n" % call_id.encode() + _applied(head, wait_s)
        result = None
        try:
            if wait_s:
                result = await self._result_within(exchange, call_id, wait_s)
        finally:
            # Also when the node shuts down: the call is accepted all the same.
            if result is None:
                location = (b"location", b"/v1/calls/" + call_id.encode())
                exchange.respond(202, [_JSON, location], to_json({"call_id": call_id}), extra)
        if result is not None:
            exchange.respond(result.status_code, list(result.headers), result.body, extra + _extra_of(result))

    async def _result_within(self, exchange: Exchange, call_id: str, wait_s: float) -> CallResult | None:
        task = asyncio.current_task()
        assert task is not None
        exchange.on_client_gone = task.cancel
        try:
            call = await self._ends.get(call_id, wait_s=wait_s)
            return await self._ends.result(call_id) if call.status.is_final else None
        except FaasError:
            return None  # its record says more than this answer could
        finally:
            exchange.on_client_gone = None


_JSON = (b"content-type", JSON_CONTENT_TYPE.encode())


def _call_request(head: RequestHead, body: bytes) -> CallRequest:
    return CallRequest(
        method=head.method.decode("latin-1"),
        url=head.url.decode("latin-1"),
        headers=tuple(header for header in head.headers if header[0] not in HOP_BY_HOP),
        body=body,
    )


def _applied(head: RequestHead, wait_s: int) -> bytes:
    """RFC 7240 section 3: what was done of what the caller preferred."""
    applied = [b"respond-async"] if head.wants_async else []
    if wait_s:
        applied.append(b"wait=%d" % wait_s)
    return b"Preference-Applied: %b\r\n" % b", ".join(applied) if applied else b""


def _extra_of(result: CallResult) -> bytes:
    """The lines of a kept result that only this node may write."""
    code = dict(result.headers).get(b"faas-error")
    lines = b"Faas-Error: %b\r\n" % code if code is not None else b""
    return lines + b"X-Result-Truncated: true\r\n" if result.is_truncated else lines
