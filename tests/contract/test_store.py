"""What the store promises about apps and routes, the same on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from faas.errors import (
    AppExistsError,
    AppHasRoutesError,
    AppNotFoundError,
    RouteExistsError,
    RouteNotFoundError,
    StoreUnavailableError,
    ValidationError,
)
from faas.models import App, CallType, FormatName, PullPolicy, Route
from faas.retry_policy import RetryPolicy
from faas.store.engine import Store, open_store
from tests.support.samples import a_call, a_request, a_route
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from sqlalchemy.pool import QueuePool

# --- apps


async def test_an_app_comes_back_as_it_was_inserted(store: Store) -> None:
    inserted = await store.apps.insert(App(name="demo", config={"B": "2", "A": "ü\0\ud800"}))
    assert inserted.created_at is not None
    assert inserted.created_at == inserted.updated_at
    assert await store.apps.get("demo") == inserted
    assert list((await store.apps.get("demo")).config) == ["B", "A"]


async def test_instants_come_back_aware_and_in_utc(store: Store) -> None:
    elsewhere = datetime(2026, 11, 22, 3, 4, 5, 678901, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    await store.apps.insert(App(name="demo", created_at=elsewhere))
    created_at = (await store.apps.get("demo")).created_at
    assert created_at == elsewhere
    assert created_at is not None
    assert created_at.tzinfo is UTC


async def test_apps_are_listed_by_name(store: Store) -> None:
    for name in ("b", "C", "a", "_", "1"):
        await store.apps.insert(App(name=name))
    assert [app.name for app in await store.apps.list()] == ["1", "C", "_", "a", "b"]


async def test_an_app_name_is_taken_once_even_when_twenty_want_it(store: Store) -> None:
    answers = await asyncio.gather(*[store.apps.insert(App(name="demo")) for _ in range(20)], return_exceptions=True)
    assert sum(isinstance(answer, App) for answer in answers) == 1
    assert sum(isinstance(answer, AppExistsError) for answer in answers) == 19


async def test_an_unknown_app_is_not_found(store: Store) -> None:
    with pytest.raises(AppNotFoundError):
        await store.apps.get("nobody")
    with pytest.raises(AppNotFoundError):
        await store.apps.update("nobody", lambda app: app)
    with pytest.raises(AppNotFoundError):
        await store.apps.delete("nobody")


async def test_no_update_of_an_app_is_lost(store: Store) -> None:
    await store.apps.insert(App(name="demo", config={"count": "0"}))

    def count(app: App) -> App:
        return replace(app, config={"count": str(int(app.config["count"]) + 1)})

    await asyncio.gather(*[store.apps.update("demo", count) for _ in range(50)])
    assert (await store.apps.get("demo")).config == {"count": "50"}


async def test_an_update_keeps_name_and_creation_and_moves_the_change(store: Store) -> None:
    before = await store.apps.insert(App(name="demo", created_at=datetime(2020, 1, 1, tzinfo=UTC)))
    after = await store.apps.update("demo", lambda _: App(name="other", config={"A": "1"}))
    assert (after.name, after.created_at, after.config) == ("demo", before.created_at, {"A": "1"})
    assert after.updated_at is not None
    assert before.updated_at is not None
    assert after.updated_at > before.updated_at
    assert await store.apps.get("demo") == after


async def test_a_change_that_raises_changes_nothing(store: Store) -> None:
    app = await store.apps.insert(App(name="demo"))

    def refuse(_: App) -> App:
        raise ValidationError(["no"])

    outcomes = await asyncio.gather(
        *[store.apps.update("demo", refuse) for _ in range(5)],
        *[store.apps.insert(App(name=f"app-{number}")) for number in range(5)],
        return_exceptions=True,
    )
    assert [isinstance(outcome, ValidationError) for outcome in outcomes] == [True] * 5 + [False] * 5
    assert await store.apps.get("demo") == app
    assert len(await store.apps.list()) == 6


async def test_an_app_with_routes_can_not_be_deleted(store: Store) -> None:
    await store.routes.insert(a_route())
    with pytest.raises(AppHasRoutesError):
        await store.apps.delete("demo")
    await store.routes.delete("demo", "/hello")
    await store.apps.delete("demo")
    assert await store.apps.list() == []


async def test_deleting_an_app_and_adding_a_route_to_it_never_leaves_a_route_without_app(store: Store) -> None:
    for number in range(15):
        name = f"app-{number}"
        await store.apps.insert(App(name=name))
        adding = [store.routes.insert(a_route(app_name=name, path=f"/{path}")) for path in range(2)]
        outcomes = await asyncio.gather(store.apps.delete(name), *adding, return_exceptions=True)
        assert outcomes[0] is None or isinstance(outcomes[0], AppHasRoutesError)
        assert [type(outcome) for outcome in outcomes[1:]] == [tuple, tuple]
        assert (await store.apps.get(name)).name == name


# --- routes


async def test_a_route_comes_back_as_it_was_inserted(store: Store) -> None:
    route = Route(
        app_name="demo",
        path="/a/b",
        image="img:1",
        image_digest="sha256:1",
        memory_mib=2**40,
        cpus=0.5,
        type=CallType.ASYNC,
        format=FormatName.HTTP_STREAM,
        max_concurrency=3,
        concurrency=7,
        min_warm=2,
        freeze_ms=250,
        stream_idle_s=12,
        timeout_s=4,
        idle_timeout_s=5,
        retries=RetryPolicy(max_retries=3, delay_s=0.25, on=("oom", 502)),
        pull=PullPolicy.NEVER,
        config={"K": "v"},
        headers={"X-A": ("1", "2")},
        jwt_key="secret",
    )
    inserted, app = await store.routes.insert(route)
    assert app == await store.apps.get("demo")
    assert replace(inserted, created_at=None, updated_at=None) == route
    assert await store.routes.get("demo", "/a/b") == inserted


async def test_a_route_makes_its_app_only_where_there_is_none(store: Store) -> None:
    await store.apps.insert(App(name="demo", config={"A": "1"}))
    _, app = await store.routes.insert(a_route())
    assert app is None
    assert (await store.apps.get("demo")).config == {"A": "1"}


async def test_a_path_is_taken_once_even_when_twenty_want_it(store: Store) -> None:
    answers = await asyncio.gather(*[store.routes.insert(a_route()) for _ in range(20)], return_exceptions=True)
    made = [answer for answer in answers if isinstance(answer, tuple)]
    assert len(made) == 1
    assert sum(isinstance(answer, RouteExistsError) for answer in answers) == 19
    assert [app.name for app in await store.apps.list()] == ["demo"]


async def test_a_refused_route_leaves_no_app_behind(store: Store) -> None:
    await store.routes.insert(a_route(app_name="one"))
    with pytest.raises(RouteExistsError):
        await store.routes.insert(a_route(app_name="one"))
    assert [app.name for app in await store.apps.list()] == ["one"]


async def test_routes_are_listed_by_app_and_path_and_filtered(store: Store) -> None:
    for app_name, path, image in (("b", "/x", "i"), ("a", "/z", "j"), ("a", "/y", "i")):
        await store.routes.insert(a_route(app_name=app_name, path=path, image=image))
    listed = [(route.app_name, route.path) for route in await store.routes.list()]
    assert listed == [("a", "/y"), ("a", "/z"), ("b", "/x")]
    assert [route.path for route in await store.routes.list(app_name="a")] == ["/y", "/z"]
    assert [route.app_name for route in await store.routes.list(image="i")] == ["a", "b"]
    assert await store.routes.list(app_name="a", image="nothing") == []


async def test_an_unknown_route_is_told_apart_from_an_unknown_app(store: Store) -> None:
    await store.apps.insert(App(name="demo"))
    for app_name, error in (("demo", RouteNotFoundError), ("nobody", AppNotFoundError)):
        with pytest.raises(error):
            await store.routes.get(app_name, "/hello")
        with pytest.raises(error):
            await store.routes.update(app_name, "/hello", lambda route: route)
        with pytest.raises(error):
            await store.routes.delete(app_name, "/hello")


async def test_no_update_of_a_route_is_lost(store: Store) -> None:
    await store.routes.insert(a_route(memory_mib=0))
    more = [
        store.routes.update("demo", "/hello", lambda route: replace(route, memory_mib=route.memory_mib + 1))
        for _ in range(50)
    ]
    await asyncio.gather(*more)
    assert (await store.routes.get("demo", "/hello")).memory_mib == 50


# --- connections


async def test_cancelled_callers_leave_every_connection_in_the_pool(store: Store) -> None:
    """pains.md 32: asyncpg connections were not given back, or dirty, when a task was cancelled."""
    chance = random.Random(1)
    call = a_call()
    await store.calls.insert(call, a_request())
    work = [
        lambda: store.apps.list(),
        lambda: store.calls.get(call.id),
        lambda: store.calls.insert(a_call(), a_request()),
        lambda: store.routes.insert(a_route(path=f"/{chance.random()}")),
    ]
    loop = asyncio.get_running_loop()
    tasks = []
    for number in range(1000):
        task = loop.create_task(work[number % len(work)]())
        loop.call_later(chance.random() * 0.5, task.cancel)
        tasks.append(task)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert any(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    assert [o for o in outcomes if isinstance(o, Exception)] == []
    # What had begun goes on to its end without its caller.
    pool: QueuePool = store.database.engine.pool  # type: ignore[assignment]
    await wait_until(lambda: pool.checkedout() == 0)
    await store.ping()
    # Half of a unit of work is never there: each call has its request, each route its app.
    for listed in (await store.calls.list("demo", limit=2000))[0]:
        assert await store.calls.request(listed.id) is not None


async def test_a_closed_store_says_so(database_url: str) -> None:
    async with open_store(database_url) as store:
        await store.ping()
    with pytest.raises(StoreUnavailableError):
        await store.ping()
    with pytest.raises(StoreUnavailableError):
        await store.apps.insert(App(name="late"))


async def test_what_was_written_is_there_after_a_restart(database_url: str) -> None:
    async with open_store(database_url) as store:
        app = await store.apps.insert(App(name="demo"))
    async with open_store(database_url) as store:
        assert await store.apps.list() == [app]
