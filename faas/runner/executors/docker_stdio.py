"""A container's standard streams over the Engine's attach call, spoken by ourselves over asyncio.

    -> POST /containers/ID/attach?stream=1&stdin=1&stdout=1&stderr=1     Upgrade: tcp
    <- 101 UPGRADED                                                      from here on raw in both directions
    -> bytes of standard input, then perhaps a half-close
    <- frames: [stream: 1 byte][0 0 0][length: 4 bytes, big-endian][length bytes]

The SDK's own attach loses bytes that its HTTP layer has read past the head (docker-py issue 2466).
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import struct
from collections import deque
from typing import TYPE_CHECKING, cast

from faas.errors import EngineError, EngineUnavailableError

if TYPE_CHECKING:
    from faas.runner.executors.base import OutputReceiver

__all__ = ["AttachedStdio", "attach"]

logger = logging.getLogger(__name__)

STDOUT = 1
STDERR = 2
ENGINE_ERROR = 3
"""Newer engines report their own trouble on a stream of its own."""

FRAME_HEAD = struct.Struct(">BxxxL")
MAX_HEAD_BYTES = 64 * 1024
END_OF_HEAD = b"\r\n\r\n"
STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})\b")
UPGRADED = (101, 200)
"""200 is what engines without the upgrade answer; the connection is raw after it too."""


async def attach(
    socket_path: str, container_id: str, receiver: OutputReceiver, *, with_stdin: bool, timeout_s: float
) -> AttachedStdio:
    """Connect to a container's streams; raises `EngineUnavailableError`, `EngineError`."""
    what = f"attach to container {container_id[:12]}"
    loop = asyncio.get_running_loop()
    protocol = AttachedStdio(receiver, with_stdin=with_stdin, upgraded=loop.create_future())
    try:
        async with asyncio.timeout(timeout_s):
            await loop.create_unix_connection(lambda: protocol, socket_path)
            protocol.request(container_id)
            await protocol.upgraded
    except (OSError, TimeoutError) as error:
        protocol.close()
        raise EngineUnavailableError(f"{what}: the Docker Engine does not answer ({error})") from error
    except EngineError as error:
        protocol.close()
        raise EngineError(f"{what}: {error.message}") from error
    except asyncio.CancelledError:
        protocol.close()
        raise
    return protocol


class AttachedStdio(asyncio.Protocol):
    """Both the protocol of the connection and the `Stdio` that its owner holds."""

    def __init__(self, receiver: OutputReceiver, *, with_stdin: bool, upgraded: asyncio.Future[None]) -> None:
        self.upgraded = upgraded
        self._receiver = receiver
        self._with_stdin = with_stdin
        self._transport: asyncio.Transport | None = None
        self._is_raw = False
        self._head = bytearray()
        """The answer's head, later a frame's head that came in pieces."""
        self._stream = STDOUT
        self._frame_left = 0
        self._is_writing_paused = False
        self._drain_waiters: deque[asyncio.Future[None]] = deque()

    def __repr__(self) -> str:
        state = "closed" if self._transport is None else "open" if self._is_raw else "attaching"
        return f"<AttachedStdio {state}>"

    # --- Stdio

    def write(self, data: bytes) -> None:
        if not self._with_stdin:
            raise RuntimeError("this container was made without standard input")
        if self._transport is not None:
            self._transport.write(data)

    def write_eof(self) -> None:
        if self._with_stdin and self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()

    async def drain(self) -> None:
        if not self._is_writing_paused or self._transport is None:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._drain_waiters.append(waiter)
        try:
            await waiter
        finally:
            self._drain_waiters.remove(waiter)

    def pause_reading(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def close(self) -> None:
        if self._transport is not None:
            # Not close(): that would first wait until the container has read all of its standard input.
            self._transport.abort()

    # --- asyncio.Protocol

    def request(self, container_id: str) -> None:
        """Ask for the upgrade."""
        assert self._transport is not None
        streams = "stream=1&stdout=1&stderr=1" + ("&stdin=1" if self._with_stdin else "")
        self._transport.write(
            f"POST /containers/{container_id}/attach?{streams} HTTP/1.1\r\n"
            "Host: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n".encode()
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._is_raw:
            self._demux(data)
        elif not self.upgraded.done():
            self._read_head(data)

    def eof_received(self) -> None:
        # Without this asyncio would wait until the rest of standard input is written, which nobody reads any more.
        self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self.resume_writing()
        if self._is_raw:
            self._receiver.output_ended()
        elif not self.upgraded.done():
            self.upgraded.set_exception(error or ConnectionResetError("hung up before it answered"))

    def pause_writing(self) -> None:
        self._is_writing_paused = True

    def resume_writing(self) -> None:
        self._is_writing_paused = False
        for waiter in self._drain_waiters:
            if not waiter.done():
                waiter.set_result(None)

    # --- what arrives

    def _read_head(self, data: bytes) -> None:
        self._head += data
        end = self._head.find(END_OF_HEAD)
        if end < 0:
            if len(self._head) > MAX_HEAD_BYTES:
                self.upgraded.set_exception(EngineError("the engine's answer has no end of its head"))
            return
        head = bytes(self._head[:end])
        rest = bytes(self._head[end + len(END_OF_HEAD) :])
        status_line = STATUS_LINE.match(head)
        status = int(status_line[1]) if status_line else 0
        if status in UPGRADED:
            self._is_raw = True
            self._head.clear()
            self.upgraded.set_result(None)
            if rest:
                self._demux(rest)
        elif len(rest) >= _content_length(head):
            self.upgraded.set_exception(EngineError(_message(rest) or f"status {status}"))

    def _demux(self, data: bytes) -> None:
        """Hand on the bodies of frames; a frame, and its head, can be split anywhere."""
        position = 0
        while position < len(data):
            if self._frame_left == 0:
                position = self._read_frame_head(data, position)
                continue
            end = min(position + self._frame_left, len(data))
            body = data if position == 0 and end == len(data) else data[position:end]
            self._frame_left -= end - position
            position = end
            if self._stream == STDOUT:
                self._receiver.stdout_received(body)
            else:
                self._receiver.stderr_received(body)

    def _read_frame_head(self, data: bytes, position: int) -> int:
        if not self._head and len(data) - position >= FRAME_HEAD.size:
            stream, self._frame_left = FRAME_HEAD.unpack_from(data, position)
            position += FRAME_HEAD.size
        else:
            missing = FRAME_HEAD.size - len(self._head)
            self._head += data[position : position + missing]
            position = min(position + missing, len(data))
            if len(self._head) < FRAME_HEAD.size:
                return position
            stream, self._frame_left = FRAME_HEAD.unpack(self._head)
            self._head.clear()
        if stream not in (STDOUT, STDERR, ENGINE_ERROR):
            logger.error("attach_stream_broken", extra={"stream": stream})
            self.close()
            return len(data)
        self._stream = stream
        return position


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length" and value.strip().isdigit():
            return int(value)
    return 0


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode("utf-8", "replace").strip()
