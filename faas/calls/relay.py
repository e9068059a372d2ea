"""What happens to queued calls, carried between the nodes on one PostgreSQL.

    CallEvents --post--> outbox --a batch at a time--> NOTIFY ... LISTEN --> CallEvents.hear on the other nodes

Notices hurry, they do not promise: one that is lost is made good by the look that every waiter takes now and then
(`lookup.POLL_S`), and watchers of an app are told of the gap.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import deque
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

from faas.calls.events import CallEvent
from faas.errors import StoreUnavailableError
from faas.ids import new_id
from faas.models import CallStatus, Reason
from faas.store.notices import MAX_NOTICE_BYTES, open_notices

if TYPE_CHECKING:
    from faas.calls.events import CallEvents
    from faas.store.database import Database
    from faas.store.notices import Notices

__all__ = ["Relay"]

logger = logging.getLogger(__name__)

GATHER_S = 0.005
"""How long events wait for others to go with: at a thousand calls a second a notice carries some fifteen."""

MAX_OUTBOX = 10_000
"""Events that wait to be sent; while the database is away the oldest are lost."""

MAX_ERROR_CHARS = 100
"""Of an error's text, so that an event with the longest path fits into a notice; the record has all of it."""

CHECK_S = 10.0
"""How long a silent line is believed to work."""

RETRY_S = 1.0


class Relay:
    """One node's end of the line."""

    def __init__(self, database: Database, events: CallEvents) -> None:
        self._database = database
        self._events = events
        self._origin = new_id()
        self._outbox: deque[CallEvent] = deque(maxlen=MAX_OUTBOX)
        self._has_mail = asyncio.Event()
        self.is_up = asyncio.Event()
        """Set while this node hears the others."""
        events.relay = self.post

    def post(self, event: CallEvent) -> None:
        """Take an event to the other nodes, soon."""
        self._outbox.append(event)
        self._has_mail.set()

    async def run_forever(self) -> None:
        """Keep the line open."""
        has_failed = False
        while True:
            try:
                async with open_notices(self._database, hear=self._hear, on_broken=self._has_mail.set) as line:
                    if has_failed:
                        self._events.miss()
                    self.is_up.set()
                    await self._serve(line)
            except StoreUnavailableError as error:
                logger.warning("events_of_other_nodes_missed", extra={"error": error.message})
            finally:
                self.is_up.clear()
            has_failed = True
            await asyncio.sleep(RETRY_S)

    async def _serve(self, line: Notices) -> NoReturn:
        """Send what is posted, until the line breaks."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_S):
                    await self._has_mail.wait()
            if not self._outbox:
                await line.check()
            await asyncio.sleep(GATHER_S)
            self._has_mail.clear()
            while self._outbox:
                await self._send(line)

    async def _send(self, line: Notices) -> None:
        """One notice."""
        events, text = self._take_batch()
        try:
            await line.send(text)
        except StoreUnavailableError:
            self._outbox.extendleft(reversed(events))
            raise

    def _take_batch(self) -> tuple[list[CallEvent], str]:
        """As many events as fit into one notice, the oldest first; at least one."""
        events: list[CallEvent] = []
        parts: list[str] = []
        size = len(self._origin) + 4
        while self._outbox:
            part = _written(self._outbox[0])
            size += len(part) + 1
            if parts and size > MAX_NOTICE_BYTES:
                break
            parts.append(part)
            events.append(self._outbox.popleft())
        return events, f'["{self._origin}",{",".join(parts)}]'

    def _hear(self, text: str) -> None:
        # Looked at only as far as needed: with nobody listening here a busy cluster costs next to nothing.
        if not self._events.has_listeners or text.startswith(self._origin, 2):
            return
        try:
            for values in json.loads(text)[1:]:
                self._events.hear(_read(values))
        except ValueError:
            # A node of another version.
            logger.warning("notice_not_understood", extra={"size_bytes": len(text)})
            self._events.miss()


def _written(event: CallEvent) -> str:
    """ASCII, so that its length is its size."""
    return json.dumps(
        [
            event.call_id,
            event.app_name,
            event.path,
            event.status.value,
            event.at.isoformat(),
            event.attempt,
            event.reason.value if event.reason else None,
            event.error[:MAX_ERROR_CHARS],
        ],
        separators=(",", ":"),
    )


def _read(values: list[Any]) -> CallEvent:
    call_id, app_name, path, status, at, attempt, reason, error = values
    return CallEvent(
        call_id=call_id,
        app_name=app_name,
        path=path,
        status=CallStatus(status),
        at=datetime.fromisoformat(at),
        attempt=attempt,
        reason=Reason(reason) if reason else None,
        error=error,
    )
