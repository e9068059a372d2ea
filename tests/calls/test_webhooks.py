"""Telling the ends of calls: a real store, and a receiver on a socket of this machine."""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

import pytest

from faas.calls import webhook_sender as sender_module
from faas.calls.webhook_sender import WebhookSender, is_allowed
from faas.calls.webhooks import MAX_TRIES, WebhookTeller
from faas.clock import utc_now
from faas.errors import DeliveryNotFoundError
from faas.models import CallStatus
from faas.store.engine import Store, open_store
from faas.webhooks import DeliveryStatus, Webhooks, signature_of
from tests.support.samples import a_call, a_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from faas.models import Call
    from faas.webhooks import Delivery

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
LOCAL = [ip_network("127.0.0.0/8")]


@dataclass
class Receiver:
    """An HTTP server that answers with `status` and keeps what it gets."""

    port: int = 0
    status: str = "204 No Content"
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?a=1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        # Their case counts in these.
        headers |= {line.split(": ")[0].lower(): line.split(": ", 1)[1] for line in head[1:] if "signature" in line}
        body = await reader.readexactly(int(headers["content-length"]))
        self.got.append(({"": head[0], **headers}, body))
        writer.write(f"HTTP/1.1 {self.status}\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    async with server:
        receiver.port = server.sockets[0].getsockname()[1]
        yield receiver


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as one:
        yield one


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(f"sqlite+aiosqlite:///{tmp_path / 'faas.db'}") as opened:
        yield opened


class Records:
    """Looks calls up in the store alone."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def now(self, call_id: str) -> Call:
        call = await self._store.calls.get(call_id)
        assert call is not None
        return call


@asynccontextmanager
async def telling(store: Store, allowed: Any = LOCAL) -> AsyncIterator[WebhookTeller]:
    sender = WebhookSender(allowed)
    try:
        yield WebhookTeller(
            store,
            Records(store),  # type: ignore[arg-type]
            render=lambda call: {"id": call.id, "status": call.status.value},
            sender=lambda: sender,
        )
    finally:
        await sender.close()


async def ended(store: Store, url: str, status: CallStatus = CallStatus.SUCCESS) -> Call:
    call = a_call(webhooks=Webhooks(on_success=url, on_failure=url, secret=SECRET))
    await store.calls.insert(call, a_request())
    running = await store.calls.begin_attempt(call.id, node="n", started_at=utc_now())
    assert running is not None
    done = running.ended(status, completed_at=utc_now())
    assert await store.calls.finish(done, running.attempts[-1], None, None)
    return done


async def only(teller: WebhookTeller, call: Call) -> Delivery:
    (delivery,) = await teller.deliveries_of(call.id)
    return delivery


async def test_the_end_of_a_call_is_posted_and_signed(store: Store, receiver: Receiver) -> None:
    call = await ended(store, receiver.url)
    async with telling(store) as teller:
        assert await teller.tell_due() == 1
        assert await teller.tell_due() == 0
        delivery = await only(teller, call)
    ((headers, body),) = receiver.got
    assert headers[""] == "POST /hook?a=1 HTTP/1.1"
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    assert headers["webhook-id"] == f"{call.id}-1"
    timestamp_s = int(headers["webhook-timestamp"])
    assert headers["webhook-signature"] == signature_of(SECRET, f"{call.id}-1", timestamp_s, body)
    message = json.loads(body)
    assert call.completed_at is not None
    assert message == {
        "type": "call.succeeded",
        "timestamp": call.completed_at.isoformat(),
        "data": {"id": call.id, "status": "success"},
    }
    assert (delivery.status, delivery.tries, delivery.status_code) == (DeliveryStatus.DELIVERED, 1, 204)


async def test_a_receiver_that_fails_is_tried_again_later(store: Store, receiver: Receiver) -> None:
    receiver.status = "503 Busy"
    call = await ended(store, receiver.url, CallStatus.ERROR)
    async with telling(store) as teller:
        before = utc_now()
        await teller.tell_due()
        delivery = await only(teller, call)
        assert (delivery.status, delivery.status_code) == (DeliveryStatus.PENDING, 503)
        assert delivery.error == "The receiver answered 503"
        assert delivery.next_try_at is not None
        assert delivery.next_try_at >= before + timedelta(seconds=4)
        assert await teller.tell_due() == 0
        # A node that comes later, when it is due, says the same under the same id.
        (claimed,) = await store.deliveries.claim(now=utc_now() + timedelta(hours=1), lease_s=0, limit=1)
        receiver.status = "200 OK"
        await teller._try(claimed)
        assert (await only(teller, call)).status is DeliveryStatus.DELIVERED
    first, second = receiver.got
    assert first[0]["webhook-id"] == second[0]["webhook-id"]
    assert first[1] == second[1]
    assert json.loads(first[1])["type"] == "call.failed"


async def test_it_is_given_up_after_its_last_try_and_sent_again_on_demand(store: Store, receiver: Receiver) -> None:
    receiver.status = "500 No"
    call = await ended(store, receiver.url)
    async with telling(store) as teller:
        await store.deliveries.open_due(now=utc_now(), last_try=2, limit=1)
        delays_s = []
        later = utc_now()
        for _ in range(2):
            later += timedelta(days=1)
            (claimed,) = await store.deliveries.claim(now=later, lease_s=60, limit=1)
            await teller._try(claimed)
            delivery = await only(teller, call)
            delays_s.append(delivery.next_try_at)
        assert (delivery.status, delivery.tries, delays_s[-1]) == (DeliveryStatus.FAILED, 2, None)
        receiver.status = "200 OK"
        again = await teller.redeliver(call.id, 1)
        assert (again.status, again.last_try) == (DeliveryStatus.PENDING, 2 + MAX_TRIES)
        assert await teller.tell_due() == 1
        assert (await only(teller, call)).status is DeliveryStatus.DELIVERED
        with pytest.raises(DeliveryNotFoundError):
            await teller.redeliver(call.id, 2)


async def test_a_receiver_that_wants_no_more_is_not_asked_again(store: Store, receiver: Receiver) -> None:
    receiver.status = "410 Gone"
    call = await ended(store, receiver.url)
    async with telling(store) as teller:
        await teller.tell_due()
        assert (await only(teller, call)).status is DeliveryStatus.FAILED


async def test_a_redirect_is_not_followed(store: Store, receiver: Receiver) -> None:
    receiver.status = "307 Elsewhere"
    call = await ended(store, receiver.url)
    async with telling(store) as teller:
        await teller.tell_due()
        delivery = await only(teller, call)
    assert (delivery.status, delivery.status_code) == (DeliveryStatus.PENDING, 307)
    assert len(receiver.got) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"])
async def test_an_address_that_is_not_public_is_never_connected_to(store: Store, receiver: Receiver, host: str) -> None:
    call = await ended(store, f"http://{host}:{receiver.port}/")
    async with telling(store, allowed=[]) as teller:
        await teller.tell_due()
        delivery = await only(teller, call)
    assert (delivery.status, delivery.status_code) == (DeliveryStatus.FAILED, None)
    assert delivery.error.startswith("Refused: the receiver's address is not public")
    assert receiver.got == []


async def test_a_name_that_changes_its_address_gets_the_one_that_was_checked(
    store: Store, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved: list[str] = []

    async def resolve(host: str, port: int, **_: object) -> list[tuple[Any, ...]]:
        # The address it may have, once; after that another one of this machine, where nobody listens.
        resolved.append(host)
        return [(2, 1, 6, "", ("127.0.0.1" if len(resolved) == 1 else "127.0.0.9", port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    await ended(store, f"http://rebinding.example:{receiver.port}/")
    async with telling(store, allowed=[ip_network("127.0.0.1/32")]) as teller:
        await teller.tell_due()
    ((headers, _),) = receiver.got
    assert headers["host"] == f"rebinding.example:{receiver.port}"
    assert resolved[0] == "rebinding.example"
    assert "rebinding.example" not in resolved[1:]


async def test_a_silent_receiver_is_left(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_module, "TRY_S", 0.05)
    is_over = asyncio.Event()

    async def hang(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await is_over.wait()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    async with server, telling(store) as teller:
        call = await ended(store, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        await teller.tell_due()
        delivery = await only(teller, call)
        is_over.set()
    assert (delivery.status, delivery.error) == (DeliveryStatus.PENDING, "No answer within 0.05 s")


@pytest.mark.parametrize(
    ("address", "is_public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.0.1", False),
        ("127.0.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::a00:1", False),
        ("2002:a00:1::", False),
    ],
)
def test_only_public_addresses_are_allowed_by_themselves(address: str, is_public: bool) -> None:
    assert is_allowed(ip_address(address), []) is is_public
    assert is_allowed(ip_address(address), [ip_network("0.0.0.0/0"), ip_network("::/0")])
