"""A hot container: its life, its slots for calls, and where its output goes.

    STARTING -- ready --> IDLE -- run --> BUSY -- last answer complete --> IDLE
      |   ^                |  |             |
      |   +--- a call -- FROZEN             +-- broke its contract, timed out, cancelled, retired --+
      |                    |                                                                        |
      |                    +-- idle too long, evicted, retired, died -------------------------------+--> STOPPING
      +-- never got ready --------------------------------------------------------------------------+       |
                                                                                                      gone: DEAD
A container comes to STOPPING exactly once; nobody runs on it afterwards.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from typing import TYPE_CHECKING, Protocol

from faas.runner.call_log import LogBuffer, share_out, write_log
from faas.runner.executors.base import Pausable
from faas.runner.invocation import Invocation, LaunchTimings
from faas.runner.slot import Slot

if TYPE_CHECKING:
    from pathlib import Path

    from faas.errors import FaasError
    from faas.runner.capacity import Reservation
    from faas.runner.executors.base import Container, Stdio
    from faas.runner.formats.base import HotFormat, StdoutReceiver
    from faas.runner.function_pool import FunctionPool
    from faas.runner.functions import Function
    from faas.runner.slot import SlotOwner

__all__ = ["ContainerOwner", "ContainerState", "HotContainer", "Loan"]

logger = logging.getLogger(__name__)


class ContainerState(enum.Enum):
    """Where a container is in its life."""

    STARTING = "starting"
    """Being made, or thawed."""
    IDLE = "idle"
    BUSY = "busy"
    FROZEN = "frozen"
    """Paused, or about to be."""
    STOPPING = "stopping"
    DEAD = "dead"


class ContainerOwner(Protocol):
    """Hears what happens to a container; its keeper."""

    def container_died(self, container: HotContainer) -> None:
        """A container ended by itself."""


class Loan(Protocol):
    """A place that another process uses."""

    @property
    def borrower(self) -> object:
        """That process; compared by identity."""

    def output_received(self, data: bytes) -> None:
        """The container wrote something that may be about a call there."""


class HotContainer:
    """One container that serves many calls, `function.concurrency` at a time; it is the receiver of its own output."""

    def __init__(
        self,
        pool: FunctionPool,
        reservation: Reservation,
        owner: ContainerOwner,
        slot_owner: SlotOwner[HotContainer],
        *,
        hot_format: HotFormat,
        max_log_bytes: int,
    ) -> None:
        self.pool = pool
        self.function: Function = pool.function
        self.reservation = reservation
        self.format = hot_format
        self.state = ContainerState.STARTING
        self.generation = 0
        """Its pool's generation when it was made; see `FunctionPool.generation`."""
        self.running = 0
        """Slots that are taken; the pool's to change."""
        self.idle_since = 0.0
        self.calls = 0
        self.timings = LaunchTimings()
        self.end_reason = ""
        """Why it is being killed, for calls that end with it through no fault of theirs."""
        self.turns = asyncio.Lock()
        """Pausing and resuming take turns."""
        self._is_paused = False
        self._owner = owner
        self._slot_owner = slot_owner
        self._max_log_bytes = max_log_bytes
        self.slots: list[Slot[HotContainer]] = []
        """Those that run a call, and those that are free."""
        self._free_slots: list[Slot[HotContainer]] = []
        self.loans: list[Loan] = []
        """Taken places that are not ours to run calls in."""
        # Set by the launcher, in this order.
        self.socket_dir_or_none: Path | None = None
        self.engine: Container | None = None
        self.stdio_or_none: Stdio | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the process has ended (its output closed)."""
        self.opened: asyncio.Future[FaasError | None] = asyncio.get_running_loop().create_future()
        """Done when it has got ready, or will not, with the reason."""
        self._stdout: StdoutReceiver | None = None
        self._last: Invocation | Loan | None = None
        self.start_log = LogBuffer(max_log_bytes)
        """What was written before the first call; it belongs to that call's log."""

    def __repr__(self) -> str:
        container_id = self.engine.id[:12] if self.engine is not None else "-"
        return f"<HotContainer {self.function} {container_id} {self.state.value}, {self.calls} calls>"

    @property
    def is_doomed(self) -> bool:
        """Whether its process has ended or is being killed under its calls."""
        return bool(self.end_reason) or self.ended.done()

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

    async def start_over(self) -> None:
        """Forget an engine's container that could not be started, once its streams are closed."""
        if self.stdio_or_none is not None:
            self.stdio_or_none.close()
            await self.ended
        self.ended = asyncio.get_running_loop().create_future()
        self.engine = self.stdio_or_none = self.socket_dir_or_none = None

    async def pause(self) -> None:
        """Pause its processes, where the engine can."""
        engine: object = self.engine
        if isinstance(engine, Pausable):
            self._is_paused = True  # also when that fails half-way
            await engine.pause()

    async def resume(self) -> None:
        """Let them go on; nothing when they were never paused."""
        engine: object = self.engine
        if self._is_paused and isinstance(engine, Pausable):
            await engine.resume()
            self._is_paused = False

    # --- calls

    def take_slot(self) -> Slot[HotContainer]:
        """A free slot, the one used last if there is any."""
        if self._free_slots:
            return self._free_slots.pop()
        slot = Slot(self, self._slot_owner)
        self.slots.append(slot)
        return slot

    def free_slot(self, slot: Slot[HotContainer]) -> None:
        """A slot can be taken again."""
        self._free_slots.append(slot)

    def drop_slot(self, slot: Slot[HotContainer]) -> None:
        """A slot is used no more, because its channel was broken off in the middle of a call: the end of that is
        still to be told, and must not reach another call."""
        self.slots.remove(slot)

    def call_begins(self, invocation: Invocation) -> None:
        """A call is about to be sent through one of the slots."""
        self._last = invocation
        if self.calls == 0 and self.start_log:
            invocation.log = self.start_log
        self.calls += 1
        assert self.engine is not None
        invocation.container_id = self.engine.id

    def lend(self, loan: Loan) -> bytes:
        """Another process uses a place, counted in `running` already; returns what was written before the first call.

        A function that takes one call at a time may serve one connection after the other: it finds only the one that
        is opened there.
        """
        if self.pool.concurrency == 1:
            for slot in self._free_slots:
                slot.drop_channel()
        written = self.start_log.getvalue() if self.calls == 0 else b""
        self._last = loan
        self.loans.append(loan)
        self.calls += 1
        return written

    def take_back(self, loan: Loan) -> None:
        """The other process has left the place; to be followed by `Pool.release`, or `Pool.stop`."""
        self.loans.remove(loan)

    def close_channels(self) -> None:
        """Break off all calls; each of them hears of it."""
        for slot in self.slots:
            if slot.channel is not None:
                slot.channel.close()

    # --- OutputReceiver

    def stdout_received(self, data: bytes) -> None:
        """Standard output is the format's when it took it, the log's otherwise."""
        if self._stdout is not None:
            self._stdout.data_received(data)
        else:
            self.stderr_received(data)

    def stderr_received(self, data: bytes) -> None:
        """Standard error belongs to the call that runs, or that ran last; with several, see `share_out`."""
        last = self._last
        if last is None:
            self.start_log.append(data)
        elif self.running > 1:
            share_out(data, [slot.invocation for slot in self.slots if slot.invocation is not None], self._log_of)
            # A process with several places here hears it once, and shares it out like this one.
            for loan in {loan.borrower: loan for loan in self.loans}.values():
                loan.output_received(data)
        elif isinstance(last, Invocation):
            write_log(last, self._log_of(last), data)
        else:
            last.output_received(data)
        if logger.isEnabledFor(logging.DEBUG):
            _log_user_lines(self.function, last if isinstance(last, Invocation) else None, data)

    def _log_of(self, invocation: Invocation) -> LogBuffer:
        if invocation.log is None:
            invocation.log = LogBuffer(self._max_log_bytes)
        return invocation.log

    def output_ended(self) -> None:
        """The process has ended."""
        if not self.ended.done():
            self.ended.set_result(None)
        if self._stdout is not None:
            self._stdout.connection_lost(None)
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
