"""Format `http`: IronFunctions' hot containers, HTTP/1.1 over standard input and output.

Every call is `GET / HTTP/1.1`; method, route, URL, headers and configuration come as headers named after
IronFunctions' variables (`Method`, `Request_url`, `Header_accept` ...), the call id as `Task-Id`. The answer is one
HTTP response on standard output. Unlike IronFunctions, its status and headers reach the caller.
Source: iron-io/functions, docs/function-format.md and api/runner/protocol/http.go.
"""

from __future__ import annotations

import asyncio
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from faas.errors import ProtocolViolationError
from faas.runner.formats.http_channel import HttpChannel
from faas.runner.formats.iron import config_variables, payload_of, variables_of
from faas.wire.headers import end_to_end

if TYPE_CHECKING:
    from collections.abc import Mapping

    from faas.runner.executors.base import Stdio
    from faas.runner.formats.base import Channel, Site, SocketSite
    from faas.runner.functions import Function
    from faas.runner.invocation import Invocation
    from faas.wire.connection import KnownHeads
    from faas.wire.headers import Headers

__all__ = ["HttpFormat"]

_NOT_IN_A_NAME = re.compile(r"[^!#$%&'*+.^_`|~0-9A-Za-z-]")
"""RFC 9110 section 5.6.2."""

_MAX_KNOWN_NAMES = 1024


class HttpFormat:
    """The format; one object serves all containers."""

    needs_socket_dir = False
    needs_stdin = True

    def __init__(self, *, max_header_bytes: int) -> None:
        self.known_heads: KnownHeads = {}
        self._max_header_bytes = max_header_bytes

    def container_env(self, function: Function) -> Mapping[str, str]:
        """The configuration and `FN_FORMAT`."""
        return {**config_variables(function.config), "FN_FORMAT": "http"}

    async def open(self, site: Site) -> Channel:
        """Start the container; it is ready at once, since standard input waits for it."""
        channel = _StdioChannel(self, site.stdio, max_header_bytes=self._max_header_bytes)
        site.stdout.connect(channel)
        await site.start()
        return channel

    async def reopen(self, site: SocketSite) -> Channel:
        """Standard streams can't be opened twice."""
        raise ProtocolViolationError("the function closed its standard output")

    def encode(self, invocation: Invocation) -> bytes:
        """The call as a request; a GET's `?payload=` becomes its body."""
        if invocation.stream is None:
            invocation.body = payload_of(invocation)
        lines = ["GET / HTTP/1.1\r\n"]
        for name, value in variables_of(invocation).items():
            lines.append(f"{_header_name(name)}: {_one_line(value)}\r\n")
        length = len(invocation.body) if invocation.stream is None else invocation.content_length
        assert length is not None, "a body without a length is not streamed to this format"
        lines.append(f"Content-Length: {length}\r\n")
        lines.append(f"Task-Id: {invocation.id}\r\n\r\n")
        return "".join(lines).encode("latin-1", "replace")

    def decode(self, status: int, headers: Headers) -> tuple[int, Headers]:
        """The function's own status and headers."""
        if not 200 <= status <= 599:
            raise ProtocolViolationError(f"invalid function response: status {status}")
        return status, [(name, value) for name, value in end_to_end(headers) if name != b"content-length"]


class _StdioChannel(HttpChannel):
    """HTTP over a container's standard streams, whose flow control is their own."""

    def __init__(self, codec: HttpFormat, stdio: Stdio, *, max_header_bytes: int) -> None:
        super().__init__(codec, max_header_bytes=max_header_bytes)
        self._stdio = stdio
        self.connection_made(_StdioTransport(stdio))

    async def drain(self) -> None:
        """Wait until the function has taken most of what was sent."""
        await self._stdio.drain()


class _StdioTransport(asyncio.Transport):
    """The part of a transport that an `HttpConnection` uses, over a container's standard streams."""

    def __init__(self, stdio: Stdio) -> None:
        super().__init__()
        self._stdio = stdio
        self._is_closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._stdio.write(bytes(data))

    def is_closing(self) -> bool:
        return self._is_closing

    def pause_reading(self) -> None:
        self._stdio.pause_reading()

    def resume_reading(self) -> None:
        self._stdio.resume_reading()

    def abort(self) -> None:
        self._is_closing = True


@lru_cache(_MAX_KNOWN_NAMES)
def _header_name(variable: str) -> str:
    """A variable's name as a header's; the configuration's keys may hold anything, line breaks too."""
    return _NOT_IN_A_NAME.sub("_", variable.capitalize()) or "_"


def _one_line(value: str) -> str:
    """A value that can't end its header early: configuration may hold line breaks."""
    return value.replace("\r", " ").replace("\n", " ")
