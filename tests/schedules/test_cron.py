"""When cron expressions are due, above all where clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from faas.schedules.cron import cron_problem, next_cron, zone_problem

BERLIN = "Europe/Berlin"
NEW_YORK = "America/New_York"

CHANGES = {
    # zone: the day clocks go forward at 2, the day they go back to 2 or 1 at night
    BERLIN: (datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 10, 25, tzinfo=UTC)),
    NEW_YORK: (datetime(2026, 3, 8, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)),
}
EXPRESSIONS = [
    "*/5 * * * *",
    "0 * * * *",
    "30 2 * * *",
    "*/30 2 * * *",
    "0,30 1-3 * * *",
    "15 1 * * *",
    "0 0 * * *",
    "59 23 * * SUN",
    "0 3 1 * *",
    "7 */3 * * *",
]


def firings(expression: str, zone: str, start: datetime, end: datetime) -> list[datetime]:
    """All of them in a period, in UTC."""
    found = []
    due_at = next_cron(expression, zone, after=start)
    while due_at is not None and due_at <= end:
        found.append(due_at)
        due_at = next_cron(expression, zone, after=due_at)
    return found


def on_the_wall(instants: list[datetime], zone: str) -> list[str]:
    return [instant.astimezone(ZoneInfo(zone)).strftime("%d %H:%M%z") for instant in instants]


@pytest.mark.parametrize(
    ("expression", "due_at"),
    [
        ("*/15 * * * *", "2026-05-15T10:15"),
        ("0 9 * * MON-FRI", "2026-05-18T09:00"),
        ("0 0 1 JAN *", "2027-01-01T00:00"),
        ("0 0 29 2 *", "2028-02-29T00:00"),
        ("30 4 1,15 * 5", "2026-05-22T04:30"),  # day of month or of week, when both are given
        ("0 12 L * *", "2026-05-31T12:00"),
        ("@hourly", "2026-05-15T11:00"),
        ("@Daily", "2026-05-16T00:00"),
        ("@midnight", "2026-05-16T00:00"),
        ("@weekly", "2026-05-17T00:00"),
        ("@monthly", "2026-06-01T00:00"),
        ("@yearly", "2027-01-01T00:00"),
        ("@annually", "2027-01-01T00:00"),
    ],
)
def test_the_next_time_is_the_first_that_fits(expression: str, due_at: str) -> None:
    after = datetime(2026, 5, 15, 10, 0, 0, tzinfo=UTC)  # a Friday, and itself due
    assert next_cron(expression, "UTC", after=after) == datetime.fromisoformat(due_at).replace(tzinfo=UTC)
    assert cron_problem(expression) == ""


@pytest.mark.parametrize("zone", CHANGES)
@pytest.mark.parametrize("expression", ["30 2 * * *", "*/30 2 * * *", "0 2 * * *"])
def test_times_that_the_wall_skips_fire_once_right_after_the_gap(zone: str, expression: str) -> None:
    day = CHANGES[zone][0]
    found = firings(expression, zone, day, day + timedelta(days=1))
    wall = [instant.astimezone(ZoneInfo(zone)) for instant in found]
    assert [instant.strftime("%H:%M") for instant in wall if instant.day == day.day] == ["03:00"]


def test_times_that_come_twice_fire_the_first_time() -> None:
    day = CHANGES[BERLIN][1] - timedelta(hours=2)
    found = firings("*/30 2 * * *", BERLIN, day, day + timedelta(days=1))
    assert on_the_wall(found, BERLIN) == ["25 02:00+0200", "25 02:30+0200"]
    day = CHANGES[NEW_YORK][1]
    found = firings("30 1 * * *", NEW_YORK, day, day + timedelta(hours=12))
    assert on_the_wall(found, NEW_YORK) == ["01 01:30-0400"]


def test_what_is_asked_in_the_second_pass_of_an_hour_is_the_next_day() -> None:
    second_pass = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)
    assert on_the_wall([second_pass], BERLIN) == ["25 02:10+0100"]
    due_at = next_cron("30 2 * * *", BERLIN, after=second_pass)
    assert due_at is not None
    assert on_the_wall([due_at], BERLIN) == ["26 02:30+0100"]


@pytest.mark.parametrize("zone", CHANGES)
@pytest.mark.parametrize("expression", ["*/5 * * * *", "0 * * * *"])
def test_every_so_often_knows_neither_pause_nor_burst(zone: str, expression: str) -> None:
    for day in CHANGES[zone]:
        found = firings(expression, zone, day - timedelta(days=1), day + timedelta(days=2))
        steps = {after - before for before, after in pairwise(found)}
        assert len(steps) == 1, on_the_wall(found, zone)


@pytest.mark.parametrize("zone", [*CHANGES, "UTC", "Australia/Lord_Howe", "America/Santiago", "Asia/Kolkata"])
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_firings_only_go_forward_whoever_asks_from_where(zone: str, expression: str) -> None:
    """For each instant of a grid over a year, the next firing is later and is the same that a walk comes by."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for day in range(366):
        after = start + timedelta(days=day, minutes=37 * day % 1440, seconds=day % 60)
        due_at = next_cron(expression, zone, after=after)
        assert due_at is not None
        assert due_at > after
        assert due_at.second == due_at.microsecond == 0
        # From any instant in between it is still the same.
        between = after + (due_at - after) / 2
        assert next_cron(expression, zone, after=between) == due_at


@pytest.mark.parametrize("zone", CHANGES)
def test_a_daily_time_fires_once_on_each_day_of_a_year(zone: str) -> None:
    midnight = datetime(2026, 1, 1, tzinfo=ZoneInfo(zone)) - timedelta(seconds=1)
    found = firings("30 2 * * *", zone, midnight, datetime(2026, 12, 31, 23, 59, tzinfo=ZoneInfo(zone)))
    days = [instant.astimezone(ZoneInfo(zone)).date() for instant in found]
    assert len(days) == len(set(days)) == 365


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("", "five fields"),
        ("* * * *", "five fields"),
        ("0 * * * * *", "five fields"),
        ("@reboot", "five fields"),
        ("60 * * * *", "bad minute"),
        ("0 24 * * *", "bad hour"),
        ("*/0 * * * *", "bad minute"),
        ("0 0 30 2 *", "bad day-of-month"),
        ("0 0 * * noday", "bad day-of-week"),
        ("0 0 * * ²L", "bad day-of-week"),
        ("1," * 100 + "1 * * * *", "longer than"),
    ],
)
def test_what_is_wrong_with_an_expression_is_said(expression: str, words: str) -> None:
    assert words in cron_problem(expression)


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "Europe", "../etc/passwd", "/etc/localtime", "a\0b"])
def test_an_unknown_zone_is_said_to_be(name: str) -> None:
    assert "IANA" in zone_problem(name)
    assert zone_problem(BERLIN) == zone_problem("UTC") == ""
