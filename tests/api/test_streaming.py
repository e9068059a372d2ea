"""Bodies on their way: clients and functions that are slow, or gone in the middle."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from faas.runner.invocation import State
from tests.api.front import MIB
from tests.support.programs import answer, on_socket
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.api.front import Front

CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
HELLO = b"5\r\nhello\r\n"
LAST_CHUNK = b"0\r\n\r\n"


class Relay:
    """A function that sends what the test says."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.writers.append(writer)
        await reader.read()

    async def is_called(self) -> None:
        await wait_until(lambda: self.writers)

    def send(self, data: bytes) -> None:
        self.writers[0].write(data)

    def hang_up(self) -> None:
        self.writers[0].close()


@pytest.fixture
def relay(front: Front) -> Relay:
    relay = Relay()
    front.rig.executor.programs["relay"] = on_socket(relay)
    front.deploy("relay")
    return relay


@pytest.mark.both_loops
async def test_a_client_that_reads_slowly_slows_its_function_and_gets_all(front: Front) -> None:
    client = await front.client()
    with client.is_slow():
        client.send("POST /r/demo/flood HTTP/1.1|Host: here|Content-Length: 2", b"40")
        (connection,) = front.plane.connections
        await wait_until(lambda: connection.flow is not None and connection.flow.write_paused)
        await asyncio.sleep(0.05)
        # What is between: both sockets' buffers, and as much as one read brings.
        assert connection.transport.get_write_buffer_size() < 4 * MIB
        assert len(front.running) == 1
    got = await client.answer()
    assert len(got.body) == 40 * MIB


@pytest.mark.both_loops
async def test_a_second_request_does_not_forget_the_first_ones_slow_answer(front: Front) -> None:
    client = await front.client()
    with client.is_slow():
        client.send("POST /r/demo/flood HTTP/1.1|Host: here|Content-Length: 2", b"20")
        (connection,) = front.plane.connections
        await wait_until(lambda: connection.flow is not None and connection.flow.write_paused)
        client.send("POST /r/demo/flood HTTP/1.1|Host: here|Content-Length: 2", b"30")
        await asyncio.sleep(0.05)
    assert len((await client.answer()).body) == 20 * MIB
    with client.is_slow():
        await wait_until(lambda: connection.flow.write_paused)
        await asyncio.sleep(0.05)
        assert connection.transport.get_write_buffer_size() < 4 * MIB
    assert len((await client.answer()).body) == 30 * MIB


@pytest.mark.both_loops
async def test_an_answer_begins_slowly_when_the_one_before_it_is_not_yet_read(front: Front) -> None:
    client = await front.client()
    with client.is_slow():
        # Much of the first is in the buffer when it is complete: the second finds the connection full.
        client.send("POST /r/demo/flood HTTP/1.1|Host: here|Content-Length: 1", b"6")
        (connection,) = front.plane.connections
        await wait_until(lambda: connection.flow is not None and connection.flow.write_paused)
        for _ in range(3):
            client.send("POST /r/demo/flood HTTP/1.1|Host: here|Content-Length: 2", b"20")
        await asyncio.sleep(0.2)
        assert connection.transport.get_write_buffer_size() < 8 * MIB
    assert [len((await client.answer()).body) // MIB for _ in range(4)] == [6, 20, 20, 20]


@pytest.mark.both_loops
async def test_the_last_of_an_answer_does_not_wait_for_ever_for_a_client_that_does_not_read(front: Front) -> None:
    client = await front.client()
    with client.is_slow():
        await wait_until(lambda: [one for one in front.plane.connections if one.flow])
        (connection,) = front.plane.connections
        # Less than an answer of one packet fits into the kernel's buffers, so that the function is through with it.
        connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client.send("GET /r/demo/packet HTTP/1.1|Host: here|Connection: close")
        await wait_until(lambda: connection.transport.is_closing() and connection.transport.get_write_buffer_size())
        assert not front.running
        await wait_until(lambda: not front.plane.connections)


@pytest.mark.both_loops
async def test_a_client_that_sends_slowly_read_functions_is_slowed(front: Front) -> None:
    may_read = asyncio.Event()

    async def reluctant(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await may_read.wait()
        body = await reader.readexactly(3 * MIB)
        writer.write(answer(b"%d" % len(body)))
        await reader.read()

    front.rig.executor.programs["reluctant"] = on_socket(reluctant)
    front.deploy("reluctant")
    client = await front.client()
    client.send(f"POST /r/demo/reluctant HTTP/1.1|Host: here|Content-Length: {3 * MIB}")
    await front.a_call_runs() if front.running else None
    client.writer.write(b"x" * (3 * MIB))
    (connection,) = front.plane.connections
    await wait_until(lambda: connection.flow.read_paused)
    may_read.set()
    assert (await client.answer()).body == b"%d" % (3 * MIB)


@pytest.mark.both_loops
async def test_a_client_that_hangs_up_ends_its_call(front: Front) -> None:
    client = await front.client()
    client.send("GET /r/demo/hang HTTP/1.1|Host: here")
    await front.a_call_runs()
    client.writer.transport.abort()
    await front.no_call_is_left()
    await front.rig.settled()
    assert [invocation.error.code for invocation in front.rig.observed] == ["client_gone"]
    assert not front.rig.executor.running


@pytest.mark.both_loops
async def test_a_client_that_hangs_up_with_a_second_request_in_line_ends_the_first(front: Front) -> None:
    client = await front.client()
    # Reading stops at the second request and goes on after the first answer: the third is in line then.
    client.send("GET /slow HTTP/1.1|Host: here")
    client.send("GET /r/demo/hang HTTP/1.1|Host: here")
    client.send("GET /r/demo/hang HTTP/1.1|Host: here")
    front.asgi_may_answer.set()
    await front.a_call_runs()
    client.writer.transport.abort()
    await front.no_call_is_left()
    assert [invocation.error.code for invocation in front.rig.observed] == ["client_gone"]


@pytest.mark.both_loops
async def test_a_client_that_hangs_up_in_line_is_taken_out_of_it(front: Front) -> None:
    front.deploy("hang", max_concurrency=1)
    first, second = await front.client(), await front.client()
    first.send("GET /r/demo/hang HTTP/1.1|Host: here")
    await front.a_call_runs()
    second.send("GET /r/demo/hang HTTP/1.1|Host: here")
    await wait_until(lambda: len(front.running) == 2)
    second.writer.transport.abort()
    await wait_until(lambda: len(front.running) == 1)
    assert front.running[0].state is State.RUNNING


@pytest.mark.both_loops
async def test_a_client_that_hangs_up_while_its_body_streams_ends_its_call(front: Front) -> None:
    client = await front.client()
    client.send("POST /r/demo/echo HTTP/1.1|Host: here|Content-Length: 1000000", b"x" * 100_000)
    await front.a_call_runs()
    client.writer.transport.abort()
    await front.no_call_is_left()
    await front.rig.settled()
    assert not front.rig.executor.running


@pytest.mark.both_loops
async def test_a_client_that_hangs_up_while_it_is_answered_ends_its_call(front: Front) -> None:
    client = await front.client()
    with client.is_slow():
        client.send("POST /r/demo/flood HTTP/1.1|Host: here|Content-Length: 2", b"40")
        (connection,) = front.plane.connections
        await wait_until(lambda: connection.flow is not None and connection.flow.write_paused)
        client.writer.transport.abort()
        await front.no_call_is_left()


@pytest.mark.both_loops
async def test_a_client_that_hangs_up_in_its_head_or_before_leaves_nothing(front: Front) -> None:
    for start in (b"", b"GET /r/de", b"POST /r/demo/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab"):
        client = await front.client()
        client.writer.write(start)
        await asyncio.sleep(0.01)
        client.writer.transport.abort()
    await wait_until(lambda: not front.plane.connections)
    assert front.rig.executor.made == 0


@pytest.mark.both_loops
async def test_an_answer_that_breaks_off_cuts_the_connection(front: Front) -> None:
    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello")
        await asyncio.sleep(0.02)

    front.rig.executor.programs["broken"] = on_socket(broken)
    front.deploy("broken")
    client = await front.client()
    client.send("GET /r/demo/broken HTTP/1.1|Host: here")
    assert (await client.reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200")
    assert await client.is_closed()


@pytest.mark.both_loops
async def test_an_answer_over_the_limit_is_502_when_its_length_was_declared(
    make_front: Callable[..., Awaitable[Front]],
) -> None:
    front = await make_front(max_response_bytes=1000)
    client = await front.client()
    got = await client.ask("POST /r/demo/flood HTTP/1.1|Host: here|Content-Length: 1", b"1")
    assert (got.status, got["faas-error"]) == (502, "response_too_large")


# --- answers on their way


@pytest.mark.both_loops
async def test_a_streamed_answer_is_framed_for_its_own_request(front: Front, relay: Relay) -> None:
    """Not for one that came behind it in the meantime."""
    client = await front.client()
    client.send("GET /r/demo/relay HTTP/1.1|Host: here")
    await relay.is_called()
    client.send("GET /r/demo/chunked HTTP/1.0")
    await wait_until(lambda: [one for one in front.plane.connections if one.pipeline])
    relay.send(CHUNKED_HEAD)
    got = await client.answer(to_head=True)
    assert (got["transfer-encoding"], got.all("connection")) == ("chunked", [])
    relay.send(HELLO + LAST_CHUNK)
    assert await client.reader.readexactly(len(HELLO + LAST_CHUNK)) == HELLO + LAST_CHUNK
    assert (await client.answer()).body == b"hello, world"


@pytest.mark.both_loops
async def test_a_streamed_answer_says_that_it_is_the_connections_last(front: Front, relay: Relay) -> None:
    client = await front.client()
    client.send("GET /r/demo/relay HTTP/1.1|Host: here|Connection: close")
    await relay.is_called()
    relay.send(CHUNKED_HEAD)
    assert (await client.answer(to_head=True))["connection"] == "close"
    relay.send(HELLO + LAST_CHUNK)
    assert await client.reader.read() == HELLO + LAST_CHUNK


@pytest.mark.both_loops
@pytest.mark.parametrize("framing", ["Content-Length: 10", "Transfer-Encoding: chunked"])
async def test_head_is_answered_while_the_function_is_still_busy_with_the_body(
    front: Front, relay: Relay, framing: str
) -> None:
    client = await front.client()
    client.send("HEAD /r/demo/relay HTTP/1.1|Host: here")
    await relay.is_called()
    relay.send(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode())
    got = await client.answer(to_head=True)
    name, value = framing.split(": ")
    assert (got.status, got[name]) == (200, value)
    relay.send(HELLO + LAST_CHUNK if value == "chunked" else b"helloworld")
    assert (await client.ask("GET /r/demo/chunked HTTP/1.1|Host: here")).body == b"hello, world"


@pytest.mark.both_loops
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_an_answer_that_breaks_off_never_ends_cleanly(front: Front, relay: Relay, version: str) -> None:
    client = await front.client()
    client.send(f"GET /r/demo/relay HTTP/{version}|Host: here")
    await relay.is_called()
    relay.send(CHUNKED_HEAD + HELLO)
    await client.reader.readuntil(b"hello")
    relay.hang_up()
    if version == "1.0":  # there the end of the connection is the end of the answer, unless it is a reset
        with pytest.raises(ConnectionResetError):
            await client.reader.read()
    else:
        assert await client.reader.read() in (b"", b"\r\n")  # and not the last chunk


# --- clients that are gone while nobody reads what they sent


@pytest.mark.both_loops
async def test_a_client_that_hangs_up_with_more_sent_than_its_function_reads_ends_its_call(front: Front) -> None:
    async def never_reads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
        await asyncio.Event().wait()

    front.rig.executor.programs["never-reads"] = on_socket(never_reads)
    front.deploy("never-reads")
    client = await front.client()
    client.send(f"POST /r/demo/never-reads HTTP/1.1|Host: here|Content-Length: {3 * MIB}", b"x" * 3 * MIB)
    await front.a_call_runs()
    (connection,) = front.plane.connections
    await wait_until(lambda: connection.flow.read_paused)
    client.reset()
    await front.no_call_is_left()
    assert [invocation.error.code for invocation in front.rig.observed] == ["client_gone"]


@pytest.mark.both_loops
async def test_a_client_that_hangs_up_with_requests_in_line_ends_the_one_that_runs(front: Front) -> None:
    client = await front.client()
    client.send("GET /r/demo/hang HTTP/1.1|Host: here")
    await front.a_call_runs()
    client.send("GET /r/demo/hang HTTP/1.1|Host: here")
    (connection,) = front.plane.connections
    await wait_until(lambda: connection.flow.read_paused)
    client.writer.transport.abort()
    await front.no_call_is_left()
    assert [invocation.error.code for invocation in front.rig.observed] == ["client_gone"]


# --- what comes behind a body


@pytest.mark.both_loops
@pytest.mark.parametrize("path", ["/r/demo/echo", "/slow"])
async def test_a_trailer_that_never_ends_is_not_collected(front: Front, path: str) -> None:
    client = await front.client()
    client.send(f"POST {path} HTTP/1.1|Host: here|Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\nX-Long: ")
    while not client.writer.is_closing():
        client.writer.write(b"x" * 100)
        await asyncio.sleep(0)
    assert await client.is_closed()
    await front.no_call_is_left()
