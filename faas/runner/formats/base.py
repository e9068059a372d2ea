"""The contract of a format: how one call crosses into a container and back.

A *hot* format opens a `Channel` to a running container, on which calls follow one another. A *cold* format
(`default`) makes a container for each call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping
    from pathlib import Path

    from faas.runner.executors.base import Stdio
    from faas.runner.functions import Function
    from faas.runner.invocation import Invocation
    from faas.wire.connection import ResponseReceiver

__all__ = ["SOCKET_DIR_IN_CONTAINER", "Channel", "HotFormat", "Site", "SocketSite"]

SOCKET_DIR_IN_CONTAINER = "/tmp/iofs"  # noqa: S108 - a path inside the container, named by Fn's contract


class Channel(Protocol):
    """A hot container's line for calls, one at a time. Nothing here blocks but `drain`."""

    @property
    def is_usable(self) -> bool:
        """Whether a call can begin now."""

    def begin(self, invocation: Invocation, receiver: ResponseReceiver) -> None:
        """Send the call's head and the body at hand; the decoded answer goes to the receiver."""

    def write_body(self, data: bytes) -> None:
        """Send more of a streamed body."""

    def end_body(self) -> None:
        """A streamed body is complete."""

    async def drain(self) -> None:
        """Wait until the function has taken most of what was sent."""

    def pause_reading(self) -> None:
        """Stop the answer for a while."""

    def resume_reading(self) -> None:
        """Go on with the answer."""

    def close(self) -> None:
        """Break off."""


class SocketSite(Protocol):
    """What a hot format finds around a container that runs."""

    @property
    def socket_dir(self) -> Path:
        """The folder on the host that the container sees as `SOCKET_DIR_IN_CONTAINER`."""


class Site(SocketSite, Protocol):
    """What a hot format finds around a container that is about to start."""

    @property
    def stdio(self) -> Stdio:
        """The container's standard streams."""

    @property
    def stdout(self) -> StdoutTap:
        """Who gets standard output."""

    async def start(self) -> None:
        """Start the container's process."""

    @property
    def ended(self) -> asyncio.Future[None]:
        """Done when the container has ended."""


class StdoutTap(Protocol):
    """Lets a format take standard output, which is part of the log otherwise."""

    def connect(self, receiver: StdoutReceiver) -> None:
        """Send standard output there from now on."""


class StdoutReceiver(Protocol):
    """Takes standard output's bytes."""

    def data_received(self, data: bytes) -> None:
        """Some bytes."""

    def connection_lost(self, exc: Exception | None) -> None:
        """No more bytes will come."""


class HotFormat(Protocol):
    """A format whose containers serve many calls."""

    @property
    def needs_socket_dir(self) -> bool:
        """Whether the container gets a folder for its socket."""

    @property
    def needs_stdin(self) -> bool:
        """Whether calls go through standard input."""

    def container_env(self, function: Function) -> Mapping[str, str]:
        """The container's environment: the configuration and what the contract adds; nothing of any caller."""

    async def open(self, site: Site) -> Channel:
        """Start the container and return when it is ready for a call.

        Raises `StartFailedError`; bounded by the caller's deadline.
        """

    async def reopen(self, site: SocketSite) -> Channel:
        """A fresh channel to a container that closed the last one between calls; raises `ProtocolViolationError`."""
