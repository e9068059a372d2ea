"""`Idempotency-Key`: of equal requests with the same key one runs, the others get what became of it.

    claim -> first:  async: accepted -----------------------> settled
                     sync:  runs, its answer is kept -------> settled
                            never began (no capacity ...) --> released: the next one is the first
          -> repeat: waits until the first is settled, then stands for the same call

The key is a row in the database all nodes share. While its call is under way here the row is held, and held again, so
that the key of a node that died is free after `HOLD_S`.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn

from faas.clock import monotonic, utc_now
from faas.errors import FaasError, IdempotencyKeyInUseError, IdempotencyKeyReusedError
from faas.ids import new_id
from faas.recorder import log_of
from faas.store.idempotency import ClaimedKey

if TYPE_CHECKING:
    from faas.calls.waiting import Waiters
    from faas.models import CallResult
    from faas.recorder import Recorder
    from faas.runner.collector import Collector
    from faas.runner.functions import Function
    from faas.runner.invocation import Invocation
    from faas.store.engine import Store

__all__ = ["Claim", "IdempotentCalls"]

logger = logging.getLogger(__name__)

HOLD_S = 30.0
"""How long a claim stands without being renewed: past this its node is taken for dead."""

RENEW_S = 10.0

TWIN_WAIT_S = 30.0
"""How long a repeat waits for the first call before it is told to come again."""

LOOK_S = 0.5
"""How often it looks at the key, for first calls on other nodes."""

PURGE_S = 60.0
PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Which call a request with a key stands for."""

    call_id: str
    is_first: bool
    """Whether the claimant has to run it, and to end the claim with `accepted`, `ended` or `release`."""


class IdempotentCalls:
    """The keys, as seen from one node."""

    def __init__(self, store: Store, recorder: Recorder, waiters: Waiters, *, retention_s: int) -> None:
        self._keys = store.idempotency_keys
        self._calls = store.calls
        self._recorder = recorder
        self._waiters = waiters
        self._retention_s = retention_s
        self._held: set[str] = set()
        """Calls whose claims are this node's to renew."""

    async def claim(self, function: Function, key: str, fingerprint: str) -> Claim:
        """Find out whether this request is the first with its key; a repeat returns once the first one is settled.

        Raises `IdempotencyKeyReusedError` for another request with the same key, `IdempotencyKeyInUseError` when the
        first is not settled within `TWIN_WAIT_S`, `StoreUnavailableError`.
        """
        call_id, now = new_id(), utc_now()
        wanted = ClaimedKey(
            app_name=function.app_name,
            path=function.path,
            key=key,
            fingerprint=fingerprint,
            call_id=call_id,
            created_at=now,
            held_until=now + timedelta(seconds=HOLD_S),
        )
        found = await self._claim_in_turn(wanted)
        if found.call_id != call_id:
            return Claim(call_id=found.call_id, is_first=False)
        self._held.add(call_id)
        return Claim(call_id=call_id, is_first=True)

    async def _claim_in_turn(self, wanted: ClaimedKey) -> ClaimedKey:
        deadline = monotonic() + TWIN_WAIT_S
        while True:
            now = utc_now()
            wanted = replace(wanted, created_at=now, held_until=now + timedelta(seconds=HOLD_S))
            found = await self._keys.claim(wanted, now)
            if found is None:
                continue
            if found.call_id == wanted.call_id:
                return found
            if found.fingerprint != wanted.fingerprint:
                raise IdempotencyKeyReusedError
            if found.held_until is None:
                return found
            if monotonic() >= deadline:
                raise IdempotencyKeyInUseError
            await self._until_it_changes(found, deadline)

    async def _until_it_changes(self, held: ClaimedKey, deadline: float) -> None:
        """Return when a claim is settled, released or lapsed, or at the deadline."""
        while (left_s := deadline - monotonic()) > 0:
            with self._waiters.waiting(held.call_id) as told:
                found = await self._keys.find(held)
                if found is None or found.held_until is None or found.held_until <= utc_now():
                    return
                await asyncio.wait([told], timeout=min(left_s, LOOK_S))

    async def accepted(self, call_id: str) -> None:
        """An async first call is on disk. Never raises: without this the key settles when its claim lapses."""
        try:
            await self._keys.settle(call_id)
        except FaasError as error:
            logger.warning("idempotency_key_not_settled", extra={"call_id": call_id, "error": error.message})
        finally:
            self._let_go(call_id)

    async def ended(self, invocation: Invocation, answer: Collector) -> None:
        """A sync first call has ended: keep its answer, if there is all of it. Never raises, as `accepted`."""
        if answer.error is not None and not invocation.running_since:
            await self.release(invocation.id)
            return
        record = self._recorder.view(invocation)
        try:
            await self._calls.record_many([(record, self._result(invocation, answer), log_of(invocation))])
        except FaasError as error:
            logger.warning("idempotent_answer_not_kept", extra={"call_id": invocation.id, "error": error.message})
        await self.accepted(invocation.id)

    def _result(self, invocation: Invocation, answer: Collector) -> CallResult | None:
        if answer.error is None:
            result = answer.result()
            # A part of an answer would pass for all of it.
            return None if result.is_truncated else result
        failed = self._recorder.result(invocation)
        if failed is None:
            return None
        # As on the answer that its caller got.
        own = [header for header in invocation.function.response_headers if header[0] != b"content-type"]
        return replace(failed, headers=(*failed.headers, *own))

    async def release(self, call_id: str) -> None:
        """A first call never began; never raises, as `accepted`."""
        try:
            await self._keys.release(call_id)
        except FaasError as error:
            logger.warning("idempotency_key_not_released", extra={"call_id": call_id, "error": error.message})
        finally:
            self._let_go(call_id)

    def _let_go(self, call_id: str) -> None:
        self._held.discard(call_id)
        self._waiters.wake(call_id)

    async def hold_forever(self) -> NoReturn:
        """Renew the claims of calls that are under way here."""
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                await self.hold()
            except FaasError as error:
                logger.warning("idempotency_keys_not_renewed", extra={"error": error.message})

    async def hold(self) -> None:
        """Renew them now."""
        if self._held:
            await self._keys.hold(self._held, utc_now() + timedelta(seconds=HOLD_S))

    async def purge_forever(self) -> NoReturn:
        """Delete keys past their retention."""
        while True:
            try:
                await self.purge()
            except FaasError as error:
                logger.warning("idempotency_purge_failed", extra={"error": error.message})
            await asyncio.sleep(PURGE_S)

    async def purge(self) -> int:
        """Delete them now; returns how many."""
        before, count = utc_now() - timedelta(seconds=self._retention_s), 0
        while deleted := await self._keys.purge(before=before, limit=PAGE):
            count += deleted
        return count
