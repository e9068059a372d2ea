"""What every process that serves connections has in common: its sockets, uvicorn's options, a tuned interpreter."""

from __future__ import annotations

import gc
import os
import socket
import sys
from typing import TYPE_CHECKING, Any

import uvicorn

from faas.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["bind_shared", "process_count", "server_config", "settle_interpreter"]

KEEP_ALIVE_S = 75
"""How long an idle client connection is kept; nginx's number, longer than what proxies in front of us assume."""

BACKLOG = 2048
GC_THRESHOLDS = (25_000, 20, 100)
THREAD_TURN_S = 0.001


def process_count(setting: int) -> int:
    """How many processes serve; 0 is one for each core that this process may use."""
    return setting or len(os.sched_getaffinity(0))


def server_config(app: Any, protocol: Callable[..., Any], *, host: str = "", port: int = 0, grace_s: float) -> Any:
    """uvicorn's options; `protocol` makes the protocol of each connection."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=protocol,  # type: ignore[arg-type]  # a factory of protocols is all that is asked of it
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(grace_s) or 1,
    )


def settle_interpreter() -> None:
    """Tune the interpreter for a process that answers requests for weeks."""
    # What start-up made stays: the collector need not look at it again. Calls leave few cycles behind, so it need not
    # look often either (default: every 700 objects more, and at ten times as many again); requests of the control API
    # do, which with four times the threshold held 15 MiB more.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    # Threads write the database; the loop must not wait 5 ms (the default) for each of their turns.
    sys.setswitchinterval(THREAD_TURN_S)


def bind_shared(host: str, port: int, *, is_first: bool) -> list[socket.socket]:
    """Sockets on all addresses of a host that other processes may listen on too, each with its own (SO_REUSEPORT); the
    kernel spreads connections over those that listen. They do not listen yet.

    With `is_first`, raises `StartupError` when anybody listens there already; port 0 becomes a free one.
    """
    bound: list[socket.socket] = []
    try:
        if is_first:
            _check_free(host, port)
        for family, kind, number, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            sock = socket.socket(family, kind, number)
            bound.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # The first one may have been given a free port; the others take the same.
            sock.bind((address[0], port, *address[2:]))
            port = sock.getsockname()[1]
    except OSError as error:
        for sock in bound:
            sock.close()
        raise StartupError(f"Can't listen on {host}:{port} ({error}); choose another with --host and --port") from error
    return bound


def _check_free(host: str, port: int) -> None:
    """SO_REUSEPORT would let two nodes of one user share a port by mistake; without it the kernel refuses."""
    for family, kind, number, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        with socket.socket(family, kind, number) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(address)
