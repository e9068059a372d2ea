"""One place for a call in a hot container, with a channel of its own: where a call goes in and its answer comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from faas.clock import monotonic
from faas.runner.invocation import State

if TYPE_CHECKING:
    from faas.errors import FaasError
    from faas.runner.formats.base import Channel, HotFormat
    from faas.runner.invocation import Invocation
    from faas.wire.headers import Headers

__all__ = ["Slot", "SlotHost", "SlotOwner"]

MAX_CONNECTION_IDLE_S = 1.0
"""A channel that was idle longer is opened anew: servers close idle connections, and a call must not race that.
Fn's agent uses the same second."""


class SlotHost(Protocol):
    """A container, seen from its slots."""

    @property
    def format(self) -> HotFormat:
        """How calls cross into it."""

    def call_begins(self, invocation: Invocation) -> None:
        """A call is about to be sent through one of the slots."""


Host_co = TypeVar("Host_co", bound=SlotHost, covariant=True)
Host_contra = TypeVar("Host_contra", bound=SlotHost, contravariant=True)


class SlotOwner(Protocol[Host_contra]):
    """Hears what becomes of the call in a slot; the agent."""

    def body_streams(self, slot: Slot[Host_contra], invocation: Invocation) -> None:
        """A call was sent whose body is still arriving."""

    def stop_hot_call(self, slot: Slot[Host_contra], invocation: Invocation, error: FaasError) -> None:
        """A running call must end now, with this error."""

    def call_answered(self, slot: Slot[Host_contra], invocation: Invocation, *, is_reusable: bool) -> None:
        """The answer of a call is complete."""

    def call_broke(self, slot: Slot[Host_contra], invocation: Invocation, error: FaasError) -> None:
        """A call got no complete answer."""

    def needs_opening(self, slot: Slot[Host_contra], invocation: Invocation) -> None:
        """The call can't begin before a channel is opened."""


class Slot(Generic[Host_co]):
    """Runs one call after the other; it is the receiver of its channel's answers, so that a warm call passes through
    no object in between."""

    __slots__ = ("_owner", "_used_at", "channel", "container", "invocation", "is_answering")

    def __init__(self, container: Host_co, owner: SlotOwner[Host_co]) -> None:
        self.container = container
        self.channel: Channel | None = None
        """None before its first call, and after one that did not leave it clean."""
        self.invocation: Invocation | None = None
        self.is_answering = True
        """Whether the caller takes the answer; see `CallRunner`."""
        self._owner = owner
        self._used_at = 0.0

    def __repr__(self) -> str:
        call = self.invocation.id if self.invocation is not None else "free"
        return f"<Slot of {self.container!r}: {call}>"

    # --- a call

    def run(self, invocation: Invocation) -> None:
        """Run a call; the slot is taken already."""
        now = monotonic()
        channel = self.channel
        self.invocation = invocation
        invocation.runner = self
        if channel is None or not channel.is_usable or self._is_too_old(now):
            self._owner.needs_opening(self, invocation)
            return
        self.begin(invocation, channel, now)

    def begin(self, invocation: Invocation, channel: Channel, now: float) -> None:
        """Send the call; the function's clock starts here."""
        container = self.container
        container.call_begins(invocation)
        invocation.state = State.RUNNING
        invocation.running_since = now
        timeout_s = invocation.function.timeout_s
        if timeout_s:
            invocation.deadline = now + timeout_s
        if invocation.watcher is not None:
            invocation.watcher()
        channel.begin(invocation, self)
        if invocation.stream is not None:
            self._owner.body_streams(self, invocation)

    def _is_too_old(self, now: float) -> bool:
        return now - self._used_at > MAX_CONNECTION_IDLE_S and self.container.format.needs_socket_dir

    def opened(self, channel: Channel) -> None:
        """It has a fresh channel."""
        self.channel = channel
        self._used_at = monotonic()

    def drop_channel(self) -> None:
        """Close the channel; a call that still runs on it hears of the end."""
        channel, self.channel = self.channel, None
        if channel is not None:
            channel.close()

    def detach(self) -> None:
        """Take the call off the slot, and break its channel off; what comes through it from now on reaches nobody."""
        self.invocation = None
        self.drop_channel()

    # --- CallRunner

    def stop_call(self, error: FaasError) -> None:
        """End the running call; one whose channel is being opened is looked after there."""
        invocation = self.invocation
        if invocation is not None and invocation.state is State.RUNNING:
            self._owner.stop_hot_call(self, invocation, error)

    def pause_answer(self) -> None:
        """The caller takes no more for now."""
        self.is_answering = False
        if self.channel is not None:
            self.channel.pause_reading()

    def resume_answer(self) -> None:
        """The caller takes more."""
        self.is_answering = True
        if self.channel is not None:
            self.channel.resume_reading()

    # --- ResponseReceiver

    def response_started(self, status: int, headers: Headers, content_length: int | None) -> None:
        """The answer's head, decoded by the format."""
        invocation = self.invocation
        if invocation is not None:
            invocation.status = status
            invocation.response_headers = headers
            invocation.sink.start(invocation, status, headers, content_length)

    def response_body(self, data: bytes) -> None:
        """Some of the answer's body."""
        invocation = self.invocation
        if invocation is not None:
            invocation.response_bytes += len(data)
            invocation.sink.write(data)

    def response_flush(self) -> None:
        """Everything at hand was handed on."""
        invocation = self.invocation
        if invocation is not None:
            invocation.sink.flush()

    def response_ended(self, *, is_reusable: bool) -> None:
        """The answer is complete."""
        invocation, self.invocation = self.invocation, None
        if invocation is not None:
            self._used_at = monotonic()
            self.is_answering = True
            self._owner.call_answered(self, invocation, is_reusable=is_reusable)

    def response_failed(self, error: FaasError) -> None:
        """The answer will never be complete."""
        invocation, self.invocation = self.invocation, None
        if invocation is not None:
            self._owner.call_broke(self, invocation, error)
