"""What happens to queued calls, told as it happens: to who waits for one call, and to who watches an app.

    submission, execution, control, outside -- publish --> CallEvents --> Waiters   look at that call again
                                                             |   ^    `-> Watch     a bounded line of an app's events
                                                       relay v   | hear
                                                       the other nodes on the same database

An event only says that a record has changed: the record is the truth, and whoever must not miss anything looks there.
Sync calls are not published, only their ends wake those who wait for them: they would be thousands a second.
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from faas.clock import utc_now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from faas.calls.waiting import Waiters
    from faas.models import Call, CallStatus, Reason

__all__ = ["CallEvent", "CallEvents", "Notice", "Watch"]

MAX_UNREAD = 1000
"""Events that wait for one watcher, some 300 KiB; one that falls further behind is told so and let go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEvent:
    """A queued call is in another state now."""

    call_id: str
    app_name: str
    path: str
    status: CallStatus
    at: datetime
    attempt: int
    """How many attempts began."""
    reason: Reason | None
    error: str


class Notice(enum.Enum):
    """What a watcher hears beside events."""

    GAP = "gap"
    """Events of other nodes may be missing here."""
    TOO_SLOW = "too_slow"
    """It fell too far behind; nothing comes any more."""
    CLOSING = "closing"
    """The node shuts down; nothing comes any more."""


class Watch:
    """The events of one app that its watcher has not taken yet."""

    def __init__(self) -> None:
        self._unread: deque[CallEvent | Notice] = deque()
        self._has_news = asyncio.Event()
        self._is_over = False

    def put(self, news: CallEvent | Notice) -> None:
        """Something for the watcher; the one that is too much takes the place of all that wait."""
        if self._is_over:
            return
        if len(self._unread) >= MAX_UNREAD:
            self._unread.clear()
            news = Notice.TOO_SLOW
        self._is_over = news in (Notice.TOO_SLOW, Notice.CLOSING)
        self._unread.append(news)
        self._has_news.set()

    async def take(self, *, timeout_s: float) -> list[CallEvent | Notice]:
        """All that is new, as soon as there is something; nothing after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._has_news.wait()
        except TimeoutError:
            return []
        self._has_news.clear()
        taken = list(self._unread)
        self._unread.clear()
        return taken


class CallEvents:
    """The publisher of one node; costs a call nothing but a few tests when nobody listens."""

    def __init__(self, waiters: Waiters) -> None:
        self.waiters = waiters
        self._watches: dict[str, set[Watch]] = {}
        self.relay: Callable[[CallEvent], None] | None = None
        """Takes events to the other nodes; None when there can't be any."""
        self.is_closed = False

    def __repr__(self) -> str:
        return f"<CallEvents {len(self.waiters)} calls waited for, {len(self._watches)} apps watched>"

    @property
    def has_listeners(self) -> bool:
        """Whether anybody on this node waits for a call or watches an app."""
        return bool(self._watches) or len(self.waiters) > 0

    def publish(self, call: Call) -> None:
        """A queued call is in the state that this record says, which is committed."""
        self.waiters.wake(call.id)
        if self.relay is None and call.app_name not in self._watches:
            return
        event = CallEvent(
            call_id=call.id,
            app_name=call.app_name,
            path=call.path,
            status=call.status,
            at=utc_now(),
            attempt=call.attempt,
            reason=call.reason,
            error=call.error,
        )
        self._tell(event)
        if self.relay is not None:
            self.relay(event)

    def hear(self, event: CallEvent) -> None:
        """Another node has published this."""
        self.waiters.wake(event.call_id)
        self._tell(event)

    def miss(self) -> None:
        """Events of other nodes may have been lost."""
        self.waiters.wake_all()
        self._tell_all(Notice.GAP)

    def close(self) -> None:
        """The node shuts down: let all go who listen, so that their connections end."""
        self.is_closed = True
        self.waiters.wake_all()
        self._tell_all(Notice.CLOSING)

    @contextmanager
    def watching(self, app_name: str) -> Iterator[Watch]:
        """What happens to an app's queued calls from now on."""
        watch = Watch()
        if self.is_closed:
            watch.put(Notice.CLOSING)
        self._watches.setdefault(app_name, set()).add(watch)
        try:
            yield watch
        finally:
            watches = self._watches[app_name]
            watches.discard(watch)
            if not watches:
                del self._watches[app_name]

    def _tell(self, event: CallEvent) -> None:
        for watch in self._watches.get(event.app_name, ()):
            watch.put(event)

    def _tell_all(self, notice: Notice) -> None:
        for watches in self._watches.values():
            for watch in watches:
                watch.put(notice)
