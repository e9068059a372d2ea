"""Polite callers, which wait for every answer: they warm servers up, and compare answers byte for byte."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.bench.servers import Served

__all__ = ["Exactness", "call_exactly", "call_once_each", "warm_up"]

WARM_UP_SLEEP_MS = 300
"""So long that all calls of a round run at the same time, each in its own place."""

WARM_UP_ROUNDS = 10


class Caller:
    """One kept connection; call after call. HTTP/1.1 as far as the servers here speak it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> None:
        self._reader = reader
        self._writer = writer
        self._path = path

    @classmethod
    async def open(cls, url: str) -> Caller:
        """Connect to an http:// URL, to POST there."""
        parts = urlsplit(url)
        return cls(*await asyncio.open_connection(parts.hostname, parts.port), parts.path or "/")

    async def post(self, body: bytes, headers: str = "") -> tuple[int, bytes]:
        """Status and body of the answer; `headers` are whole lines."""
        head = f"POST {self._path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        self._writer.write(head.encode() + body)
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
        status = int(lines[0].split(" ")[1])
        for line in lines:
            name, _, value = line.partition(":")
            if name == "content-length":
                return status, await self._reader.readexactly(int(value))
        return status, await self._chunks()

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        await self._writer.wait_closed()

    async def _chunks(self) -> bytes:
        body = b""
        while size := int(await self._reader.readline(), 16):
            body += await self._reader.readexactly(size)
            await self._reader.readline()
        await self._reader.readline()
        return body


@dataclass(frozen=True, slots=True, kw_only=True)
class Exactness:
    """What a comparison of answers with requests found."""

    calls: int
    wrong: int
    """Answers that were not 200 with exactly the body that was sent."""
    requests_per_s: float


def warm_up(served: Served, connections: int) -> None:
    """Make the server have what so many calls at the same time need: containers, connections, caches.

    By an echo function, which answers late when it is asked to. Statuses are not looked at: what fails here, fails
    in the measurement, too, where it is counted.
    """
    containers = -1
    for _ in range(WARM_UP_ROUNDS):
        if served.containers() == containers:
            return
        containers = served.containers()
        call_once_each([served.url] * connections, headers=f"X-Sleep-Ms: {WARM_UP_SLEEP_MS}\r\n")


def call_once_each(urls: Iterable[str], *, headers: str = "") -> None:
    """POST to all URLs at the same time."""

    async def call(url: str) -> None:
        caller = await Caller.open(url)
        await caller.post(b"warm up", headers)
        await caller.close()

    async def call_all() -> None:
        async with asyncio.TaskGroup() as tasks:
            for url in urls:
                tasks.create_task(call(url))

    asyncio.run(call_all())


def call_exactly(url: str, *, calls: int, connections: int) -> Exactness:
    """Send different bodies to an echo function over so many connections and compare what comes back."""
    numbers = iter(range(calls))

    async def call_on() -> int:
        caller = await Caller.open(url)
        wrong = 0
        for number in numbers:  # shared: each connection takes the next one
            body = _body(number)
            wrong += await caller.post(body) != (200, body)
        await caller.close()
        return wrong

    async def call_all() -> list[int]:
        return await asyncio.gather(*(call_on() for _ in range(connections)))

    began = time.perf_counter()
    wrong = sum(asyncio.run(call_all()))
    return Exactness(calls=calls, wrong=wrong, requests_per_s=calls / (time.perf_counter() - began))


def _body(number: int) -> bytes:
    """Like no other one, some bytes to some hundred long, with all that could be taken for framing."""
    return b"%d \r\n\r\n\0\xff HTTP/1.1 200 OK " % number * (1 + number % 23)
