"""Serving: an open node behind uvicorn, from the first signal handler to the exit code."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from typing import TYPE_CHECKING

import uvicorn
import uvloop

from faas import __version__, logs
from faas.errors import FaasError, StartupError
from faas.processes.arrival import Arrival
from faas.serving import bind_shared, server_config, settle_interpreter
from faas.wiring import open_node

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from faas.config import Settings
    from faas.wiring import Node

__all__ = ["serve"]

logger = logging.getLogger(__name__)


def serve(settings: Settings) -> int:
    """Run a node until SIGINT or SIGTERM; returns the process's exit code."""
    logs.setup(level=settings.log_level, style=settings.log_format)
    try:
        return uvloop.run(_serve(settings))
    except FaasError as error:
        logger.error("node_not_started", extra={"code": error.code, "error": error.message})  # noqa: TRY400
        return 1


async def _serve(settings: Settings) -> int:
    failures: list[BaseException] = []
    servers: list[_Server] = []

    def on_failure(error: BaseException) -> None:
        failures.append(error)
        for server in servers:
            server.should_exit = True

    async with open_node(settings, on_failure=on_failure) as node:
        config = server_config(
            node.app,
            node.plane.protocol,
            host=settings.host,
            port=settings.port,
            grace_s=settings.shutdown_grace_s,
        )
        server = _Server(config, node)
        servers.append(server)
        settle_interpreter()
        # Alone, it has the port for itself; with others each has a socket of its own on it.
        await server.serve(None if node.fleet.is_alone else bind_shared(settings.host, settings.port, is_first=True))
    return 1 if failures else 0


class _Server(uvicorn.Server):
    """uvicorn's server, with a node's signals, first log line and first step of the shutdown."""

    def __init__(self, config: uvicorn.Config, node: Node) -> None:
        super().__init__(config)
        self._node = node

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except SystemExit as error:  # it has logged the system's own words
            address = f"{self.config.host}:{self.config.port}"
            raise StartupError(f"Can't listen on {address}; choose another with --host and --port") from error
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            await self._node.fleet.start(lambda: bind_shared(self.config.host, port, is_first=False), self._adopt_soon)
            logger.info("node_started", extra={"url": f"http://{host}:{port}", "version": __version__})

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        logger.info("node_stopping", extra={"calls": len(self._node.agent.running)})
        self._node.stop_fetching()
        if not self._node.fleet.is_alone:
            # All processes stop at the same time, and this one last: it gets what the others hand over.
            for server in self.servers:
                server.close()
            for connection in list(self.server_state.connections):
                connection.shutdown()
            await self._node.fleet.stop(self._node.settings.shutdown_grace_s)
        await super().shutdown(sockets)

    def _adopt_soon(self, fd: int, data: bytes) -> None:
        self._node.tasks.spawn(self._adopt(fd, data), name="adopt")

    async def _adopt(self, fd: int, data: bytes) -> None:
        """Go on with a connection that another process has handed over."""
        with contextlib.suppress(OSError):  # the client is gone
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: Arrival(self._make_protocol, data), socket.socket(fileno=fd)
            )

    def _make_protocol(self) -> asyncio.Protocol:
        protocol: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal came: the first one asks for a polite end, the second for a quick one."""
        if self.should_exit:
            self.force_exit = True
            self._node.hurry()
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's own, but no signal is raised again: it was answered by an orderly exit."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            # From here on the node drains: a further signal must not end it in the middle.
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self._node.hurry)
