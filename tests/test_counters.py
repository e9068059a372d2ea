"""Counting is split among processes and put together again."""

from __future__ import annotations

from faas.counters import RouteMetrics


def numbers(route: RouteMetrics) -> tuple[object, ...]:
    return dict(route.codes), dict(route.errors), route.buckets, route.sum_s, route.cold


def test_what_was_taken_and_what_came_after_add_up() -> None:
    whole, part, total = RouteMetrics(), RouteMetrics(), RouteMetrics()
    for status, exec_s, is_cold in ((200, 0.25, True), (500, 0.5, False)):
        whole.observe(status, exec_s, is_cold)
        part.observe(status, exec_s, is_cold)
    total.add(part.take())
    assert numbers(part) == numbers(RouteMetrics())
    whole.failed(504, "timeout")
    part.failed(504, "timeout")
    total.add(part.take())
    assert numbers(total) == numbers(whole)
