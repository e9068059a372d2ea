"""What the kernel knows of the other side of a connection, on real sockets of real processes."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import pytest

from faas.wire.peer import has_hung_up, is_dying
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.both_loops

PEER = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
connection, _ = listener.accept()
connection.recv(1)
if sys.argv[2] == "dies":
    os.kill(os.getpid(), 9)
connection.close()
sys.stdin.read()
"""


class Witness(asyncio.Protocol):
    """Asks when the connection ends."""

    transport: asyncio.Transport
    has_seen_death: bool | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def eof_received(self) -> None:
        self.has_seen_death = is_dying(self.transport)


@contextmanager
def peer(path: str, how: str) -> Iterator[None]:
    """A process that listens there, and ends its one connection when it gets a byte."""
    with subprocess.Popen([sys.executable, "-c", PEER, path, how], stdin=subprocess.PIPE) as process:
        try:
            yield
        finally:
            process.kill()


async def connected(path: str) -> Witness:
    async def try_to_connect() -> bool:
        nonlocal witness
        try:
            _, witness = await asyncio.get_running_loop().create_unix_connection(Witness, path)
        except OSError:
            return False
        return True

    witness = Witness()
    await wait_until(try_to_connect)
    return witness


@pytest.mark.parametrize(("how", "expected"), [("dies", True), ("closes", False)])
async def test_a_process_that_dies_is_told_from_one_that_closes_its_connection(
    how: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path must be shorter than those of pytest's folders
    with peer("socket", how):
        witness = await connected("socket")
        assert not is_dying(witness.transport)
        witness.transport.write(b"x")
        await wait_until(lambda: witness.has_seen_death is not None)
        assert witness.has_seen_death is expected


async def test_the_end_of_a_connection_is_seen_by_one_who_does_not_read() -> None:
    ours, theirs = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
    transport.pause_reading()
    theirs.send(b"not read yet")
    assert not has_hung_up(transport)
    theirs.close()
    assert has_hung_up(transport)
    transport.abort()


async def test_a_peer_that_the_kernel_does_not_know_is_not_taken_for_dying() -> None:
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, "127.0.0.1", port)
    assert not is_dying(transport)
    transport.abort()
    server.close()
