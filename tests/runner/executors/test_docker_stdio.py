"""The attach protocol: frames split anywhere (offline), and every byte of much of it through a real engine."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import pytest

from faas.errors import EngineError, EngineUnavailableError
from faas.runner.executors.docker_stdio import AttachedStdio, attach
from tests.support.docker import Received, script_spec
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from faas.runner.executors.base import Image
    from faas.runner.executors.docker import DockerExecutor

both_loops = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])

UPGRADE = b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"
MIB = 1024 * 1024


def frame(stream: int, body: bytes) -> bytes:
    return struct.pack(">BxxxL", stream, len(body)) + body


class FakeTransport:
    """Records what the protocol does to its connection."""

    def __init__(self) -> None:
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


def attached(received: Received) -> tuple[AttachedStdio, FakeTransport]:
    upgraded = asyncio.get_running_loop().create_future()
    stdio, transport = AttachedStdio(received, with_stdin=True, upgraded=upgraded), FakeTransport()
    stdio.connection_made(cast("asyncio.Transport", transport))
    return stdio, transport


# --- frames, offline


@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 5, 7, 8, 9, 64, 10_000])
async def test_frames_may_be_split_anywhere(piece_bytes: int) -> None:
    received = Received()
    stdio, _ = attached(received)
    wire = UPGRADE + frame(1, b"one") + frame(2, b"") + frame(2, bytes(range(256))) + frame(1, b"two" * 100)
    for start in range(0, len(wire), piece_bytes):
        stdio.data_received(wire[start : start + piece_bytes])
    stdio.connection_lost(None)
    assert received.stdout == b"one" + b"two" * 100
    assert received.stderr == bytes(range(256))
    assert received.ended == 1


async def test_frames_survive_random_pieces() -> None:
    dice = random.Random(1)
    for _ in range(200):
        received, expected = Received(), Received(ended=1)
        stdio, _ = attached(received)
        wire = UPGRADE
        for _ in range(dice.randrange(20)):
            stream, body = dice.choice((1, 2)), dice.randbytes(dice.choice((0, 1, 7, 8, 9, 300)))
            (expected.stdout if stream == 1 else expected.stderr).extend(body)
            wire += frame(stream, body)
        while wire:
            size = dice.randrange(1, 40)
            stdio.data_received(wire[:size])
            wire = wire[size:]
        stdio.connection_lost(None)
        assert received == expected


async def test_a_body_that_fills_its_piece_is_not_copied() -> None:
    bodies: list[bytes] = []

    class Keeper(Received):
        def stdout_received(self, data: bytes) -> None:
            bodies.append(data)

    stdio, _ = attached(Keeper())
    stdio.data_received(UPGRADE + frame(1, b"x" * 20)[:8])
    piece = b"x" * 20
    stdio.data_received(piece)
    assert bodies[0] is piece


async def test_a_stream_that_can_not_be_ends_the_connection() -> None:
    received = Received()
    stdio, transport = attached(received)
    stdio.data_received(UPGRADE + b"HTTP/1.1 500 what is this doing here?")
    assert transport.aborted
    assert received.stdout == b""


# --- an engine that fails


@pytest.fixture
async def engine_that_answers(tmp_path: Path) -> AsyncIterator[Callable[[bytes | None], Awaitable[str]]]:
    """Starts servers that answer any connection with the given bytes and hang up; `None` never answers."""
    servers: list[asyncio.Server] = []
    paths = iter(range(100))

    async def listen(answer: bytes | None) -> str:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            if answer is None:
                await reader.read()
            else:
                writer.write(answer)
            writer.close()

        path = str(tmp_path / f"{next(paths)}.sock")
        servers.append(await asyncio.start_unix_server(serve, path))
        return path

    yield listen
    for server in servers:
        server.close()
        await server.wait_closed()


@both_loops
async def test_an_engine_that_fails_is_told_apart_from_one_that_refuses(
    engine_that_answers: Callable[[bytes | None], Awaitable[str]], tmp_path: Path
) -> None:
    refusal = b'{"message":"No such container: abc"}'
    head = b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n" % len(refusal)
    cases: list[tuple[bytes | None, type[Exception], str]] = [
        (head + refusal, EngineError, "No such container: abc"),
        (b"HTTP/1.1 500 Oh\r\n\r\n", EngineError, "status 500"),
        (b"x" * 100_000, EngineError, "no end of its head"),
        (b"SSH-2.0-hello there\r\n\r\n", EngineError, "attach to container abc"),
        (b"HTTP/1.1 101 UPGR", EngineUnavailableError, "does not answer"),
        (b"", EngineUnavailableError, "does not answer"),
        (None, EngineUnavailableError, "does not answer"),
    ]
    for answer, error, words in cases:
        path = await engine_that_answers(answer)
        received = Received()
        with pytest.raises(error, match=words):
            await attach(path, "abc", received, with_stdin=True, timeout_s=0.2)
        assert received.ended == 0
    with pytest.raises(EngineUnavailableError):
        await attach(str(tmp_path / "nobody.sock"), "abc", Received(), with_stdin=True, timeout_s=0.2)


@pytest.mark.docker
async def test_attaching_to_a_container_that_is_gone_is_the_engines_refusal(
    docker_executor: DockerExecutor, script_image: Image
) -> None:
    container = await docker_executor.create(script_spec(script_image, "true"))
    await container.remove()
    with pytest.raises(EngineError, match="No such container"):
        await container.attach(Received())


# --- byte-exact on the real engine


@dataclass(slots=True)
class Digest:
    """Counts and hashes what comes, so that much of it need not be kept."""

    size_bytes: int = 0
    sha256: hashlib._Hash = field(default_factory=hashlib.sha256)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def stdout_received(self, data: bytes) -> None:
        self.size_bytes += len(data)
        self.sha256.update(data)

    def stderr_received(self, data: bytes) -> None:
        raise AssertionError(data)

    def output_ended(self) -> None:
        assert not self.ended.is_set()
        self.ended.set()


@pytest.mark.docker
@both_loops
async def test_64_mib_come_back_byte_for_byte(docker_executor: DockerExecutor, script_image: Image) -> None:
    container = await docker_executor.create(script_spec(script_image, "exec cat", with_stdin=True))
    received, sent = Digest(), hashlib.sha256()
    stdio = await container.attach(received)
    await container.start()
    for _ in range(64):
        piece = os.urandom(MIB)
        sent.update(piece)
        stdio.write(piece)
        await stdio.drain()
    stdio.write_eof()
    await asyncio.wait_for(received.ended.wait(), 60)
    assert (await container.wait()).exit_code == 0
    assert received.size_bytes == 64 * MIB
    assert received.sha256.hexdigest() == sent.hexdigest()
    await container.remove()


@dataclass(slots=True)
class PingPong(Received):
    """Completes a future at each full answer."""

    expected_bytes: int = 1024
    answered: asyncio.Future[bytes] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def stdout_received(self, data: bytes) -> None:
        self.stdout += data
        if len(self.stdout) >= self.expected_bytes:
            self.answered.set_result(bytes(self.stdout))
            self.stdout.clear()


@pytest.mark.docker
@both_loops
async def test_thousands_of_small_messages_come_back_one_by_one(
    docker_executor: DockerExecutor, script_image: Image
) -> None:
    container = await docker_executor.create(script_spec(script_image, "exec cat", with_stdin=True))
    received = PingPong()
    stdio = await container.attach(received)
    await container.start()
    for _ in range(3000):
        received.answered = asyncio.get_running_loop().create_future()
        message = os.urandom(received.expected_bytes)
        stdio.write(message)
        assert await asyncio.wait_for(received.answered, 10) == message
    await container.kill()
    await container.remove()


@pytest.mark.docker
@both_loops
async def test_a_reader_that_pauses_holds_the_container_back(
    docker_executor: DockerExecutor, script_image: Image
) -> None:
    script = "head -c 60000000 /dev/zero; echo written >&2"
    container = await docker_executor.create(script_spec(script_image, script))
    received = Received()
    stdio = await container.attach(received)
    stdio.pause_reading()
    await container.start()
    with pytest.raises(TimeoutError):
        # Nothing to wait for: 60 MB fit nowhere between the container and us, so it must not end.
        await asyncio.wait_for(container.wait(), 0.5)
    assert len(received.stdout) < 1_000_000
    stdio.resume_reading()
    assert (await asyncio.wait_for(container.wait(), 30)).exit_code == 0
    await wait_until(lambda: received.ended == 1)
    assert (len(received.stdout), received.stderr) == (60_000_000, b"written\n")
    await container.remove()


@pytest.mark.docker
@both_loops
async def test_letting_go_of_the_streams_ends_them_once_and_leaves_the_container(
    docker_executor: DockerExecutor, script_image: Image
) -> None:
    container = await docker_executor.create(script_spec(script_image, "echo up; sleep 60"))
    received = Received()
    stdio = await container.attach(received)
    await container.start()
    await wait_until(lambda: received.stdout == b"up\n")
    stdio.close()
    stdio.close()
    await wait_until(lambda: received.ended == 1)
    stdio.pause_reading()
    stdio.resume_reading()
    await stdio.drain()
    assert [info.state for info in await docker_executor.list_ours()] == ["running"]
    await container.remove()
    assert received.ended == 1
