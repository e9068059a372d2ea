"""`Idempotency-Key`: equal requests run once, behind a real socket, on a real store."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from faas.api.error_answer import render_error
from faas.calls import idempotency as idempotency_module
from faas.calls.idempotency import IdempotentCalls
from faas.calls.waiting import Waiters
from faas.errors import CallNotFoundError, ResultNotKeptError, StoreUnavailableError
from faas.metrics import Metrics
from faas.models import CallType
from faas.recorder import Recorder
from faas.store.engine import open_store
from tests.api.front import PROGRAMS, Gate, running_front
from tests.support.programs import FunctionRequest, answer, http_stream
from tests.support.rig import running_rig
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from faas.models import Call, CallResult
    from faas.store.engine import Store
    from tests.api.front import Answer, Front


class Counter:
    """Answers with how often it ran; its body asks for a failure or for many bytes."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self, request: FunctionRequest) -> bytes:
        self.count += 1
        if request.body == b"fail":
            return answer(b"oh no", 200, "Fn-Http-Status: 500")
        if request.body == b"much":
            return answer(b"x" * 1001)
        return answer(b"run %d" % self.count, 200, "Content-Type: text/count", "Fn-Http-H-X-Own: 1")


class StoredEnds:
    """What the database knows of calls."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.calls: dict[str, Call] = {}
        """Submitted ones, which nobody runs here."""

    async def get(self, call_id: str, *, wait_s: float = 0) -> Call:
        call = await self.store.calls.get(call_id) or self.calls.get(call_id)
        if call is None:
            raise CallNotFoundError
        return call

    async def result(self, call_id: str) -> CallResult:
        result = await self.store.calls.result(call_id)
        if result is None:
            raise ResultNotKeptError("not kept")
        return result


class Shop:
    """A front with keys."""

    def __init__(self, front: Front, store: Store, once: IdempotentCalls, counter: Counter, gate: Gate) -> None:
        self.front = front
        self.store = store
        self.once = once
        self.counter = counter
        self.gate = gate

    async def ask(self, body: bytes = b"hello", *, key: str = "k-1", route: str = "counter", more: str = "") -> Answer:
        head = f"POST /r/demo/{route} HTTP/1.1|Host: a|Content-Length: {len(body)}|Idempotency-Key: {key}{more}"
        return await (await self.front.client()).ask(head, body)

    async def settled(self) -> None:
        await wait_until(lambda: not self.once._held)


@asynccontextmanager
async def open_shop(folder: Path, url: str) -> AsyncIterator[Shop]:
    counter, gate, waiters = Counter(), Gate(), Waiters()
    sockets = folder / "sockets"
    sockets.mkdir(parents=True)
    programs = {**PROGRAMS, "counter": counter, "gate": gate}
    async with open_store(url) as store:
        recorder = Recorder(
            store.calls, Metrics(), node="me", recent_calls=100, per_second=1000, render_error=render_error
        )
        once = IdempotentCalls(store, recorder, waiters, retention_s=3600)
        async with running_rig(sockets, {name: http_stream(handler) for name, handler in programs.items()}) as rig:
            rig.agent._observe = recorder.observe
            async with running_front(rig, programs, {}, ends=StoredEnds(store), once=once) as front:
                yield Shop(front, store, once, counter, gate)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path, f"sqlite+aiosqlite:///{tmp_path / 'faas.db'}") as shop:
        yield shop


async def test_a_repeat_gets_the_first_answer_and_nothing_runs_again(shop: Shop) -> None:
    first = await shop.ask()
    repeat = await shop.ask()
    assert shop.counter.count == 1
    assert (first.status, first.body, first["x-own"], first["content-type"]) == (200, b"run 1", "1", "text/count")
    assert (repeat.status, repeat.body, repeat["x-own"], repeat["content-type"]) == (200, b"run 1", "1", "text/count")
    assert repeat["x-call-id"] == first["x-call-id"]
    assert (first.all("idempotent-replayed"), repeat.all("idempotent-replayed")) == ([], ["true"])


async def test_another_key_and_another_route_are_other_calls(shop: Shop) -> None:
    shop.front.deploy("counter", path="/again")
    answers = [await shop.ask(), await shop.ask(key="k-2"), await shop.ask(route="again")]
    assert [got.body for got in answers] == [b"run 1", b"run 2", b"run 3"]
    assert (await shop.ask(key='"k-1"')).body == b"run 1"


@pytest.mark.parametrize(
    ("body", "more"),
    [(b"other", ""), (b"hello", "|Content-Type: text/other"), (b"hello", "|Authorization: Bearer somebody")],
)
async def test_another_request_may_not_use_the_key(shop: Shop, body: bytes, more: str) -> None:
    await shop.ask()
    got = await shop.ask(body, more=more)
    assert (got.status, got["faas-error"]) == (422, "idempotency_key_reused")
    assert shop.counter.count == 1
    assert (await shop.ask(more="|User-Agent: other")).status == 200


@pytest.mark.parametrize("key", ["", '""', "x" * 256, "\xe9"])
async def test_what_is_no_key_is_refused(shop: Shop, key: str) -> None:
    got = await shop.ask(key=key)
    assert (got.status, got["faas-error"]) == (400, "invalid_request")
    assert shop.counter.count == 0


async def test_twins_run_once_and_get_the_same_answer(shop: Shop) -> None:
    asked = [asyncio.ensure_future(shop.ask(route="gate")) for _ in range(5)]
    await wait_until(lambda: shop.gate.bodies == [b"hello"])
    shop.gate.may_answer.set()
    answers = await asyncio.gather(*asked)
    assert {(got.status, got.body) for got in answers} == {(200, b"hello")}
    assert len({got["x-call-id"] for got in answers}) == 1
    assert shop.gate.bodies == [b"hello"]


async def test_a_twin_that_waited_long_enough_is_told_to_come_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency_module, "TWIN_WAIT_S", 0.05)
    first = asyncio.ensure_future(shop.ask(route="gate"))
    await wait_until(lambda: shop.gate.bodies == [b"hello"])
    got = await shop.ask(route="gate")
    assert (got.status, got["faas-error"]) == (409, "idempotency_key_in_use")
    assert int(got["retry-after"]) > 0
    shop.gate.may_answer.set()
    assert (await first).status == 200


async def test_what_the_function_answered_is_replayed_when_it_is_a_failure_too(shop: Shop) -> None:
    assert [(await shop.ask(b"fail")).status for _ in range(2)] == [500, 500]
    assert shop.counter.count == 1


async def test_a_platform_error_of_a_call_that_ran_is_replayed(shop: Shop) -> None:
    first = asyncio.ensure_future(shop.ask(route="hang"))
    await shop.front.a_call_runs()
    (invocation,) = shop.front.running
    shop.front.rig.agent.stop(invocation, StoreUnavailableError("the test's own"))
    repeat = await shop.ask(route="hang")
    for got in (await first, repeat):
        assert (got.status, got["faas-error"], got["x-call-id"]) == (503, "store_unavailable", invocation.id)
        assert b"the test's own" in got.body


async def test_a_call_that_never_began_leaves_the_key_free(shop: Shop) -> None:
    shop.front.deploy("gate", path="/narrow", max_concurrency=1)
    busy = asyncio.ensure_future(shop.ask(key="busy", route="narrow"))
    await shop.front.a_call_runs()
    refused = asyncio.ensure_future(shop.ask(route="narrow"))
    await wait_until(lambda: len(shop.front.running) == 2)
    waiting = next(one for one in shop.front.running if not one.running_since)
    shop.front.rig.agent.stop(waiting, StoreUnavailableError("the test's own"))
    assert (await refused).status == 503
    shop.gate.may_answer.set()
    assert (await busy).status == 200
    again = await shop.ask(route="narrow")
    assert (again.status, again.all("idempotent-replayed")) == (200, [])


async def test_a_client_that_hung_up_finds_its_answer_when_it_comes_again(shop: Shop) -> None:
    client = await shop.front.client()
    client.send("POST /r/demo/gate HTTP/1.1|Host: a|Content-Length: 5|Idempotency-Key: k-1", b"hello")
    await wait_until(lambda: shop.gate.bodies == [b"hello"])
    client.reset()
    await wait_until(lambda: not shop.front.plane.connections)
    shop.gate.may_answer.set()
    got = await shop.ask(route="gate")
    assert (got.status, got.body, got["idempotent-replayed"]) == (200, b"hello", "true")
    assert shop.gate.bodies == [b"hello"]


async def test_an_answer_that_was_too_large_to_keep_is_not_made_again(shop: Shop) -> None:
    first = await shop.ask(b"much")
    assert (first.status, len(first.body)) == (200, 1001)
    got = await shop.ask(b"much")
    assert (got.status, got["faas-error"]) == (409, "idempotent_answer_not_kept")
    assert first["x-call-id"].encode() in got.body
    assert shop.counter.count == 1


async def test_an_async_repeat_gets_the_first_id(shop: Shop) -> None:
    shop.front.deploy("counter", type=CallType.ASYNC)
    first, repeat = await shop.ask(), await shop.ask()
    assert (first.status, repeat.status) == (202, 202)
    assert repeat.body == first.body
    assert repeat["location"] == first["location"]
    assert repeat["idempotent-replayed"] == "true"
    assert [request.body for request in shop.front.submitted] == [b"hello"]


async def test_an_async_call_that_was_not_accepted_leaves_the_key_free(shop: Shop) -> None:
    shop.front.deploy("counter", type=CallType.ASYNC)
    assert (await shop.ask(more="|X-Priority: 9")).status == 400
    shop.front.submit_error = StoreUnavailableError("The database does not answer")
    assert (await shop.ask()).status == 503
    shop.front.submit_error = None
    assert (await shop.ask()).all("idempotent-replayed") == []
    assert len(shop.front.submitted) == 1


async def test_claims_are_renewed_while_their_call_runs(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency_module, "HOLD_S", 0.001)
    first = asyncio.ensure_future(shop.ask(route="gate"))
    await wait_until(lambda: shop.gate.bodies == [b"hello"])
    monkeypatch.setattr(idempotency_module, "HOLD_S", 60)
    await shop.once.hold()
    repeat = asyncio.ensure_future(shop.ask(route="gate"))
    await wait_until(lambda: len(shop.once._waiters) == 1)
    shop.gate.may_answer.set()
    assert (await repeat).body == (await first).body
    assert shop.gate.bodies == [b"hello"]


async def test_two_nodes_on_one_database_run_a_call_once(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'faas.db'}"
    async with open_shop(tmp_path / "one", url) as one, open_shop(tmp_path / "two", url) as two:
        answers = await asyncio.gather(*(shop.ask() for shop in (one, two, one, two)))
        assert {(got.status, got.body) for got in answers} == {(200, b"run 1")}
        assert one.counter.count + two.counter.count == 1


async def test_keys_are_purged_when_they_are_old(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    await shop.ask()
    await shop.settled()
    assert await shop.once.purge() == 0
    monkeypatch.setattr(shop.once, "_retention_s", -1)
    assert await shop.once.purge() == 1
    assert (await shop.ask()).body == b"run 2"
