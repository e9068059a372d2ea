"""What a satellite knows of the containers that it has places in, and of each place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from faas.clock import monotonic
from faas.runner.call_log import LogBuffer, share_out
from faas.runner.invocation import LaunchTimings
from faas.runner.slot import Slot

if TYPE_CHECKING:
    from faas.processes.messages import Grant
    from faas.runner.formats.base import HotFormat
    from faas.runner.invocation import Invocation
    from faas.runner.slot import SlotOwner

__all__ = ["BorrowedContainer", "Place"]


TURN_S = 0.01
"""How long calls have a place one after the other while others wait for it."""


class BorrowedContainer:
    """A container whose life, output and end are the primary's affair."""

    def __init__(self, container_id: str, *, max_log_bytes: int) -> None:
        self.id = container_id
        self.places: dict[Place, None] = {}
        """Those in it that are ours now."""
        self.left_at = 0.0
        """When there was none any more (monotonic)."""
        self._max_log_bytes = max_log_bytes
        self._last: Invocation | None = None

    def __repr__(self) -> str:
        return f"<BorrowedContainer {self.id[:12]}, {len(self.places)} places>"

    def call_begins(self, invocation: Invocation) -> None:
        """A call is about to be sent to one of the places."""
        self._last = invocation
        invocation.container_id = self.id

    def leave(self, place: Place) -> None:
        """A place is ours no more."""
        del self.places[place]
        self.left_at = monotonic()

    def output_received(self, data: bytes) -> None:
        """What it wrote belongs to the call that runs, or that ran last; with several, see `share_out`."""
        calls = [place.slot.invocation for place in self.places if place.slot.invocation is not None]
        if len(calls) > 1:
            share_out(data, calls, self.log_of)
        elif self._last is not None:
            self.log_of(self._last).append(data)

    def log_of(self, invocation: Invocation) -> LogBuffer:
        """A call's log, begun if there is none."""
        if invocation.log is None:
            invocation.log = LogBuffer(self._max_log_bytes)
        return invocation.log


class Place:
    """A place for a call, with its slot, that is ours until we give it back."""

    __slots__ = ("container", "format", "idle_since", "key", "loan_id", "slot", "socket_dir", "turn_ends")

    def __init__(
        self, container: BorrowedContainer, grant: Grant, key: str, hot_format: HotFormat, owner: SlotOwner[Place]
    ) -> None:
        self.container = container
        self.format = hot_format
        self.key = key
        """Of its function."""
        self.loan_id = grant.id
        self.socket_dir = Path(grant.socket_dir)
        self.turn_ends = 0.0
        """Monotonic; the place goes back when a call has ended afterwards, or none waits. 0: it is kept."""
        self.idle_since = 0.0
        self.slot: Slot[Place] = Slot(self, owner)

    def __repr__(self) -> str:
        return f"<Place {self.loan_id} in {self.container!r}>"

    def recall(self) -> None:
        """Others wait for it; but to go back and forth for each call would take longer than a short call does."""
        if not self.turn_ends:
            self.turn_ends = monotonic() + TURN_S

    def first(self, invocation: Invocation, grant: Grant) -> None:
        """The call that the place was got for hears what it took."""
        if grant.launch_s is not None:
            invocation.launch = launch = LaunchTimings()
            launch.pull_s, launch.create_s, launch.start_s = grant.launch_s
        if grant.start_log:
            self.container.log_of(invocation).append(grant.start_log)

    # --- SlotHost

    def call_begins(self, invocation: Invocation) -> None:
        """A call is about to be sent."""
        self.container.call_begins(invocation)
