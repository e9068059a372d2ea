"""A request body that goes to its function while it arrives: what is handed on, and when its client is paused."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import pytest

from faas.api.request_body import FEW_PIECES, MAX_BUFFERED_BYTES, STREAM_BYTES, RequestBody

if TYPE_CHECKING:
    from faas.api.dataplane import FaasProtocol


@dataclass
class Client:
    """What a body knows of the connection that it comes from."""

    body: bytes = b"begun"
    is_paused: bool = False
    cycle: Client = field(init=False)
    flow: Client = field(init=False)

    def __post_init__(self) -> None:
        self.cycle = self.flow = self

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_body(self) -> None:
        self.is_paused = False


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def body(client: Client) -> RequestBody:
    return RequestBody(cast("FaasProtocol", client))


async def test_a_few_pieces_are_handed_on_as_they_came(body: RequestBody) -> None:
    pieces = [bytes([number]) * 100 for number in range(FEW_PIECES)]
    for piece in pieces:
        body.feed(piece)
    body.end()
    taken = [piece async for piece in body]
    assert all(one is other for one, other in zip(taken, pieces, strict=True))
    assert body.total == len("begun") + 100 * FEW_PIECES


async def test_many_pieces_that_came_at_once_are_put_together(body: RequestBody) -> None:
    for number in range(10_000):
        body.feed(b"%05d" % number)
    body.end()
    assert [piece async for piece in body] == [b"".join(b"%05d" % number for number in range(10_000))]


async def test_the_client_is_paused_while_much_waits_for_the_function(body: RequestBody, client: Client) -> None:
    piece = b"x" * STREAM_BYTES
    for _ in range(MAX_BUFFERED_BYTES // len(piece)):
        body.feed(piece)
    assert not client.is_paused
    body.feed(piece)
    assert client.is_paused
    pieces = aiter(body)
    while client.is_paused:
        await anext(pieces)
    body.end()
    assert len(b"".join([one async for one in pieces])) == STREAM_BYTES
