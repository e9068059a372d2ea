"""Every metric of a node, declared once, with unit and help; nothing else imports `prometheus_client`.

What the hot path counts are plain integers and lists (`counters`) that a collector reads when `/metrics` is asked for.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from faas import __version__
from faas.counters import CALL_BUCKETS_S, RouteMetrics
from faas.models import CallType

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from prometheus_client import Metric

__all__ = ["CONTENT_TYPE", "Metrics"]

logger = logging.getLogger(__name__)

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

START_BUCKETS_S = (0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0)

PROBE_TIMEOUT_S = 2.0
"""A queue that does not answer must not make the scrape fail: the other numbers are needed just then."""

MIB = 1024 * 1024


class _RouteCollector(Collector):
    """Turns the routes' plain numbers into metric families at scrape time."""

    def __init__(self, routes: dict[tuple[str, str, CallType], RouteMetrics]) -> None:
        self._routes = routes

    def collect(self) -> Iterator[Metric]:
        labels = ("app", "path", "type")
        calls = CounterMetricFamily("faas_calls", "Calls that were answered.", labels=(*labels, "code"))
        errors = CounterMetricFamily(
            "faas_call_errors", "Calls that the platform answered with its own error.", labels=(*labels, "error")
        )
        cold = CounterMetricFamily("faas_cold_calls", "Calls that had to start a container.", labels=labels)
        seconds = HistogramMetricFamily(
            "faas_call_duration_seconds", "Time a container had the request until its answer's end.", labels=labels
        )
        # The copies are taken because a scrape is rendered in a thread while the loop goes on counting.
        for (app_name, path, call_type), route in list(self._routes.items()):
            # Nobody called it so yet: 1,000 routes had 40,000 lines of zeros, which took 4 MB and 25 MiB of memory.
            if not route.codes:
                continue
            values = (app_name, path, call_type.value)
            for status, count in list(route.codes.items()):
                calls.add_metric((*values, str(status)), count)
            for error_code, count in list(route.errors.items()):
                errors.add_metric((*values, error_code), count)
            cold.add_metric(values, route.cold)
            seconds.add_metric(values, _cumulative(route.buckets), route.sum_s)
        yield from (calls, errors, cold, seconds)


def _cumulative(buckets: list[int]) -> list[tuple[str, float]]:
    bounds = (*(str(bound) for bound in CALL_BUCKETS_S), "+Inf")
    total = 0
    result: list[tuple[str, float]] = []
    for bound, count in zip(bounds, list(buckets), strict=True):
        total += count
        result.append((bound, total))
    return result


class Metrics:
    """All metrics of one node, in a registry of its own. Call every method on the event loop."""

    def __init__(self) -> None:
        # Without this every counter gets a second series that says when it was made; the switch is the library's own.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._routes: dict[tuple[str, str, CallType], RouteMetrics] = {}
        self._probes: list[Callable[[], Awaitable[None]]] = []
        self.registry = registry = CollectorRegistry()
        registry.register(_RouteCollector(self._routes))
        ProcessCollector(registry=registry)
        Gauge("faas_build_info", "Always 1; the version is the label.", ("version",), registry=registry).labels(
            __version__
        ).set(1)
        self._queue_calls = Gauge(
            "faas_queue_calls", "Calls in the queue: waiting, delayed, leased.", ("state",), registry=registry
        )
        self._queue_oldest = Gauge(
            "faas_queue_oldest_seconds", "Age of the oldest call that is due and that nobody runs.", registry=registry
        )
        self._containers = Gauge("faas_containers", "Containers of the pool.", ("state",), registry=registry)
        self._capacity_used = Gauge(
            "faas_capacity_used_bytes", "Memory that containers have reserved.", registry=registry
        )
        self._capacity_total = Gauge(
            "faas_capacity_total_bytes", "Memory that functions may use on this node.", registry=registry
        )
        self._tasks = Gauge("faas_tasks", "Tasks of the node's event loop.", registry=registry)
        self._pulls = Counter("faas_image_pulls", "Image pulls.", ("outcome",), registry=registry)
        self._starts = Counter("faas_container_starts", "Container starts.", ("outcome",), registry=registry)
        self._start_seconds = Histogram(
            "faas_container_start_seconds",
            "Time from the decision to start a container until it can take a call.",
            buckets=START_BUCKETS_S,
            registry=registry,
        )
        self._processes = Gauge("faas_processes", "Processes that serve this node's port.", registry=registry)
        self._process_calls = Gauge(
            "faas_process_calls", "Calls that ended in each process since it started.", ("process",), registry=registry
        )
        self._evictions = Counter(
            "faas_container_evictions", "Idle containers stopped to make room for another function.", registry=registry
        )
        self._ooms = Counter(
            "faas_container_ooms", "Containers that the kernel killed at their memory limit.", registry=registry
        )
        self._dropped_records = Counter(
            "faas_call_records_dropped", "Records of sync calls that were not written, for overload.", registry=registry
        )
        for outcome in ("ok", "failed"):  # so that a rate over them exists from the start
            self._pulls.labels(outcome)
            self._starts.labels(outcome)

    # --- calls

    def for_route(self, app_name: str, path: str, call_type: CallType = CallType.SYNC) -> RouteMetrics:
        """The route's counters, made at first use; keep them, the look-up is not for the hot path."""
        key = (app_name, path, call_type)
        found = self._routes.get(key)
        if found is None:
            found = self._routes[key] = RouteMetrics()
        return found

    def forget_route(self, app_name: str, path: str) -> None:
        """Drop a removed route's series, so that their number stays bounded by the routes that exist."""
        for call_type in CallType:
            self._routes.pop((app_name, path, call_type), None)

    def add_calls(self, app_name: str, path: str, call_type: CallType, counted: RouteMetrics) -> None:
        """Count what another process has counted of a route; nothing when the route is gone."""
        known = self._routes.get((app_name, path, call_type))
        if known is not None:
            known.add(counted)

    def records_dropped(self, count: int = 1) -> None:
        """Count records of sync calls that were given up under overload."""
        self._dropped_records.inc(count)

    # --- containers

    def image_pulled(self, is_ok: bool) -> None:
        """Count a pull that ended."""
        self._pulls.labels("ok" if is_ok else "failed").inc()

    def container_started(self, start_s: float) -> None:
        """Count a container that became ready, with the time it took."""
        self._starts.labels("ok").inc()
        self._start_seconds.observe(start_s)

    def container_start_failed(self) -> None:
        """Count a container that never became ready."""
        self._starts.labels("failed").inc()

    def container_evicted(self) -> None:
        """Count an idle container that had to make room."""
        self._evictions.inc()

    def container_oom(self) -> None:
        """Count a container that passed its memory limit."""
        self._ooms.inc()

    # --- gauges, set by probes

    def set_queue(self, *, waiting: int, delayed: int, leased: int, oldest_waiting_s: float) -> None:
        """Say how full the queue is."""
        for state, count in (("waiting", waiting), ("delayed", delayed), ("leased", leased)):
            self._queue_calls.labels(state).set(count)
        self._queue_oldest.set(oldest_waiting_s)

    def set_containers(self, by_state: Mapping[str, int]) -> None:
        """Say how many containers the pool has; a state that is not named has none."""
        self._containers.clear()
        for state, count in by_state.items():
            self._containers.labels(state).set(count)

    def set_processes(self, calls: Mapping[int, int]) -> None:
        """Say which processes serve the port now, and how many calls ended in each."""
        self._processes.set(len(calls))
        self._process_calls.clear()
        for number, count in calls.items():
            self._process_calls.labels(str(number)).set(count)

    def set_capacity(self, *, used_mib: int, total_mib: int) -> None:
        """Say how much memory is reserved of how much."""
        self._capacity_used.set(used_mib * MIB)
        self._capacity_total.set(total_mib * MIB)

    # --- scraping

    def add_probe(self, probe: Callable[[], Awaitable[None]]) -> None:
        """Have `probe` set its gauges right before each scrape."""
        self._probes.append(probe)

    async def render(self) -> bytes:
        """Everything in Prometheus' text format (`CONTENT_TYPE`). Many routes make many lines: a thread writes them."""
        for probe in self._probes:
            try:
                async with asyncio.timeout(PROBE_TIMEOUT_S):
                    await probe()
            except Exception as error:  # noqa: BLE001 - the other numbers are needed most when a backend is down
                logger.warning("metrics_probe_failed", extra={"error": repr(error)})
        self._tasks.set(len(asyncio.all_tasks()))
        return await asyncio.to_thread(generate_latest, self.registry)
