"""A satellite's connections: what it can run itself it answers, and with anything else it hands the connection over.

    a request's head is parsed -> a sync call of a function that can be run here -> an exchange as in the primary
                               -> else: the answers before it are sent -> connection and bytes go to the primary
The primary goes on as if the client had come to it, and keeps the connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from faas.api.dataplane import DataPlane, FaasProtocol
from faas.errors import FaasError
from faas.models import FormatName
from faas.processes.cutting import RequestCutter

if TYPE_CHECKING:
    from collections.abc import Callable

    from faas.api.exchange import Exchange
    from faas.api.request_head import RequestHead

__all__ = ["SatellitePlane", "SatelliteProtocol"]


class SatellitePlane(DataPlane):
    """What a satellite's connections share. `hand_over(fd, data)` gives a connection away."""

    hand_over: Callable[[int, bytes], None]

    def protocol(self, **arguments: Any) -> FaasProtocol:
        """What uvicorn is given as its `http` protocol class."""
        return SatelliteProtocol(self, **arguments)

    def can_run(self, head: RequestHead) -> bool:
        """Whether a request is for this process; what can't be found is for the one that knows better."""
        try:
            function = self.table.match(head.path)
        except FaasError:
            return False
        if function.format is not FormatName.HTTP_STREAM or function.is_async:
            return False
        fields = head.fields
        if b"upgrade" in fields or b"idempotency-key" in fields:
            return False
        return not (b"prefer" in fields and head.wants_async)


class SatelliteProtocol(FaasProtocol):
    """One client's connection to a satellite."""

    plane: SatellitePlane

    def __init__(self, plane: SatellitePlane, **arguments: Any) -> None:
        super().__init__(plane, **arguments)
        self._cutter = RequestCutter()
        self._leaving: bytearray | None = None
        """Set when the connection is to go: the bytes that go with it."""
        self._is_foreign = False
        """Whether the request that the parser is in is for the primary."""

    def data_received(self, data: bytes) -> None:
        """Parse what came, request by request, as long as they can be run here."""
        repeated = self._repeated
        if repeated is not None and self._is_between_requests and data.startswith(repeated.data):
            if len(data) == repeated.total and self.plane.can_run(repeated.head):
                super().data_received(data)
                return
            self._repeated = None
        while data and self._leaving is None:
            size = self._cutter.next_piece(data, is_between=self._is_between_requests)
            piece, data = (data, b"") if size == len(data) else (data[:size], data[size:])
            super().data_received(piece)
            if self._is_foreign:
                self._leaving = bytearray(self._cutter.begun)
            if self.transport.is_closing() or self._lingering is not None:
                return
        if self._leaving is not None:
            self._leaving += data
            self.flow.pause_reading()
            self._leave_if_free()

    # --- the parser's callbacks

    def _begin(self, exchange: Exchange) -> None:
        """Only what can be run here begins."""
        if self.plane.can_run(exchange.request_head):
            super()._begin(exchange)
        else:
            self._is_foreign = True

    def _begin_asgi(self) -> None:
        """The control API is the primary's."""
        self._is_foreign = True

    def on_body(self, body: bytes) -> None:
        """Some of a request's body."""
        if not self._is_foreign:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is complete."""
        if not self._is_foreign:
            super().on_message_complete()

    # --- handing over

    def on_response_complete(self) -> None:
        """An answer is complete; it may have been the last one here."""
        super().on_response_complete()
        if self._leaving is not None and not self.transport.is_closing():
            self.flow.pause_reading()
            self._leave_if_free()

    def resume_writing(self) -> None:
        """The client takes more, or has taken all."""
        super().resume_writing()
        self._leave_if_free()

    def _leave_if_free(self) -> None:
        """Go when all answers are sent."""
        cycle: Any = self.cycle
        if self._leaving is None or self.transport.is_closing() or not (cycle is None or cycle.response_complete):
            return
        if self.transport.get_write_buffer_size():
            # `resume_writing` is called when the last byte is out.
            self.transport.set_write_buffer_limits(high=0)
            return
        self.plane.hand_over(self.transport.get_extra_info("socket").fileno(), bytes(self._leaving))
        # The connection lives on in the primary: closing our descriptor of it tells the client nothing.
        self.transport.abort()
