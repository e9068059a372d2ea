"""Requests under `/r/` that do not go straight from their connection into a container: they are read in full first.

An async call is accepted, once it is on disk, with 202 and its id; who prefers to wait gets the result instead, if that
comes in time. With an `Idempotency-Key`, async or sync:

    the first     -> accepted as any other, or run here, its answer kept on its way to the caller
    repeats of it -> 202 with the first's id, or the first's answer
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from faas.api.encoding import JSON_CONTENT_TYPE, to_json
from faas.api.idempotency_key import fingerprint_of, read_key
from faas.api.submission_options import NO_OPTIONS, submission_options, wait_preference_s
from faas.calls.idempotency import TWIN_WAIT_S
from faas.clock import utc_now
from faas.errors import (
    FaasError,
    IdempotencyKeyInUseError,
    IdempotentAnswerNotKeptError,
    InternalError,
    ResultNotKeptError,
)
from faas.models import CallRequest
from faas.runner.collector import Collector
from faas.runner.tee import Tee
from faas.wire.headers import HOP_BY_HOP

if TYPE_CHECKING:
    from datetime import datetime

    from faas.api.exchange import Exchange
    from faas.api.request_head import RequestHead
    from faas.api.submission_options import SubmissionOptions
    from faas.calls.idempotency import IdempotentCalls
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
        call_id: str | None = None,
        callback_url: str = "",
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

    def __init__(self, submit: Submit, ends: Ends, once: IdempotentCalls, *, max_result_bytes: int) -> None:
        self._submit = submit
        self._ends = ends
        self._once = once
        self._max_result_bytes = max_result_bytes

    async def admit(self, exchange: Exchange) -> None:
        """Answer a request that is complete."""
        try:
            if b"idempotency-key" in exchange.request_head.fields:
                await self._admit_once(exchange)
            else:
                call = await self._accept(exchange, _options(exchange))
                await self._answer(exchange, call.id)
        except FaasError as error:
            exchange.refuse(error)
        except Exception:
            if not exchange.response_complete:
                exchange.refuse(InternalError())
            raise

    async def _admit_once(self, exchange: Exchange) -> None:
        head = exchange.request_head
        key = read_key(head.fields[b"idempotency-key"])
        options = _options(exchange)
        claim = await self._once.claim(exchange.function, key, fingerprint_of(head, bytes(exchange.body)))
        if not claim.is_first:
            await self._repeat(exchange, claim.call_id)
        elif exchange.is_async:
            try:
                await self._accept(exchange, options, call_id=claim.call_id)
            except FaasError:
                await self._once.release(claim.call_id)
                raise
            await self._once.accepted(claim.call_id)
            await self._answer(exchange, claim.call_id)
        else:
            answer = Collector(self._max_result_bytes)
            invocation = exchange.run(claim.call_id, Tee(exchange, answer))
            await answer.ended
            await self._once.ended(invocation, answer)

    async def _repeat(self, exchange: Exchange, call_id: str) -> None:
        """Answer as the first request was answered, or would have been."""
        if exchange.is_async:
            await self._answer(exchange, call_id, _REPLAYED)
            return
        call = await self._ends.get(call_id, wait_s=TWIN_WAIT_S)
        if not call.status.is_final:  # the first one was async
            raise IdempotencyKeyInUseError
        try:
            result = await self._ends.result(call_id)
        except ResultNotKeptError:
            raise IdempotentAnswerNotKeptError(call_id) from None
        _respond_with(exchange, result, b"X-Call-Id: %b\r\n" % call_id.encode() + _REPLAYED)

    async def _accept(self, exchange: Exchange, options: SubmissionOptions, *, call_id: str | None = None) -> Call:
        return await self._submit(
            exchange.function,
            _call_request(exchange.request_head, bytes(exchange.body)),
            priority=options.priority,
            not_before=options.not_before,
            expires_at=options.expires_at,
            call_id=call_id,
            callback_url=options.callback_url,
        )

    async def _answer(self, exchange: Exchange, call_id: str, extra: bytes = b"") -> None:
        """Answer for a call that is accepted: nothing that happens from here on may look as if it were not."""
        head = exchange.request_head
        wait_s = wait_preference_s(head.prefer)
        extra += b"X-Call-Id: %b\r\n" % call_id.encode() + _applied(head, wait_s)
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
            _respond_with(exchange, result, extra)

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


_REPLAYED = b"Idempotent-Replayed: true\r\n"
"""Stripe's word for an answer that was not made for this request; the draft has none."""

_JSON = (b"content-type", JSON_CONTENT_TYPE.encode())


def _options(exchange: Exchange) -> SubmissionOptions:
    # On a sync call such headers are the function's own business.
    return submission_options(exchange.request_head.fields, utc_now()) if exchange.is_async else NO_OPTIONS


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


def _respond_with(exchange: Exchange, result: CallResult, extra: bytes) -> None:
    """Answer with a result that was kept; `extra` and what is added here are lines that only this node may write."""
    code = dict(result.headers).get(b"faas-error")
    if code is not None:
        extra += b"Faas-Error: %b\r\n" % code
    if result.is_truncated:
        extra += b"X-Result-Truncated: true\r\n"
    exchange.respond(result.status_code, list(result.headers), result.body, extra)
