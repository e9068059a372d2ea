"""A hot container: its life, the call it runs, and where its output goes.

    STARTING -- ready --> IDLE -- run --> BUSY -- answer complete --> IDLE
        |                  |                |
        |                  |                +-- broke its contract, timed out, cancelled, retired --+
        |                  +-- idle too long, evicted, retired, died -------------------------------+--> STOPPING
        +-- never got ready ------------------------------------------------------------------------+       |
                                                                                                    gone: DEAD
A container leaves IDLE and BUSY exactly once for STOPPING; nobody runs on it afterwards.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from typing import TYPE_CHECKING, Protocol

from faas.clock import monotonic
from faas.runner.call_log import LogBuffer
from faas.runner.invocation import LaunchTimings, State

if TYPE_CHECKING:
    from pathlib import Path

    from faas.errors import FaasError
    from faas.runner.capacity import Reservation
    from faas.runner.executors.base import Container, Stdio
    from faas.runner.formats.base import Channel, HotFormat, StdoutReceiver
    from faas.runner.functions import Function
    from faas.runner.invocation import Invocation
    from faas.wire.headers import Headers

__all__ = ["ContainerOwner", "ContainerState", "HotContainer"]

logger = logging.getLogger(__name__)

MAX_CONNECTION_IDLE_S = 1.0
"""A channel that was idle longer is opened anew: servers close idle connections, and a call must not race that.
Fn's agent uses the same second."""


class ContainerState(enum.Enum):
    """Where a container is in its life."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    STOPPING = "stopping"
    DEAD = "dead"


class ContainerOwner(Protocol):
    """Hears what happens to a container; the agent."""

    def body_streams(self, container: HotContainer, invocation: Invocation) -> None:
        """A call was sent whose body is still arriving."""

    def stop_hot_call(self, container: HotContainer, invocation: Invocation, error: FaasError) -> None:
        """A running call must end now, with this error."""

    def call_answered(self, container: HotContainer, invocation: Invocation, *, is_reusable: bool) -> None:
        """The answer of a call is complete."""

    def call_broke(self, container: HotContainer, invocation: Invocation, error: FaasError) -> None:
        """A call got no complete answer."""

    def container_died(self, container: HotContainer) -> None:
        """A container ended while no call ran on it."""

    def needs_reopening(self, container: HotContainer, invocation: Invocation) -> None:
        """The call can't begin before the channel is opened again."""


class HotContainer:
    """One container that serves many calls, one at a time.

    It is the receiver of its own output and of its channel's answers, so that a warm call passes through no
    object in between.
    """

    def __init__(
        self,
        function: Function,
        reservation: Reservation,
        owner: ContainerOwner,
        *,
        hot_format: HotFormat,
        max_log_bytes: int,
    ) -> None:
        self.function = function
        self.reservation = reservation
        self.format = hot_format
        self.state = ContainerState.STARTING
        self.generation = 0
        """Its pool's generation when it was made; see `FunctionPool.generation`."""
        self.idle_since = 0.0
        self.calls = 0
        self.timings = LaunchTimings()
        self.invocation: Invocation | None = None
        self._owner = owner
        self._max_log_bytes = max_log_bytes
        # Set by the launcher, in this order.
        self.socket_dir_or_none: Path | None = None
        self.engine: Container | None = None
        self.stdio_or_none: Stdio | None = None
        self.channel: Channel | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the process has ended (its output closed)."""
        self._stdout: StdoutReceiver | None = None
        self._last: Invocation | None = None
        self.start_log = LogBuffer(max_log_bytes)
        """What was written before the first call; it belongs to that call's log."""

    def __repr__(self) -> str:
        container_id = self.engine.id[:12] if self.engine is not None else "-"
        return f"<HotContainer {self.function} {container_id} {self.state.value}, {self.calls} calls>"

    # --- Site, for the format that opens the channel

    @property
    def socket_dir(self) -> Path:
        """The folder on the host that holds its socket."""
        assert self.socket_dir_or_none is not None
        return self.socket_dir_or_none

    @property
    def stdio(self) -> Stdio:
        """Its standard streams."""
        assert self.stdio_or_none is not None
        return self.stdio_or_none

    @property
    def stdout(self) -> HotContainer:
        """Lets a format take standard output: `connect`."""
        return self

    def connect(self, receiver: StdoutReceiver) -> None:
        """Send standard output there from now on."""
        self._stdout = receiver

    async def start(self) -> None:
        """Start its process."""
        assert self.engine is not None
        await self.engine.start()

    # --- a call

    def run(self, invocation: Invocation) -> None:
        """Run a call; the container is taken from the idle ones already."""
        now = monotonic()
        channel = self.channel
        assert channel is not None
        self.state = ContainerState.BUSY
        self.invocation = invocation
        invocation.runner = self
        if (now - self.idle_since > MAX_CONNECTION_IDLE_S and self.format.needs_socket_dir) or not channel.is_usable:
            self._owner.needs_reopening(self, invocation)
            return
        self.begin(invocation, channel, now)

    def begin(self, invocation: Invocation, channel: Channel, now: float) -> None:
        """Send the call; the function's clock starts here."""
        self._last = invocation
        if self.calls == 0:
            invocation.launch = self.timings
            if self.start_log:
                invocation.log = self.start_log
        self.calls += 1
        assert self.engine is not None
        invocation.container_id = self.engine.id
        invocation.state = State.RUNNING
        invocation.running_since = now
        timeout_s = invocation.function.timeout_s
        if timeout_s:
            invocation.deadline = now + timeout_s
        channel.begin(invocation, self)
        if invocation.stream is not None:
            self._owner.body_streams(self, invocation)

    def stop_call(self, error: FaasError) -> None:
        """End the running call; one whose channel is being opened again is looked after there."""
        invocation = self.invocation
        if invocation is not None and invocation.state is State.RUNNING:
            self._owner.stop_hot_call(self, invocation, error)

    def pause_answer(self) -> None:
        """The caller takes no more for now."""
        if self.channel is not None:
            self.channel.pause_reading()

    def resume_answer(self) -> None:
        """The caller takes more."""
        if self.channel is not None:
            self.channel.resume_reading()

    def detach(self) -> None:
        """Take the call off the container: whatever comes from it now reaches nobody."""
        self.invocation = None
        if self.channel is not None:
            self.channel.close()

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
            self._owner.call_answered(self, invocation, is_reusable=is_reusable)

    def response_failed(self, error: FaasError) -> None:
        """The answer will never be complete."""
        invocation, self.invocation = self.invocation, None
        if invocation is not None:
            self._owner.call_broke(self, invocation, error)

    # --- OutputReceiver

    def stdout_received(self, data: bytes) -> None:
        """Standard output is the format's when it took it, the log's otherwise."""
        if self._stdout is not None:
            self._stdout.data_received(data)
        else:
            self.stderr_received(data)

    def stderr_received(self, data: bytes) -> None:
        """Standard error belongs to the call that runs, or that ran last."""
        invocation = self._last
        if invocation is None:
            self.start_log.append(data)
        else:
            if invocation.log is None:
                invocation.log = LogBuffer(self._max_log_bytes)
            invocation.log.append(data)
        if logger.isEnabledFor(logging.DEBUG):
            _log_user_lines(self.function, invocation, data)

    def output_ended(self) -> None:
        """The process has ended."""
        if not self.ended.done():
            self.ended.set_result(None)
        if self._stdout is not None:
            self._stdout.connection_lost(None)
        if self.state is ContainerState.IDLE:
            self._owner.container_died(self)


def _log_user_lines(function: Function, invocation: Invocation | None, data: bytes) -> None:
    for line in data.decode("utf-8", "replace").splitlines():
        logger.debug(
            line,
            extra={
                "user_log": True,
                "app_name": function.app_name,
                "path": function.path,
                "image": function.image,
                "call_id": invocation.id if invocation is not None else "",
            },
        )
