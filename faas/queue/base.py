"""The contract of the call queue: which id to look at next, and who holds it.

The database is the truth about calls. The queue holds ids only, and may be lost: a sweeper dispatches again every
unfinished call whose id it does not know.

    dispatch -> waiting -(due)-> lease -> renew* -> ack
                   ^               |
                   +--- release ---+   also when the lease runs out

Delivery is at least once. Fencing is not the queue's: the database counts the attempts of a call, and only the
latest may finish it. Any operation raises `QueueUnavailableError` when the backend does not answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from faas.store.database import Rows

__all__ = ["MAX_PRIORITY", "BesideRecords", "CallQueue", "Depth", "Lease", "Ticket"]

MAX_PRIORITY = 2
"""Priorities are 0 (default) to 2 (first), IronFunctions' range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """A call's place in the queue."""

    call_id: str
    priority: int = 0
    not_before: datetime | None = None
    """Aware; the call is not due earlier."""
    fairness_key: str = ""
    """Whose turn it uses (the app): however many calls one has in line, every other has its next turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A call that one worker holds until the lease runs out."""

    call_id: str
    token: str
    """Tells this lease from any other of the same call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """How full the queue is."""

    waiting: int
    """Due and held by nobody."""
    delayed: int
    leased: int
    oldest_waiting_s: float
    """Age of the oldest due call; 0 when there is none."""


class CallQueue(Protocol):
    """A durable queue of call ids."""

    async def dispatch(self, ticket: Ticket) -> None:
        """Put a call in line; nothing happens when it already is in line or leased."""

    async def lease(self, *, owner: str, max_count: int, lease_s: float, wait_s: float) -> list[Lease]:
        """Take up to `max_count` due calls: higher priority first, inside one apps in turn, inside an app oldest first.

        Also takes calls whose lease ran out, those before all others of their priority. Waits up to `wait_s` for the
        first one; empty when none came.
        A cancelled `lease` leaves no call half taken (one may be leased and come back when that runs out).
        """

    async def renew(self, leases: Collection[Lease], *, lease_s: float) -> set[str]:
        """Hold leases longer; returns the ids of those that were already lost."""

    async def ack(self, lease: Lease) -> bool:
        """Forget a finished call; False when the lease had been lost (then nothing is forgotten)."""

    async def release(self, lease: Lease, *, not_before: datetime | None = None) -> bool:
        """Give a call back, to run again at once or later; False when the lease had been lost."""

    async def discard(self, call_id: str) -> None:
        """Forget a call that nobody needs to run any more, leased or not."""

    async def known(self, call_ids: Collection[str]) -> set[str]:
        """Which of these ids are in line or leased."""

    async def release_owned(self, owner_prefix: str) -> int:
        """Give back every lease of owners that begin so (a node's earlier boot); returns how many."""

    async def depth(self) -> Depth:
        """How full it is."""

    async def close(self) -> None:
        """Let go of connections; what is queued stays."""


@runtime_checkable
class BesideRecords(Protocol):
    """A queue that is a table beside the records of calls: what is done to both is one transaction.

    A call that ends leaves it with the write that ends it, so that nobody needs to ack.
    """

    def rows(self, ticket: Ticket) -> Rows:
        """What `dispatch` inserts, to be inserted with the record."""

    def wake(self) -> None:
        """Calls have come into line: who waits for one looks again."""
