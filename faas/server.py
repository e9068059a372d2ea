"""Serving: an open node behind uvicorn, from the first signal handler to the exit code."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import sys
from typing import TYPE_CHECKING

import uvicorn
import uvloop

from faas import __version__, logs
from faas.errors import FaasError, StartupError
from faas.wiring import open_node

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from types import FrameType

    from faas.config import Settings
    from faas.wiring import Node

__all__ = ["serve"]

logger = logging.getLogger(__name__)

KEEP_ALIVE_S = 75
"""How long an idle client connection is kept; nginx's number, longer than what proxies in front of us assume."""

BACKLOG = 2048
GC_THRESHOLDS = (100_000, 20, 100)
THREAD_TURN_S = 0.001


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
        server = _Server(
            uvicorn.Config(
                node.app,
                host=settings.host,
                port=settings.port,
                http=node.plane.protocol,  # type: ignore[arg-type]  # a factory of protocols is all that is asked of it
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=int(settings.shutdown_grace_s) or 1,
            ),
            node,
        )
        servers.append(server)
        _settle_interpreter()
        await server.serve()
    return 1 if failures else 0


def _settle_interpreter() -> None:
    """Tune the interpreter for a process that answers requests for weeks."""
    # What start-up made stays: the collector need not look at it again. Calls leave few cycles behind, so it need not
    # look often either (default: every 700 objects more, and at ten times as many again).
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    # Threads write the database; the loop must not wait 5 ms (the default) for each of their turns.
    sys.setswitchinterval(THREAD_TURN_S)


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
            logger.info("node_started", extra={"url": f"http://{host}:{port}", "version": __version__})

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        logger.info("node_stopping", extra={"calls": len(self._node.agent.running)})
        self._node.stop_fetching()
        await super().shutdown(sockets)

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
