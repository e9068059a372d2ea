"""Format `http-stream`: Fn's hot containers, an HTTP/1.1 server on a Unix socket inside the container.

The container finds the socket's path in `FN_LISTENER`, listens under another name and then makes `lsnr.sock` a
relative symbolic link to it: the link's appearance means "ready". Each call is `POST /call`, the caller's request
travels in `Fn-Http-*` headers, and so does the answer.
Source: fnproject/docs, fn/develop/fn-format.md; fnproject/fn, api/agent and api/server/runner_httptrigger.go.

| the container answers    | the caller gets                             | the container |
|--------------------------|---------------------------------------------|---------------|
| 200                      | `Fn-Http-Status` (200), `Fn-Http-H-*`, body | is kept       |
| 502                      | 502 function_failed                         | is kept       |
| 504                      | 504 timeout                                 | is kept       |
| anything else, or breaks | 502 protocol                                | is killed     |
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from faas.clock import unix_s
from faas.errors import (
    CallTimeoutError,
    FunctionFailedError,
    ProtocolViolationError,
    StartFailedError,
)
from faas.runner.formats.base import SOCKET_DIR_IN_CONTAINER
from faas.runner.formats.http_channel import HttpChannel
from faas.runner.formats.socket_watch import SocketWatch, connected_socket
from faas.wire.headers import HOP_BY_HOP, canonical_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from faas.runner.formats.base import Channel, Site, SocketSite
    from faas.runner.functions import Function
    from faas.runner.invocation import Invocation
    from faas.wire.connection import KnownHeads
    from faas.wire.headers import Headers

__all__ = ["HttpStreamFormat"]

SOCKET_NAME = "lsnr.sock"

_MAX_KNOWN_NAMES = 1024
"""Header names whose spelling is remembered; callers choose names, so there must be an end."""

_DROPPED_REQUEST_HEADERS = HOP_BY_HOP | {b"host", b"content-length", b"expect"}


class HttpStreamFormat:
    """The format; one object serves all containers."""

    needs_socket_dir = True
    needs_stdin = False

    def __init__(self, *, max_header_bytes: int) -> None:
        self.known_heads: KnownHeads = {}
        self._max_header_bytes = max_header_bytes
        # lower-case name -> `Fn-Http-H-Name: `, b"" for names that don't travel: one look-up a header.
        self._request_names: dict[bytes, bytes] = dict.fromkeys(_DROPPED_REQUEST_HEADERS, b"")
        self._request_names[b"content-type"] = b"Content-Type: "
        self._deadline_second = 0
        self._deadlines: dict[int, bytes] = {}

    def container_env(self, function: Function) -> Mapping[str, str]:
        """The configuration as it is, then Fn's variables, which it can't override."""
        return {
            **function.config,
            "FN_MEMORY": str(function.memory_mib),
            "FN_TYPE": "sync",
            "FN_FN_ID": f"{function.app_name}{function.path}",
            "FN_APP_ID": function.app_name,
            "FN_FN_NAME": function.path,
            "FN_APP_NAME": function.app_name,
            "FN_LISTENER": f"unix:{SOCKET_DIR_IN_CONTAINER}/{SOCKET_NAME}",
            "FN_FORMAT": "http-stream",
        }

    async def open(self, site: Site) -> Channel:
        """Start the container, wait for its socket, connect."""
        with SocketWatch(site.socket_dir, SOCKET_NAME) as watch:
            await site.start()
            if not await watch.appeared(unless=site.ended):
                raise StartFailedError(
                    "Container failed to initialize: it ended before it listened on FN_LISTENER; see its log"
                )
        try:
            return await self._connect(site.socket_dir)
        except OSError as error:
            raise StartFailedError(f"Container failed to initialize: its socket refused us ({error})") from error

    async def reopen(self, site: SocketSite) -> Channel:
        """Connect again: functions close connections that were idle for some seconds."""
        try:
            return await self._connect(site.socket_dir)
        except (OSError, StartFailedError) as error:
            raise ProtocolViolationError(f"the function no longer listens on its socket ({error})") from error

    async def _connect(self, socket_dir: Path) -> Channel:
        connection = await connected_socket(socket_dir, SOCKET_NAME)
        _, channel = await asyncio.get_running_loop().create_unix_connection(
            lambda: HttpChannel(self, max_header_bytes=self._max_header_bytes), sock=connection
        )
        return channel

    # --- Codec

    def encode(self, invocation: Invocation) -> bytes:
        """The call as `POST /call`."""
        memo = invocation.memo
        lines = memo.get(self) if memo is not None else None
        if lines is None:
            lines = self._encode_request(invocation)
            if memo is not None:
                memo[self] = lines
        if invocation.stream is None:
            framing = b"Content-Length: %d" % len(invocation.body)
        elif invocation.content_length is not None:
            framing = b"Content-Length: %d" % invocation.content_length
        else:
            framing = b"Transfer-Encoding: chunked"
        return b"POST /call HTTP/1.1\r\nHost: localhost\r\nFn-Call-Id: %b\r\nFn-Deadline: %b\r\n%b%b\r\n\r\n" % (
            invocation.id.encode(),
            self._deadline(invocation.function.timeout_s),
            lines,
            framing,
        )

    def _encode_request(self, invocation: Invocation) -> bytes:
        """The header lines that tell what the caller asked; nothing of them is about this one call."""
        names = self._request_names
        lines = [
            b"Fn-Intent: httprequest\r\nFn-Http-Method: %b\r\nFn-Http-Request-Url: %b\r\n"
            % (invocation.method, invocation.url)
        ]
        for name, value in invocation.headers:
            prefix = names.get(name)
            if prefix is None:
                prefix = self._spell(name)
            if prefix:
                lines.append(prefix + value + b"\r\n")
        return b"".join(lines)

    def decode(self, status: int, headers: Headers) -> tuple[int, Headers]:
        """Status and headers for the caller; see the table on top."""
        if status == 502:
            raise FunctionFailedError
        if status == 504:
            raise CallTimeoutError("Timed out: the function said so itself")
        if status != 200:
            raise ProtocolViolationError(f"invalid function response: status {status}, where Fn's contract has 200")
        outer_status = 200
        outer: Headers = []
        for name, value in headers:
            lowered = name.lower()
            if lowered.startswith(b"fn-http-"):
                if lowered == b"fn-http-status":
                    outer_status = _STATUSES.get(value) or _status(value)
                elif lowered.startswith(b"fn-http-h-"):
                    inner = lowered[10:]
                    if inner not in HOP_BY_HOP and inner != b"content-length":
                        outer.append((inner, value))
            elif lowered == b"content-type":
                outer.append((lowered, value))
        return outer_status, outer

    def _spell(self, name: bytes) -> bytes:
        prefix = b"Fn-Http-H-" + canonical_name(name) + b": "
        if len(self._request_names) < _MAX_KNOWN_NAMES:
            self._request_names[name] = prefix
        return prefix

    def _deadline(self, timeout_s: int) -> bytes:
        """RFC 3339 with whole seconds; formatted once a second for each timeout."""
        second = int(unix_s())
        if second != self._deadline_second:
            self._deadline_second = second
            self._deadlines.clear()
        text = self._deadlines.get(timeout_s)
        if text is None:
            deadline = datetime.fromtimestamp(second + timeout_s, UTC)
            text = self._deadlines[timeout_s] = deadline.strftime("%Y-%m-%dT%H:%M:%SZ").encode()
        return text


_STATUSES = {str(status).encode(): status for status in range(200, 600)}


def _status(value: bytes) -> int:
    try:
        status = int(value)
    except ValueError:
        status = 0
    if not 200 <= status <= 599:
        raise ProtocolViolationError(f"invalid function response: Fn-Http-Status {value[:20]!r}")
    return status
