"""A satellite: a process that serves the node's port and runs sync calls, and has no engine, store or control API.

    started by the primary -> Begin -> functions -> Serve: listens -> Ready ... Stop: ends its calls -> ends
It has no life of its own: when the primary is gone, so is it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

import uvicorn
import uvloop

from faas import logs
from faas.api.error_answer import render_error
from faas.errors import CallCancelledError, NoCapacityError
from faas.processes import messages as m
from faas.processes.borrowing import BorrowingAgent
from faas.processes.channel import Channel, ForeignMessageError
from faas.processes.front import SatellitePlane
from faas.processes.reporting import Counters, ShippingStore
from faas.recorder import CallView, Recorder, log_of, running_view
from faas.runner.formats.http_stream import HttpStreamFormat
from faas.runner.functions import FunctionTable
from faas.serving import server_config, settle_interpreter
from faas.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from faas.api.exchange import Exchange

__all__ = ["main"]

logger = logging.getLogger(__name__)

REPORT_S = 0.5
"""How often the primary hears what was counted here; it asks when it needs to know at once."""

_PR_SET_PDEATHSIG = 1


class Satellite:
    """One satellite, from `Begin` to its end."""

    def __init__(self, options: m.Options, channel: Channel, listeners: list[socket.socket]) -> None:
        self._options = options
        self._channel = channel
        self._listeners = listeners
        self._watched: set[str] = set()
        """Calls that the primary wants to hear the end of."""
        self._tasks = TaskSet("satellite")
        self._counters = Counters()
        self._table = FunctionTable(self._counters)
        self._recorder = Recorder(
            ShippingStore(channel.send),
            self._counters,
            node=options.node_name,
            recent_calls=options.recent_calls,
            per_second=options.record_sync_per_s,
            render_error=render_error,
        )
        self._recorder.on_ended = self._ended
        self._agent = BorrowingAgent(
            self._table,
            HttpStreamFormat(max_header_bytes=options.max_response_header_bytes),
            channel.send,
            queue_timeout_s=options.queue_timeout_s,
            max_log_bytes=options.max_log_bytes,
            observe=self._recorder.observe,
        )
        self._table.on_retired = self._agent.retired
        self._plane = SatellitePlane(
            self._table,
            self._agent,
            _refuse,
            max_header_bytes=options.max_header_bytes,
            max_request_bytes=options.max_request_bytes,
            max_buffered_request_bytes=options.max_buffered_request_bytes,
            max_response_bytes=options.max_response_bytes,
            request_read_timeout_s=options.request_read_timeout_s,
        )
        self._plane.hand_over = self._hand_over
        self._server = _Server(server_config(_no_app, self._plane.protocol, grace_s=options.shutdown_grace_s))
        self._handlers: Mapping[type[m.Message], Callable[[Any], None]] = {
            m.AppChanged: lambda message: self._table.app_changed(message.app),
            m.AppRemoved: lambda message: self._table.app_removed(message.app_name),
            m.RouteChanged: lambda message: self._table.route_changed(message.app, message.route),
            m.RouteRemoved: lambda message: self._table.route_removed(message.app_name, message.path),
            m.Mark: lambda message: channel.send(m.Obeyed(number=message.number)),
            m.Serve: self._serve,
            m.Grant: self._agent.granted,
            m.Refusal: self._agent.refused,
            m.Recall: self._agent.recall,
            m.Settled: self._agent.settled,
            m.Output: self._agent.output,
            m.FindCall: self._find,
            m.CancelCall: self._cancel,
            m.Count: self._count,
            m.Stop: self._stop,
            m.Hurry: self._hurry,
        }
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when it has nothing more to do."""

    def heard(self, message: m.Message) -> None:
        """The primary said something."""
        handler = self._handlers.get(type(message))
        if handler is None:
            raise ForeignMessageError(repr(message))
        handler(message)

    # --- its life

    def _serve(self, _message: m.Serve) -> None:
        for work, name in (
            (self._agent.sweep_forever(), "sweep"),
            (self._plane.sweep_forever(), "data plane sweep"),
            (self._recorder.write_forever(), "recorder"),
            (self._report_forever(), "report"),
        ):
            self._tasks.spawn(work, name=name)
        self._tasks.spawn(self._run(), name="serve")

    async def _run(self) -> None:
        settle_interpreter()
        self._server.on_started = lambda: self._channel.send(m.Ready())
        try:
            await self._server.serve(self._listeners)
            # Connections are closed when their answers are sent; what runs now has nobody who waits for it.
            await self._agent.close(0.0)
            await self._recorder.flush()
            self._report()
            await self._channel.drain()
        finally:
            self.ended.set_result(None)

    def _stop(self, _message: m.Stop) -> None:
        self._server.should_exit = True

    def _hurry(self, _message: m.Hurry) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._agent.hurry()

    def _hand_over(self, fd: int, data: bytes) -> None:
        self._channel.send(m.Handover(data=data), fd)

    # --- what the primary wants to know

    def _view(self, call_id: str) -> CallView | None:
        invocation = self._agent.running.get(call_id)
        if invocation is not None:
            self._watched.add(call_id)
            return CallView(call=running_view(invocation), result=None, log=log_of(invocation))
        ended = self._recorder.get(call_id)
        if ended is None:
            return None
        return CallView(call=self._recorder.view(ended), result=self._recorder.result(ended), log=log_of(ended))

    def _find(self, question: m.FindCall) -> None:
        self._channel.send(m.Answer(number=question.number, view=self._view(question.call_id)))

    def _cancel(self, question: m.CancelCall) -> None:
        view = self._view(question.call_id)
        invocation = self._agent.running.get(question.call_id)
        if invocation is not None:
            self._agent.stop(invocation, CallCancelledError())
        self._channel.send(m.Answer(number=question.number, view=view if invocation is not None else None))

    def _count(self, question: m.Count) -> None:
        self._report()
        self._channel.send(m.Answer(number=question.number, view=None))

    async def _report_forever(self) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            self._report()

    def _report(self) -> None:
        waiting = self._agent.waiting
        self._channel.send(
            m.Report(
                routes=self._counters.take(),
                dropped_records=self._counters.take_dropped(),
                waiting=waiting,
                running=len(self._agent.running) - waiting,
                completed=self._agent.completed,
            )
        )

    def _ended(self, call_id: str) -> None:
        if call_id in self._watched:
            self._watched.discard(call_id)
            self._channel.send(m.CallEnded(call_id=call_id))


class _Server(uvicorn.Server):
    """uvicorn's server, told what to do by the primary and not by signals."""

    on_started: Callable[[], None]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.on_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _refuse(exchange: Exchange) -> None:
    """A request that became async between its head and its turn."""
    exchange.refuse(NoCapacityError("The route was changed while the request arrived; try again"))


async def _no_app(_scope: object, _receive: object, _send: object) -> None:
    """Requests for the control API are handed over before they come to an application."""


async def _live(control: socket.socket, listeners: list[socket.socket]) -> int:
    satellite: Satellite | None = None
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def heard(message: m.Message, _fd: int) -> None:
        nonlocal satellite
        if satellite is not None:
            satellite.heard(message)
        elif isinstance(message, m.Begin):
            logs.setup(level=message.options.log_level, style=message.options.log_format)  # type: ignore[arg-type]
            satellite = Satellite(message.options, channel, listeners)
            satellite.ended.add_done_callback(lambda _: end(0))
        else:
            raise ForeignMessageError(repr(message))

    def end(code: int) -> None:
        if not ended.done():
            ended.set_result(code)

    channel = Channel(control, heard, lambda: end(1))
    code = await ended
    channel.close()
    return code


def main() -> None:
    """Run one; the arguments are the primary's process id and the descriptors that it has given."""
    parent, control, *listeners = map(int, sys.argv[1:])
    # Without the primary nobody answers for what runs here.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)
    # A terminal, or an init system, tells all processes; the primary says when it is this one's turn.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    sockets = [socket.socket(fileno=fd) for fd in listeners]
    code = uvloop.run(_live(socket.socket(fileno=control), sockets))
    logging.shutdown()
    # What may be left is no affair of anybody's any more.
    os._exit(code)


if __name__ == "__main__":
    main()
