"""Runs a satellite's calls in places that it borrows from the primary: what an `Agent` is for its node.

    call -> an idle place of its function -> runs there as it would in the primary
         -> none: in line here, and a claim for it in the primary's line -> granted: the first call in line has it
A place is kept for the next calls of its function: it goes back when it was idle for a moment, when others wait for
one (`Recall`), and when something went wrong in it. For every call in line here there is a claim in line there; claims
are about a function and not about a call, so that a call may have a place that became idle here, and its claim is
withdrawn.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import TYPE_CHECKING

from faas.clock import monotonic
from faas.errors import (
    CallTimeoutError,
    ClientGoneError,
    FaasError,
    FunctionFailedError,
    ShuttingDownError,
)
from faas.models import FormatName
from faas.processes.borrowed import BorrowedContainer, Place
from faas.processes.failure import Failure
from faas.processes.line import Line
from faas.processes.messages import Break, Claim, Recalled, Return, Withdrawal
from faas.runner.call_log import LogBuffer
from faas.runner.supervisor import OPEN_S, SWEEP_S, Supervisor, send_body
from faas.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import Callable

    from faas.processes.messages import Grant, Message, Output, Recall, Refusal, Settled
    from faas.runner.formats.base import HotFormat
    from faas.runner.functions import Function, FunctionTable
    from faas.runner.invocation import Invocation
    from faas.runner.slot import Slot

__all__ = ["BorrowingAgent"]

logger = logging.getLogger(__name__)

KEEP_S = 0.1
"""How long an idle place is kept. The primary counts it as used meanwhile; another process that needs it asks."""

LATE_OUTPUT_S = 2.0
"""How long the log of the last call is open to what its container still writes after the place went back."""


class BorrowingAgent(Supervisor):
    """See above."""

    def __init__(
        self,
        table: FunctionTable,
        hot_format: HotFormat,
        send: Callable[[Message], None],
        *,
        queue_timeout_s: float,
        max_log_bytes: int,
        observe: Callable[[Invocation], None],
    ) -> None:
        super().__init__(observe)
        self._table = table
        self._format = hot_format
        self._send = send
        self._queue_timeout_s = queue_timeout_s
        self._max_log_bytes = max_log_bytes
        self._claim_ids = itertools.count(1)
        self._lines: dict[str, Line] = {}
        self._line_of_claim: dict[int, str] = {}
        self._containers: dict[str, BorrowedContainer] = {}
        """By id; those that were given back lately too, since they may still write something."""
        self._settling: dict[int, Invocation] = {}
        """Calls without an answer, by the loan they broke."""
        self._is_closing = False
        self.tasks = TaskSet("borrowing")

    def __repr__(self) -> str:
        places = sum(len(line.places) for line in self._lines.values())
        return f"<BorrowingAgent {len(self.running)} calls, {places} places, {len(self._line_of_claim)} claims>"

    @property
    def waiting(self) -> int:
        """Calls in line."""
        return sum(len(line.waiting) for line in self._lines.values())

    # --- the data plane asks

    def start(self, invocation: Invocation) -> None:
        """Run a call; its sink hears of the end, also when there is no place. Never raises."""
        self.running[invocation.id] = invocation
        line = self._lines.get(invocation.function.key)
        if line is not None and line.idle:
            line.idle.pop().slot.run(invocation)
        else:
            self._enqueue(invocation)

    def _enqueue(self, invocation: Invocation) -> None:
        if self._is_closing:
            self._end(invocation, ShuttingDownError())
            return
        function = invocation.function
        line = self._lines.get(function.key)
        if line is None:
            line = self._lines[function.key] = Line()
        line.waiting.append(invocation)
        if len(line.waiting) > len(line.claims):
            self._claim(function, line, invocation)

    def _claim(self, function: Function, line: Line, invocation: Invocation) -> None:
        claim_id = next(self._claim_ids)
        line.claims[claim_id] = None
        self._line_of_claim[claim_id] = function.key
        self._send(
            Claim(
                id=claim_id,
                key=function.key,
                app_name=function.app_name,
                path=function.path,
                deadline=invocation.accepted_at + self._queue_timeout_s,
            )
        )

    def _withdraw(self, invocation: Invocation) -> bool:
        line = self._lines.get(invocation.function.key)
        if line is None or invocation not in line.waiting:
            return False
        line.waiting.remove(invocation)
        self._trim(invocation.function.key, line)
        return True

    def _trim(self, key: str, line: Line) -> None:
        """Withdraw the claims that no call is in line for, and forget a line that is done.

        The oldest claims go: the calls that they were made for have been served, and those in line came later.
        """
        surplus = len(line.claims) - len(line.waiting)
        if surplus > 0:
            ids = tuple(line.claims)[:surplus]
            for claim_id in ids:
                del line.claims[claim_id], self._line_of_claim[claim_id]
            self._send(Withdrawal(ids=ids))
        if line.is_unused:
            self._lines.pop(key, None)

    def _withdraw_used(self, line: Line) -> None:
        if line.used:
            for claim_id in line.used:
                self._line_of_claim.pop(claim_id, None)
            self._send(Withdrawal(ids=tuple(line.used)))
            line.used.clear()

    # --- the primary answers

    def granted(self, grant: Grant) -> None:
        """A claim has its place."""
        key = self._line_of_claim.pop(grant.id, None)
        if key is None:
            self._send(Return(id=grant.id, is_fit=True))
            return
        line = self._lines[key]
        line.forget(grant.id)
        container = self._containers.get(grant.container_id)
        if container is None:
            container = BorrowedContainer(grant.container_id, max_log_bytes=self._max_log_bytes)
            self._containers[container.id] = container
        place = Place(container, grant, key, self._format, self)
        container.places[place] = None
        line.places[place] = None
        if grant.is_recalled:
            place.recall()
        if line.waiting:
            invocation = line.waiting.popleft()
            place.first(invocation, grant)
            place.slot.run(invocation)
        else:
            self._free(place)

    def refused(self, refusal: Refusal) -> None:
        """There is no place for a claim: the first in line hears of it, unless it may wait longer."""
        key = self._line_of_claim.pop(refusal.id, None)
        if key is None:
            return
        line = self._lines[key]
        line.forget(refusal.id)
        if len(line.claims) < len(line.waiting):
            invocation = line.waiting.popleft()
            error = refusal.failure.error()
            if refusal.is_stale:
                self._start_anew(invocation, error)
            else:
                if refusal.start_log:
                    invocation.log = LogBuffer(self._max_log_bytes)
                    invocation.log.append(refusal.start_log)
                self._end(invocation, error)
        if line.is_unused:
            self._lines.pop(key, None)

    def _start_anew(self, invocation: Invocation, error: FaasError) -> None:
        """The route was changed while a call waited: it runs as the route is now, if it can run here."""
        old = invocation.function
        try:
            function = self._table.get(old.app_name, old.path)
        except FaasError as missing:
            self._end(invocation, missing)
            return
        if function.is_async or function.format is not FormatName.HTTP_STREAM:
            self._end(invocation, error)
            return
        invocation.function = function
        self.start(invocation)

    def recall(self, recall: Recall) -> None:
        """Others wait: what runs nothing goes back now, the rest after its call."""
        line = self._lines.get(recall.key)
        if line is not None:
            for place in line.places:
                place.recall()
            for place in list(line.idle):
                self._give_back(place, is_fit=True)
            self._trim(recall.key, line)
        self._send(Recalled(key=recall.key))

    def retired(self, key: str) -> None:
        """A function was replaced or removed: the places in its containers go back as soon as they can."""
        line = self._lines.get(key)
        if line is not None:
            for place in line.places:
                place.recall()
            for place in list(line.idle):
                self._give_back(place, is_fit=True)

    def output(self, output: Output) -> None:
        """A container wrote something."""
        container = self._containers.get(output.container_id)
        if container is not None:
            container.output_received(output.data)

    def settled(self, settled: Settled) -> None:
        """A call that had no answer runs no more."""
        invocation = self._settling.pop(settled.id)
        invocation.runner = None
        self._end(invocation, invocation.stop or settled.failure.error())

    # --- SlotOwner: the places tell

    def call_answered(self, slot: Slot[Place], invocation: Invocation, *, is_reusable: bool) -> None:
        """The answer of a call is complete."""
        invocation.runner = None
        if not is_reusable or invocation.stream is not None:
            # As in `Agent.call_answered`: what is still on the way must not reach the next call.
            slot.drop_channel()
        self._free(slot.container)
        self._end(invocation, None)

    def call_broke(self, slot: Slot[Place], invocation: Invocation, error: FaasError) -> None:
        """A call got no complete answer."""
        if isinstance(error, FunctionFailedError | CallTimeoutError):
            # Fn's contract: the function said so itself, with 502 or 504, and may go on.
            invocation.runner = None
            self._free(slot.container)
            self._end(invocation, error)
        else:
            self._break(slot.container, invocation, error)

    def needs_opening(self, slot: Slot[Place], invocation: Invocation) -> None:
        """The call can't begin before a channel is opened."""
        self.tasks.spawn(self._open(slot, invocation), name=f"open/{invocation.id}")

    def body_streams(self, slot: Slot[Place], invocation: Invocation) -> None:
        """A call was sent whose body is still arriving."""
        invocation.body_task = self.tasks.spawn(send_body(slot, invocation), name=f"body/{invocation.id}")

    def stop_hot_call(self, slot: Slot[Place], invocation: Invocation, error: FaasError) -> None:
        """A running call must end now."""
        slot.detach()
        if isinstance(error, ClientGoneError) and invocation.function.concurrency > 1:
            # As in `Agent.stop_hot_call`: others' calls in the container must not end with it.
            invocation.runner = None
            self._give_back(slot.container, is_fit=True)
            self._end(invocation, error)
        else:
            self._break(slot.container, invocation, error)

    def _break(self, place: Place, invocation: Invocation, error: FaasError) -> None:
        """The primary sees to it that the call runs no more; then its caller is told."""
        self._settling[place.loan_id] = invocation
        self._drop(place)
        self._send(Break(id=place.loan_id, failure=Failure.of(error), is_stopped=invocation.stop is not None))

    def _free(self, place: Place) -> None:
        """A place runs nothing: the next call has it, unless others wait for it."""
        line = self._lines[place.key]
        if place.turn_ends and (not line.waiting or monotonic() > place.turn_ends):
            self._give_back(place, is_fit=True)
        elif line.waiting:
            if place.turn_ends:
                line.use_claim()
            place.slot.run(line.waiting.popleft())
        else:
            place.idle_since = monotonic()
            line.idle.append(place)

    def _give_back(self, place: Place, *, is_fit: bool) -> None:
        self._withdraw_used(self._lines[place.key])
        self._drop(place)
        self._send(Return(id=place.loan_id, is_fit=is_fit))

    def _drop(self, place: Place) -> None:
        """A place is ours no more. Its connection is closed first: the function may serve one after the other."""
        place.slot.drop_channel()
        line = self._lines[place.key]
        del line.places[place]
        if place in line.idle:
            line.idle.remove(place)
        place.container.leave(place)
        if line.is_unused:
            self._lines.pop(place.key, None)

    async def _open(self, slot: Slot[Place], invocation: Invocation) -> None:
        slot.drop_channel()
        try:
            async with asyncio.timeout(OPEN_S):
                channel = await self._format.reopen(slot.container)
        except (FaasError, TimeoutError):
            is_fit = False
        else:
            slot.opened(channel)
            is_fit = channel.is_usable
            if is_fit and invocation.stop is None:
                slot.begin(invocation, channel, monotonic())
                return
        # Nothing was sent: the call ends here, or gets another place because this one is no good any more.
        slot.invocation = invocation.runner = None
        if is_fit:
            self._free(slot.container)
        else:
            self._give_back(slot.container, is_fit=False)
        if invocation.stop is not None:
            self._end(invocation, invocation.stop)
        else:
            self.start(invocation)

    # --- from time to time, and at the end

    async def sweep_forever(self) -> None:
        """Look after the time limits of calls, and give back what is not used."""
        while True:
            await asyncio.sleep(SWEEP_S)
            self.stop_late()
            self.sweep()

    def sweep(self) -> None:
        """Give back idle places, withdraw claims that nobody needs, forget containers."""
        now = monotonic()
        for key, line in list(self._lines.items()):
            for place in list(line.idle):
                if now - place.idle_since > KEEP_S:
                    self._give_back(place, is_fit=True)
            if key in self._lines:
                self._trim(key, line)
        for container_id, container in list(self._containers.items()):
            if not container.places and now - container.left_at > LATE_OUTPUT_S:
                del self._containers[container_id]

    async def close(self, grace_s: float) -> None:
        """Take no more calls, wait for those that run; what is left then is stopped, and its end waited for."""
        self._is_closing = True
        try:
            async with asyncio.timeout(grace_s):
                await self.all_ended()
        except TimeoutError:
            self.hurry()
            await self.all_ended()
        for line in list(self._lines.values()):
            for place in list(line.idle):
                self._give_back(place, is_fit=True)
