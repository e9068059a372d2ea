"""What the store promises about schedules, the same on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from faas.clock import utc_now
from faas.errors import (
    AppNotFoundError,
    InternalError,
    RouteHasSchedulesError,
    RouteNotFoundError,
    ScheduleExistsError,
    ScheduleNotFoundError,
    ValidationError,
)
from faas.schedule import MissedPolicy, OverlapPolicy, Schedule
from tests.support.samples import a_call, a_request, a_route, a_schedule

if TYPE_CHECKING:
    from faas.store.engine import Store

NOON = datetime(2026, 5, 15, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


async def add(store: Store, name: str = "nightly", **fields: Any) -> Schedule:
    """A schedule and, where there is none, its route."""
    if not await store.routes.list(app_name="demo"):
        await store.routes.insert(a_route())
    return await store.schedules.insert(a_schedule(name=name, **fields))


async def test_a_schedule_comes_back_as_it_was_inserted(store: Store) -> None:
    inserted = await add(
        store,
        cron="0 3 * * *",
        interval_s=0,
        timezone="Europe/Berlin",
        method="PUT",
        headers=((b"content-type", b"text/x\xff"), (b"a", b"b")),
        body=bytes(range(256)),
        priority=2,
        is_enabled=True,
        missed=MissedPolicy.ONCE,
        overlap=OverlapPolicy.SKIP,
        next_at=NOON,
        last_at=NOON - HOUR,
        last_call_id=a_call().id,
    )
    assert inserted.created_at is not None
    assert await store.schedules.get("demo", "nightly") == inserted
    assert await store.schedules.list("demo") == [inserted]


async def test_what_is_missing_is_told_apart(store: Store) -> None:
    with pytest.raises(AppNotFoundError):
        await store.schedules.list("demo")
    with pytest.raises(AppNotFoundError):
        await store.schedules.insert(a_schedule())
    await store.routes.insert(a_route())
    with pytest.raises(RouteNotFoundError):
        await store.schedules.insert(a_schedule(path="/other"))
    for work in (
        store.schedules.get("demo", "nobody"),
        store.schedules.delete("demo", "nobody"),
        store.schedules.update("demo", "nobody", lambda schedule: schedule),
    ):
        with pytest.raises(ScheduleNotFoundError):
            await work
    with pytest.raises(AppNotFoundError):
        await store.schedules.get("nobody", "nobody")


async def test_a_name_is_taken_once_even_when_ten_want_it(store: Store) -> None:
    await store.routes.insert(a_route())
    answers = await asyncio.gather(*[store.schedules.insert(a_schedule()) for _ in range(10)], return_exceptions=True)
    assert sum(isinstance(answer, Schedule) for answer in answers) == 1
    assert sum(isinstance(answer, ScheduleExistsError) for answer in answers) == 9


async def test_an_update_keeps_what_is_known_of_the_latest_firing(store: Store) -> None:
    before = await add(store, last_at=NOON, last_call_id=a_call().id)
    changed = await store.schedules.update(
        "demo", "nightly", lambda present: replace(present, body=b"new", last_at=None, last_call_id=None)
    )
    assert (changed.body, changed.last_at, changed.last_call_id) == (b"new", before.last_at, before.last_call_id)
    assert await store.schedules.get("demo", "nightly") == changed


async def test_a_change_that_raises_or_names_no_route_changes_nothing(store: Store) -> None:
    before = await add(store)

    def refuse(_: Schedule) -> Schedule:
        raise ValidationError(["no"])

    with pytest.raises(ValidationError):
        await store.schedules.update("demo", "nightly", refuse)
    with pytest.raises(RouteNotFoundError):
        await store.schedules.update("demo", "nightly", lambda present: replace(present, path="/other"))
    assert await store.schedules.get("demo", "nightly") == before


async def test_a_route_with_schedules_can_not_be_deleted(store: Store) -> None:
    await add(store)
    with pytest.raises(RouteHasSchedulesError):
        await store.routes.delete("demo", "/hello")
    await store.schedules.delete("demo", "nightly")
    await store.routes.delete("demo", "/hello")


async def test_deleting_a_route_and_scheduling_it_never_leaves_a_schedule_without_route(store: Store) -> None:
    for number in range(15):
        await store.routes.insert(a_route(path=f"/{number}"))
        deleted, added = await asyncio.gather(
            store.routes.delete("demo", f"/{number}"),
            store.schedules.insert(a_schedule(name=f"s{number}", path=f"/{number}")),
            return_exceptions=True,
        )
        assert (deleted is None) == isinstance(added, RouteNotFoundError)
        assert isinstance(added, Schedule) == isinstance(deleted, RouteHasSchedulesError)


async def test_due_are_those_whose_time_has_come_page_by_page(store: Store) -> None:
    await add(store, "late", next_at=NOON - HOUR)
    await add(store, "just", next_at=NOON)
    await add(store, "soon", next_at=NOON + HOUR)
    await add(store, "off", next_at=None)
    first = await store.schedules.due(NOON, limit=1)
    second = await store.schedules.due(NOON, limit=1, after=first[0])
    assert [schedule.name for schedule in [*first, *second]] == ["just", "late"]
    assert await store.schedules.due(NOON, limit=1, after=second[0]) == []
    assert await store.schedules.next_at(NOON) == NOON + HOUR
    assert await store.schedules.next_at(NOON + HOUR) is None


async def test_a_firing_is_made_once_however_many_want_it(store: Store) -> None:
    schedule = await add(store, next_at=NOON)
    calls = [a_call(schedule="nightly") for _ in range(10)]
    outcomes = await asyncio.gather(
        *[store.schedules.advance(schedule, next_at=NOON + HOUR, call=call, request=a_request()) for call in calls]
    )
    (winner,) = [call for call, is_made in zip(calls, outcomes, strict=True) if is_made]
    listed, _ = await store.calls.list("demo")
    assert [(call.id, call.schedule) for call in listed] == [(winner.id, "nightly")]
    assert await store.calls.request(winner.id) == a_request()
    now = await store.schedules.get("demo", "nightly")
    assert (now.next_at, now.last_at, now.last_call_id) == (NOON + HOUR, NOON, winner.id)
    # Even though nobody has dispatched it, the sweeper finds it.
    unfinished = await store.calls.unfinished(before=utc_now() + HOUR, limit=10)
    assert [one.call_id for one in unfinished] == [winner.id]


async def test_a_firing_whose_call_can_not_be_stored_has_not_happened(store: Store) -> None:
    schedule = await add(store, next_at=NOON)
    taken = a_call()
    await store.calls.insert(taken, a_request())
    with pytest.raises(InternalError):
        await store.schedules.advance(schedule, next_at=NOON + HOUR, call=taken, request=a_request())
    assert await store.schedules.get("demo", "nightly") == schedule


async def test_a_schedule_that_was_changed_or_deleted_meanwhile_does_not_fire(store: Store) -> None:
    seen = await add(store, next_at=NOON)
    await store.schedules.update("demo", "nightly", lambda present: replace(present, body=b"new"))
    assert not await store.schedules.advance(seen, next_at=None, call=a_call(), request=a_request())
    await store.schedules.delete("demo", "nightly")
    assert not await store.schedules.advance(seen, next_at=None, call=a_call(), request=a_request())
    assert (await store.calls.list("demo"))[0] == []


async def test_a_firing_that_is_left_out_leaves_the_last_one_as_it_was(store: Store) -> None:
    schedule = await add(store, next_at=NOON, last_at=NOON - HOUR, last_call_id=a_call().id)
    assert await store.schedules.advance(schedule, next_at=NOON + HOUR)
    assert await store.schedules.get("demo", "nightly") == replace(schedule, next_at=NOON + HOUR)
