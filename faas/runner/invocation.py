"""One call on its way through this node: what was asked, who gets the answer, and how it went.

    WAITING -- a container took it --> RUNNING --> ENDED
       +------- no capacity, cancelled, gone ------->

A sync and an async call are the same thing here; they differ in who the sink is.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Protocol

from faas.clock import monotonic

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable

    from faas.errors import FaasError
    from faas.models import Usage
    from faas.runner.call_log import LogBuffer
    from faas.runner.container import HotContainer
    from faas.runner.functions import Function
    from faas.wire.headers import Headers

__all__ = ["BodyStream", "Invocation", "LaunchTimings", "Sink", "State"]


class State(enum.Enum):
    """Where an invocation is."""

    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"


class BodyStream(Protocol):
    """A request body that is still arriving; reading it makes room for more."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Chunks as they come; raises `ClientGoneError`, `BodyTooLargeError`."""


class Sink(Protocol):
    """Who gets the answer. Exactly one of `finish` and `fail` is called, once; none of them may block."""

    def start(self, invocation: Invocation, status: int, headers: Headers, content_length: int | None) -> None:
        """The answer's head. May raise `FaasError` to refuse it."""

    def write(self, data: bytes) -> None:
        """Some of its body. May raise `FaasError` to refuse it."""

    def flush(self) -> None:
        """Everything at hand was given."""

    def finish(self, invocation: Invocation) -> None:
        """The answer is complete."""

    async def drain(self) -> None:
        """Wait until the caller has taken most of what was written."""

    def fail(self, invocation: Invocation, error: FaasError) -> None:
        """There is no (complete) answer. The container that ran the call is dead already."""


class _NoSink:
    """The sink of a call that has ended: nothing more comes."""

    def start(self, invocation: Invocation, status: int, headers: Headers, content_length: int | None) -> None:
        """Nothing."""

    def write(self, data: bytes) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""

    def finish(self, invocation: Invocation) -> None:
        """Nothing."""

    async def drain(self) -> None:
        """Nothing."""

    def fail(self, invocation: Invocation, error: FaasError) -> None:
        """Nothing."""


NO_SINK = _NoSink()
_NO_HEADERS: Headers = []
"""Shared by all ended calls; nobody adds to it."""


class CallRunner(Protocol):
    """A container, seen from the call it runs."""

    @property
    def is_answering(self) -> bool:
        """Whether the function could send some of its answer now: its caller takes it."""

    def stop_call(self, error: FaasError) -> None:
        """End the call: kill the container first, then fail the call with this error."""

    def pause_answer(self) -> None:
        """The sink takes no more for now."""

    def resume_answer(self) -> None:
        """The sink takes more."""


class LaunchTimings:
    """What it took to make the container that ran a cold call, in seconds."""

    __slots__ = ("create_s", "pull_s", "start_s")

    def __init__(self) -> None:
        self.pull_s = 0.0
        self.create_s = 0.0
        self.start_s = 0.0

    @property
    def total_s(self) -> float:
        """All of it."""
        return self.pull_s + self.create_s + self.start_s


class Invocation:
    """A call in flight; state is changed by the agent alone, on the event loop."""

    __slots__ = (
        "accepted_at",
        "attempt",
        "body",
        "body_task",
        "container_id",
        "content_length",
        "content_type",
        "deadline",
        "ended_at",
        "error",
        "exit_code",
        "function",
        "headers",
        "id",
        "launch",
        "log",
        "memo",
        "method",
        "queue_timeout_s",
        "response_bytes",
        "response_headers",
        "runner",
        "running_since",
        "seen_at",
        "seen_bytes",
        "sink",
        "state",
        "status",
        "stop",
        "stream",
        "url",
        "usage",
        "watcher",
    )

    def __init__(
        self,
        call_id: str,
        function: Function,
        sink: Sink,
        *,
        method: bytes,
        url: bytes,
        headers: Headers,
        body: bytes,
        stream: BodyStream | None = None,
        content_length: int | None = None,
        memo: dict[object, bytes] | None = None,
    ) -> None:
        self.id = call_id
        self.function = function
        self.sink = sink
        self.method = method
        self.url = url
        """The full URL."""
        self.headers = headers
        """As they came, names in lower case."""
        self.body = body
        """All of it, or what was at hand when `stream` took over."""
        self.stream = stream
        self.content_length = content_length
        """Of a streamed body, when the caller declared it."""
        self.memo = memo
        """What each format made of the same method, URL and headers before; shared by calls that repeat them."""
        self.attempt = 0
        """Which attempt of a queued call this is; 0 for a sync call."""
        # How it goes.
        self.state = State.WAITING
        self.accepted_at = monotonic()
        self.running_since = 0.0
        self.ended_at = 0.0
        self.launch: LaunchTimings | None = None
        """Set when a container was made for this call: it was cold."""
        self.container_id = ""
        self.queue_timeout_s = 0.0
        """How long it waits for a container, counted from `accepted_at`."""
        self.deadline = 0.0
        """Monotonic; the agent ends the call then. 0 before it runs, and without a time limit."""
        self.body_task: asyncio.Task[None] | None = None
        """Sends a streamed body to the container."""
        self.log: LogBuffer | None = None
        self.stop: FaasError | None = None
        """Why the call is being ended from outside: set once, then its container is killed."""
        self.runner: CallRunner | None = None
        """What runs it, while it runs."""
        self.watcher: Callable[[], None] | None = None
        """Hears that it runs, and that its log grew; None while nobody follows it."""
        # How it ended.
        self.status = 0
        self.response_headers: Headers = _NO_HEADERS
        self.content_type = b""
        """Of the answer, once the call has ended."""
        self.response_bytes = 0
        self.seen_bytes = 0
        self.seen_at = 0.0
        """When `response_bytes` was seen to grow last; see `is_silent`."""
        self.error: FaasError | None = None
        self.exit_code: int | None = None
        self.usage: Usage | None = None

    def run_in(self, container: HotContainer) -> None:
        """A place in a hot container, counted already, is this call's."""
        container.take_slot().run(self)

    def is_silent(self, now: float) -> bool:
        """Whether the function has sent nothing of an answer that it has begun for longer than it may; to be asked
        from time to time (`now` is monotonic)."""
        if not self.status or self.runner is None:
            return False
        if self.response_bytes != self.seen_bytes or not self.seen_at or not self.runner.is_answering:
            self.seen_bytes, self.seen_at = self.response_bytes, now
        return now - self.seen_at > self.function.stream_idle_s

    def forget_request(self) -> None:
        """Let go of all that only a running call needs: an ended one is remembered for a while.

        What is left holds no list and no tuple of its own, so that the garbage collector has one object to look at
        for each remembered call: with the ten of before it took a sixth of the CPU time of a busy node.
        """
        for name, value in self.response_headers:
            if name == b"content-type":
                self.content_type = value
                break
        self.response_headers = _NO_HEADERS
        self.headers = _NO_HEADERS
        self.memo = None
        self.sink = NO_SINK
        self.body = b""
        self.stream = None
        self.body_task = None

    @property
    def queue_s(self) -> float:
        """How long it waited for its container, not counting what it took to make one."""
        until = self.running_since or self.ended_at
        made_s = self.launch.total_s if self.launch is not None else 0.0
        return max(0.0, until - self.accepted_at - made_s)

    @property
    def exec_s(self) -> float:
        """How long the function ran; 0 when it never did."""
        return self.ended_at - self.running_since if self.running_since else 0.0
