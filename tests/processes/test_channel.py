"""The line between a primary and a satellite."""

from __future__ import annotations

import os
import pickle
import socket
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from faas import errors
from faas.processes.channel import Channel
from faas.processes.failure import Failure
from faas.processes.messages import Handover, Mark, Message, Output
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.both_loops


@dataclass
class End:
    """One end, with what it heard."""

    sock: socket.socket
    heard: list[tuple[Message, int]] = field(default_factory=list)
    lost: int = 0

    def open(self) -> Channel:
        return Channel(self.sock, lambda message, fd: self.heard.append((message, fd)), self._count)

    def _count(self) -> None:
        self.lost += 1


@pytest.fixture
def ends() -> Iterator[tuple[End, End]]:
    left, right = socket.socketpair()
    with left, right:
        yield End(left), End(right)


async def test_messages_arrive_whole_and_in_order(ends: tuple[End, End]) -> None:
    left, right = ends[0].open(), ends[1].open()
    sent = [Output(container_id=str(number), data=os.urandom(number * 3_000)) for number in range(200)]
    for message in sent:
        left.send(message)
    right.send(Mark(number=7))
    await left.drain()
    await wait_until(lambda: len(ends[1].heard) == len(sent) and ends[0].heard)
    assert [message for message, _ in ends[1].heard] == sent
    assert ends[0].heard == [(Mark(number=7), -1)]
    left.close()
    right.close()


async def test_each_descriptor_stays_with_its_message(ends: tuple[End, End]) -> None:
    left, right = ends[0].open(), ends[1].open()
    readers = []
    for number in range(40):
        reader, writer = os.pipe()
        os.write(writer, b"%d" % number)
        os.close(writer)
        left.send(Output(container_id="x", data=bytes(9_000)))
        left.send(Handover(data=b"%d" % number), reader)
        readers.append(reader)
    for reader in readers:
        os.close(reader)
    await wait_until(lambda: len(ends[1].heard) == 80)
    for message, fd in ends[1].heard:
        if isinstance(message, Handover):
            assert os.read(fd, 10) == message.data
            os.close(fd)
        else:
            assert fd == -1
    left.close()
    right.close()


async def test_the_end_of_the_other_side_is_told_once_after_its_last_words(ends: tuple[End, End]) -> None:
    left, right = ends[0].open(), ends[1].open()
    left.send(Mark(number=1))
    left.close()
    await wait_until(lambda: ends[1].lost)
    assert ends[1].heard == [(Mark(number=1), -1)]
    right.send(Mark(number=2))
    assert (ends[1].lost, ends[0].lost) == (1, 0)


@pytest.mark.parametrize("garbage", [b"no pickle", pickle.dumps({"a": 1})])
async def test_what_makes_no_sense_ends_the_line(ends: tuple[End, End], garbage: bytes) -> None:
    right = ends[1].open()
    ends[0].sock.send(struct.pack("!I?", len(garbage), False) + garbage)
    await wait_until(lambda: ends[1].lost)
    assert not right.is_open
    assert not ends[1].heard


ALL_ERRORS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.FaasError)]


@pytest.mark.parametrize("kind", ALL_ERRORS)
def test_an_error_is_of_the_same_kind_in_the_other_process(kind: type[errors.FaasError]) -> None:
    error = Failure(kind=kind.__name__, message="why").error()
    assert type(error) is kind
    assert (error.message, error.code, error.retry_after_s) == ("why", kind.code, kind.retry_after_s)
    assert Failure.of(error) == Failure(kind=kind.__name__, message="why")
