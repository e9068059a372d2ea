"""Following a call: its states, its attempts and its log, told as they come, from anywhere on and without a gap.

Nothing is kept for a follower: he says how far he was told (`Position`), and each look at the call tells what is
beyond. What happens to the call only makes him look, so that a lost notification costs `POLL_S` and nothing else, and
one who takes long to read is told more at once.

The log of a call that runs on this node comes as it is written; of a queued call that runs on another node when the
attempt has ended and its log is stored. An attempt's log begins anew with each attempt; so does what `Position` counts.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from faas.calls.history import AttemptEnded, Position, StateChange, changes_of
from faas.calls.lookup import POLL_S
from faas.clock import monotonic, utc_now
from faas.models import CallStatus, CallType
from faas.runner.invocation import State

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from contextlib import AbstractContextManager

    from faas.calls.events import CallEvents, Watch
    from faas.calls.history import Change
    from faas.calls.lookup import Lookup
    from faas.models import Call
    from faas.runner.agent import Agent
    from faas.runner.invocation import Invocation

__all__ = ["HEARTBEAT_S", "CallEnded", "Following", "LogLine", "Told"]

HEARTBEAT_S = 15.0
"""A follower hears at least that often; proxies in between give up on a silent connection after a minute or so."""

LATE_LINES_S = 0.6
"""How long after a call's end its log may still grow: a hot container's output comes by another way than its answer,
and is stored by the recorder's next batch."""

LOG_PART_BYTES = 64 * 1024
"""How much of a log is told at once; a longer line comes in parts."""


_LINE = re.compile(rb"[^\n]*\n|[^\n]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """A line of an attempt's log with its line end; the last ones, and parts of very long ones, may have none."""

    attempt: int
    line: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnded:
    """Everything was told."""

    call: Call


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Something about a call, and where a follower is who has heard it."""

    position: Position
    news: Change | LogLine | CallEnded


class Following:
    """All calls, as a stream."""

    def __init__(self, lookup: Lookup, events: CallEvents, agent: Agent) -> None:
        self._lookup = lookup
        self._events = events
        self._agent = agent

    def watch(self, app_name: str) -> AbstractContextManager[Watch]:
        """What happens to an app's queued calls from now on."""
        return self._events.watching(app_name)

    async def follow(self, call_id: str, after: Position) -> AsyncGenerator[list[Told], None]:
        """What is new about a call beyond a position, as it comes; an empty list when nothing was for `HEARTBEAT_S`.

        The last thing told is `CallEnded`; without it the node shuts down. Raises as `Lookup.get`.
        """
        position, call = after, None
        silent_until = monotonic() + HEARTBEAT_S
        while not self._events.is_closed:
            with self._events.waiters.waiting(call_id) as changed:
                call = await self._look(call_id, call)
                wait_s = min(POLL_S, max(0.0, silent_until - monotonic()))
                if 0 < (late_s := _late_lines_s(call)) < wait_s:
                    wait_s = late_s
                told = await self._news(call, position)
                if not told:
                    await asyncio.wait([changed], timeout=wait_s)
            if told or monotonic() >= silent_until:
                yield told
                silent_until = monotonic() + HEARTBEAT_S
            if told and isinstance(told[-1].news, CallEnded):
                return
            position = told[-1].position if told else position

    async def follow_log(self, call_id: str) -> AsyncGenerator[bytes, None]:
        """A call's log, line by line, until the call has ended. Raises as `Lookup.get`."""
        async with aclosing(self.follow(call_id, Position())) as stream:
            async for told in stream:
                lines = b"".join(one.news.line for one in told if isinstance(one.news, LogLine))
                if lines:
                    yield lines

    async def _look(self, call_id: str, before: Call | None) -> Call:
        """The record; not read anew where only the log can have changed."""
        invocation = self._agent.running.get(call_id)
        if invocation is not None and invocation.watcher is None:
            invocation.watcher = partial(self._events.waiters.wake, call_id)
        if before is not None:
            if before.status.is_final:
                return before
            is_running = before.status is CallStatus.RUNNING and before.attempt == _number(invocation)
            if is_running and invocation is not None and invocation.state is State.RUNNING:
                return before
        return await self._lookup.now(call_id)

    async def _news(self, call: Call, position: Position) -> list[Told]:
        """What is beyond the position; the log of an attempt comes between its beginning and its end."""
        changes = changes_of(call)
        is_all_in = _late_lines_s(call) == 0
        is_due = is_all_in or call.status.is_final
        told: list[Told] = []

        def tell(news: Change | LogLine | CallEnded) -> None:
            told.append(Told(position=position, news=news))

        while True:
            while position.changes < len(changes) and not isinstance(changes[position.changes], AttemptEnded):
                position = replace(position, changes=position.changes + 1)
                tell(changes[position.changes - 1])
            number = _latest_attempt(changes[: position.changes])
            is_ended = position.changes < len(changes) or call.status is not CallStatus.RUNNING
            offset = position.log_bytes if position.attempt == number else 0
            part = await self._log_part(call, number, offset, is_ended=is_ended) if number else b""
            is_more = len(part) == LOG_PART_BYTES
            is_cut = b"\n" not in part if is_more else is_ended and is_due
            for line in _lines(part, is_cut=is_cut):
                offset += len(line)
                position = replace(position, attempt=number, log_bytes=offset)
                tell(LogLine(attempt=number, line=line))
            if is_more:
                return told
            if position.changes >= len(changes):
                # More were told where the attempt of this node's waiting call is known from the database only.
                if call.status.is_final and is_all_in and not told:
                    tell(CallEnded(call=call))
                return told
            if not is_due:
                return told  # its last lines come before its end; a call's own end is told at once
            position = replace(position, changes=position.changes + 1)
            tell(changes[position.changes - 1])

    async def _log_part(self, call: Call, number: int, offset: int, *, is_ended: bool) -> bytes:
        """Some of an attempt's log."""
        invocation = self._agent.running.get(call.id)
        if invocation is not None and _number(invocation) == number:
            return invocation.log.part(offset, LOG_PART_BYTES) if invocation.log is not None else b""
        if is_ended or call.type is CallType.SYNC:
            log = await self._lookup.log(call.id, attempt=number)
            return log.data[offset : offset + LOG_PART_BYTES]
        return b""


def _number(invocation: Invocation | None) -> int:
    """Which attempt of its call it is; a sync call's is the first."""
    return max(invocation.attempt, 1) if invocation is not None else 0


def _late_lines_s(call: Call) -> float:
    """How much longer the log of the attempt that ended last may grow; by the clocks of two nodes, perhaps."""
    ended_at = call.attempts[-1].completed_at if call.attempts else None
    if ended_at is None:
        return 0.0
    age_s = (utc_now() - ended_at).total_seconds()
    return LATE_LINES_S - age_s if 0 <= age_s < LATE_LINES_S else 0.0


def _latest_attempt(changes: Sequence[Change]) -> int:
    """The number of the one that began last; 0 when none has."""
    begun = (one for one in reversed(changes) if isinstance(one, StateChange) and one.status is CallStatus.RUNNING)
    return next((one.attempt for one in begun), 0)


def _lines(data: bytes, *, is_cut: bool) -> list[bytes]:
    """Whole lines; what is behind the last line end only when the data is to be told as it is."""
    lines: list[bytes] = _LINE.findall(data)
    if lines and not (is_cut or lines[-1].endswith(b"\n")):
        lines.pop()
    return lines
