"""Metrics: what a scrape shows of what was counted."""

from __future__ import annotations

import asyncio

import pytest

from faas.metrics import Metrics
from faas.models import CallType


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


async def scrape(metrics: Metrics) -> dict[str, float]:
    """The samples of a scrape by their name and labels."""
    text = (await metrics.render()).decode()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def test_a_call_is_counted_by_app_path_type_and_code(metrics: Metrics) -> None:
    hello = metrics.for_route("demo", "/hello")
    hello.observe(200, 0.001, False)
    hello.observe(200, 0.002, True)
    metrics.for_route("demo", "/hello", CallType.ASYNC).observe(500, 0.2, False)
    samples = await scrape(metrics)
    assert samples['faas_calls_total{app="demo",code="200",path="/hello",type="sync"}'] == 2
    assert samples['faas_calls_total{app="demo",code="500",path="/hello",type="async"}'] == 1
    assert samples['faas_cold_calls_total{app="demo",path="/hello",type="sync"}'] == 1


async def test_the_duration_histogram_is_cumulative_and_counts_a_bound_in_its_own_bucket(metrics: Metrics) -> None:
    route = metrics.for_route("demo", "/hello")
    for exec_s in (0.001, 0.0011, 1000.0):
        route.observe(200, exec_s, False)
    samples = await scrape(metrics)

    def bucket(bound: str) -> float:
        return samples[f'faas_call_duration_seconds_bucket{{app="demo",le="{bound}",path="/hello",type="sync"}}']

    assert [bucket(bound) for bound in ("0.0005", "0.001", "0.0025", "300.0", "+Inf")] == [0, 1, 2, 2, 3]
    assert samples['faas_call_duration_seconds_count{app="demo",path="/hello",type="sync"}'] == 3
    assert samples['faas_call_duration_seconds_sum{app="demo",path="/hello",type="sync"}'] == pytest.approx(1000.0021)


async def test_a_platform_error_is_counted_by_its_code_and_has_no_duration(metrics: Metrics) -> None:
    metrics.for_route("demo", "/hello").failed(503, "no_capacity")
    samples = await scrape(metrics)
    assert samples['faas_calls_total{app="demo",code="503",path="/hello",type="sync"}'] == 1
    assert samples['faas_call_errors_total{app="demo",error="no_capacity",path="/hello",type="sync"}'] == 1
    assert samples['faas_call_duration_seconds_count{app="demo",path="/hello",type="sync"}'] == 0


async def test_a_route_has_series_of_a_type_once_it_was_called_so(metrics: Metrics) -> None:
    sync = metrics.for_route("demo", "/hello", CallType.SYNC)
    metrics.for_route("demo", "/hello", CallType.ASYNC)
    assert not [name for name in await scrape(metrics) if "/hello" in name]
    sync.observe(200, 0.1, False)
    assert {'type="sync"' in name for name in await scrape(metrics) if "/hello" in name} == {True}


async def test_a_removed_route_leaves_no_series_behind(metrics: Metrics) -> None:
    for call_type in CallType:
        metrics.for_route("demo", "/gone", call_type).observe(200, 0.1, True)
    metrics.forget_route("demo", "/gone")
    assert not [name for name in await scrape(metrics) if "/gone" in name]


async def test_a_probe_sets_its_gauges_at_each_scrape(metrics: Metrics) -> None:
    async def probe() -> None:
        metrics.set_queue(waiting=3, delayed=2, leased=1, oldest_waiting_s=4.5)
        metrics.set_containers({"idle": 2, "busy": 1})
        metrics.set_capacity(used_mib=256, total_mib=1024)

    metrics.add_probe(probe)
    samples = await scrape(metrics)
    assert samples['faas_queue_calls{state="waiting"}'] == 3
    assert samples["faas_queue_oldest_seconds"] == 4.5
    assert samples['faas_containers{state="idle"}'] == 2
    assert samples["faas_capacity_used_bytes"] == 256 * 1024 * 1024


async def test_the_tasks_of_the_loop_are_counted(metrics: Metrics) -> None:
    before = (await scrape(metrics))["faas_tasks"]
    waiting = asyncio.ensure_future(asyncio.Event().wait())
    assert (await scrape(metrics))["faas_tasks"] == before + 1
    waiting.cancel()


async def test_a_failing_probe_does_not_hide_the_other_numbers(metrics: Metrics) -> None:
    async def probe() -> None:
        raise ConnectionError

    metrics.add_probe(probe)
    metrics.container_evicted()
    assert (await scrape(metrics))["faas_container_evictions_total"] == 1


async def test_container_events_are_counted(metrics: Metrics) -> None:
    metrics.container_started(0.15)
    metrics.container_start_failed()
    metrics.container_oom()
    metrics.image_pulled(False)
    metrics.records_dropped(7)
    samples = await scrape(metrics)
    assert samples['faas_container_starts_total{outcome="ok"}'] == 1
    assert samples['faas_container_starts_total{outcome="failed"}'] == 1
    assert samples["faas_container_start_seconds_sum"] == pytest.approx(0.15)
    assert samples["faas_container_ooms_total"] == 1
    assert samples['faas_image_pulls_total{outcome="failed"}'] == 1
    assert samples["faas_call_records_dropped_total"] == 7


async def test_two_nodes_in_one_process_share_no_numbers(metrics: Metrics) -> None:
    other = Metrics()
    other.container_evicted()
    assert (await scrape(metrics))["faas_container_evictions_total"] == 0
