"""The line between a primary and one satellite: whole messages both ways, in order, each with a connection at most.

    4 bytes length | 1 byte: is a file descriptor with it? | pickled message

The descriptor travels as ancillary data (SCM_RIGHTS, unix(7)) of the frame's first byte. The kernel hands them out in
the order of the bytes they came with, so that the next one that came is the next one that a frame announces.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING

from faas.processes.messages import Message

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Channel", "ForeignMessageError"]

logger = logging.getLogger(__name__)

_HEAD = struct.Struct("!I?")
_READ_BYTES = 256 * 1024
_LOST = -1
_MAX_FDS = 64
"""That one read takes; the kernel stops a read behind bytes that came with one."""


class ForeignMessageError(Exception):
    """The other end said what this one does not know: a defect."""


class Channel:
    """One end of it. `on_message(message, fd)` hears of each message, and owns the descriptor that came with it (-1:
    none); `on_lost()` once, when the other end is gone or made no sense."""

    def __init__(
        self, sock: socket.socket, on_message: Callable[[Message, int], None], on_lost: Callable[[], None]
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._on_message = on_message
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._fds: deque[int] = deque()
        self._unsent: deque[tuple[memoryview, int]] = deque()
        self._drained: asyncio.Future[None] | None = None
        self.is_open = True
        self._loop.add_reader(sock, self._read)

    # --- out

    def send(self, message: Message, fd: int = -1) -> None:
        """Send a message, with a copy of a descriptor if there is one; nothing when the other end is gone."""
        if not self.is_open:
            return
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        frame = memoryview(_HEAD.pack(len(data), fd >= 0) + data)
        if self._unsent:
            self._unsent.append((frame, os.dup(fd) if fd >= 0 else -1))
            return
        sent = self._write(frame, fd)
        if sent in (len(frame), _LOST):
            return
        # What is left has to wait: of the descriptor nothing is left when some bytes are out.
        self._unsent.append((frame[sent:], os.dup(fd) if fd >= 0 and not sent else -1))
        self._loop.add_writer(self._sock, self._write_on)

    def _write(self, frame: memoryview, fd: int) -> int:
        """How many bytes could be written now, or `_LOST`."""
        try:
            return socket.send_fds(self._sock, [frame], [fd]) if fd >= 0 else self._sock.send(frame)
        except BlockingIOError:
            return 0
        except OSError:
            self._lose()
            return _LOST

    def _write_on(self) -> None:
        while self._unsent:
            frame, fd = self._unsent[0]
            sent = self._write(frame, fd)
            if sent == _LOST:
                return
            if sent and fd >= 0:
                os.close(fd)
            if sent < len(frame):
                self._unsent[0] = (frame[sent:], -1 if sent else fd)
                return
            self._unsent.popleft()
        self._loop.remove_writer(self._sock)
        self._tell_drained()

    async def drain(self) -> None:
        """Return when everything was sent, or the other end is gone."""
        if self._unsent:
            self._drained = self._loop.create_future()
            await self._drained

    def _tell_drained(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # --- in

    def _read(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._sock, _READ_BYTES, _MAX_FDS)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        self._fds.extend(fds)
        if not data:
            self._lose()
            return
        self._received += data
        self._hand_out()

    def _hand_out(self) -> None:
        received = self._received
        start = 0
        while self.is_open and len(received) - start >= _HEAD.size:
            size, has_fd = _HEAD.unpack_from(received, start)
            end = start + _HEAD.size + size
            if len(received) < end:
                break
            frame = received[start + _HEAD.size : end]
            start = end
            try:
                message = pickle.loads(frame)  # noqa: S301 - see `messages`
                if not isinstance(message, Message):
                    raise ForeignMessageError(repr(message))  # noqa: TRY301 - logged below, as whatever it leads to
                self._on_message(message, self._fds.popleft() if has_fd else -1)
            except Exception:
                logger.exception("message_not_understood")
                self._lose()
        del received[:start]

    # --- the end

    def close(self) -> None:
        """Say nothing more, hear nothing more."""
        if not self.is_open:
            return
        self.is_open = False
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        for fd in (*self._fds, *(fd for _, fd in self._unsent if fd >= 0)):
            os.close(fd)
        self._fds.clear()
        self._unsent.clear()
        self._tell_drained()

    def _lose(self) -> None:
        self.close()
        self._on_lost()
