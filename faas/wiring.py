"""The composition root: settings in, an open node out. The only room that names concrete classes."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import socket
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from faas.api.admission import Admission
from faas.api.app import build_app
from faas.api.dataplane import DataPlane
from faas.api.error_answer import render_error
from faas.api.schemas import CallView
from faas.calls.acceptance import Acceptance
from faas.calls.control import Control
from faas.calls.dead_letters import DeadLetterBox
from faas.calls.events import CallEvents
from faas.calls.execution import Execution
from faas.calls.expiry import Expiry
from faas.calls.firing import Firings
from faas.calls.following import Following
from faas.calls.idempotency import IdempotentCalls
from faas.calls.lookup import Lookup
from faas.calls.memory_share import MemoryShare
from faas.calls.outside import OutsideWorkers
from faas.calls.relay import Relay
from faas.calls.submission import Submission
from faas.calls.waiting import Waiters
from faas.calls.webhooks import WebhookTeller
from faas.catalog import Catalog, Limits
from faas.errors import ShuttingDownError, StartupError
from faas.ids import new_id
from faas.metrics import Metrics
from faas.models import FormatName
from faas.processes.fleet import Fleet
from faas.processes.lender import Lender
from faas.processes.messages import Options
from faas.queue.sql import SqlQueue
from faas.queue.worker import Worker
from faas.recorder import Recorder
from faas.runner.agent import Agent, AgentOptions
from faas.runner.capacity import Capacity, node_memory_mib
from faas.runner.executors.docker import DockerExecutor, DockerOptions
from faas.runner.formats.http import HttpFormat
from faas.runner.formats.http_stream import HttpStreamFormat
from faas.runner.functions import FunctionTable, compile_function
from faas.runner.launcher import Launcher, LauncherOptions
from faas.runner.reaper import Reaper
from faas.schedules.scheduler import Scheduler
from faas.schedules.schedules import Schedules
from faas.serving import process_count
from faas.store.engine import open_store
from faas.sweeper import Sweeper
from faas.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from fastapi import FastAPI

    from faas.calls.webhooks import Sender
    from faas.config import Settings
    from faas.queue.base import CallQueue
    from faas.runner.executors.base import Executor
    from faas.runner.formats.base import HotFormat
    from faas.store.engine import Store

__all__ = ["Node", "open_node"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """An open node."""

    settings: Settings
    app: FastAPI
    plane: DataPlane
    agent: Agent
    catalog: Catalog
    metrics: Metrics
    tasks: TaskSet
    fleet: Fleet
    """The other processes that serve this node's port."""
    stop_fetching: Callable[[], None]
    """Fetch no more queued calls, say so in `/readyz`."""
    hurry: Callable[[], None]
    """Wait for nothing any more."""


@asynccontextmanager
async def open_node(settings: Settings, *, on_failure: Any = None) -> AsyncIterator[Node]:
    """Build everything a node is made of, in order; what was opened is closed in the reverse order.

    `on_failure(error)` is called when a part of the node dies that it can't do without.
    """
    async with AsyncExitStack() as stack:
        installation_id = stack.enter_context(_own_data_dir(settings.data_dir))
        boot_id = new_id()
        processes = process_count(settings.processes)
        tasks = await stack.enter_async_context(TaskSet("node", on_failure=on_failure))

        metrics = Metrics()
        store = await stack.enter_async_context(open_store(settings.database_url))
        queue = await stack.enter_async_context(_open_queue(settings, store))
        executor = await stack.enter_async_context(
            DockerExecutor(
                DockerOptions.from_settings(settings, installation_id=installation_id, boot_id=boot_id),
                on_failure=on_failure,
                on_pulled=metrics.image_pulled,
            )
        )
        table = FunctionTable(metrics)
        capacity = Capacity(node_memory_mib(settings.memory_mib))
        recorder = Recorder(
            store.calls,
            metrics,
            node=_node_name(settings),
            recent_calls=settings.recent_calls,
            per_second=settings.record_sync_per_s // processes,
            render_error=render_error,
        )
        sockets_dir = settings.data_dir.absolute() / "sockets"
        agent = Agent(
            _launcher(settings, executor, sockets_dir),
            capacity,
            AgentOptions(
                queue_timeout_s=settings.queue_timeout_s,
                max_waiting=settings.max_waiting_per_function,
                max_spares=settings.max_spares,
                max_response_bytes=settings.max_response_bytes,
                max_log_bytes=settings.max_log_bytes,
            ),
            metrics=metrics,
            observe=recorder.observe,
        )
        table.on_changed, table.on_retired = agent.pool.adopt, agent.keeper.retire
        fleet = _fleet(settings, processes, agent, table, recorder, metrics, tasks)
        events = _events(recorder, store, tasks)
        execution = Execution(
            store,
            agent,
            table,
            recorder,
            events,
            node=_node_name(settings),
            max_attempts=settings.max_attempts,
            max_result_bytes=settings.max_result_bytes,
            render_error=render_error,
            share=MemoryShare(capacity.total_mib * settings.async_memory_share),
        )
        lookup = Lookup(
            store,
            agent,
            recorder,
            execution,
            events.waiters,
            fleet,
            retention_s=settings.retention_s,
            render_error=render_error,
        )
        control = Control(store, queue, agent, lookup, events, fleet)
        sweeper = Sweeper(
            store.calls, queue, retention_s=settings.retention_s, is_running_here=agent.running.__contains__
        )
        teller = WebhookTeller(
            store,
            lookup,
            render=lambda call: CallView.of(call).model_dump(mode="json"),
            sender=_webhook_sender(settings, stack),
        )
        catalog = Catalog(
            store,
            resolve_image=lambda reference, pull: executor.resolve_image(reference, pull=pull),
            listener=table if fleet.is_alone else fleet,
            prepare=lambda app, route: agent.keeper.prepare(
                compile_function(app, route, metrics), table.key_at(route.app_name, route.path)
            ),
            limits=Limits(
                node_memory_mib=capacity.total_mib,
                max_timeout_s=settings.max_timeout_s,
                max_idle_timeout_s=settings.max_idle_timeout_s,
            ),
            obeyed=fleet.obeyed,
        )
        await catalog.load()

        reaper = Reaper(
            boot_id=boot_id,
            list_ours=executor.list_ours,
            remove=executor.remove,
            is_known=agent.keeper.containers.__contains__,
            sockets_dir=sockets_dir,
            is_socket_dir_known=agent.keeper.socket_dirs.__contains__,
        )
        await _clean_up_after_other_boots(reaper, queue, installation_id)

        worker = Worker(
            queue,
            execution.run,
            owner=f"{installation_id}/{boot_id}",
            concurrency=settings.async_concurrency,
            lease_s=settings.lease_s,
        )
        plane = DataPlane(
            table,
            agent,
            _admission(
                settings,
                store,
                Submission(Acceptance(store.calls, queue, without_queue=settings.accept_without_queue), events),
                lookup,
                recorder,
                events,
                tasks,
            ).admit,
            max_header_bytes=settings.max_header_bytes,
            max_request_bytes=settings.max_request_bytes,
            max_buffered_request_bytes=settings.max_buffered_request_bytes,
            max_response_bytes=settings.max_response_bytes,
            request_read_timeout_s=settings.request_read_timeout_s,
        )
        _add_probes(metrics, queue, agent, capacity, fleet)
        draining = asyncio.Event()
        app = build_app(
            catalog=catalog,
            lookup=lookup,
            control=control,
            dead_letters=DeadLetterBox(store, queue, table, lookup, events),
            following=Following(lookup, events, agent),
            schedules=_schedules(store, queue, events, tasks),
            outside=OutsideWorkers(store, queue, execution, events),
            deliveries=teller,
            render_metrics=metrics.render,
            readiness={
                "store": store.ping,
                "engine": _engine_check(executor),
                "serving": _serving_check(draining),
            },
            jwt_auth_key=settings.jwt_auth_key.get_secret_value(),
        )

        for name, work in {
            "agent sweep": agent.sweep_forever(),
            "data plane sweep": plane.sweep_forever(),
            "recorder": recorder.write_forever(),
            "call sweep": sweeper.sweep_forever(),
            "cancel watch": control.watch_forever(),
            "call purge": sweeper.purge_forever(),
            "call expiry": Expiry(store.expiring, queue, events).end_forever(),
            "webhooks": teller.tell_forever(),
            "reaper": reaper.run(),
            "lease renewal": worker.renew_forever(),
        }.items():
            tasks.supervise(work, name=name)
        fetching = tasks.supervise(worker.fetch_forever(), name="fetch") if settings.async_concurrency else None

        hurried = asyncio.Event()

        def stop_fetching() -> None:
            draining.set()
            events.close()
            if fetching is not None:
                fetching.cancel()

        def hurry() -> None:
            hurried.set()
            fleet.hurry()
            agent.hurry()

        async def drain() -> None:
            """Stop accepting; wait for what is in flight, with a deadline; kill the rest, and say how many."""
            stop_fetching()
            await fleet.stop(0.0)  # the server has stopped it, unless it failed before
            grace_s = 0.0 if hurried.is_set() else settings.shutdown_grace_s
            given_back = await worker.close(grace_s)
            await plane.tasks.wait(1.0)
            killed = await agent.close(0.0 if hurried.is_set() else grace_s)
            await plane.tasks.cancel()
            await recorder.flush()
            logger.info("node_drained", extra={"given_back": given_back, "killed": killed})

        try:
            yield Node(
                settings=settings,
                app=app,
                plane=plane,
                agent=agent,
                catalog=catalog,
                metrics=metrics,
                tasks=tasks,
                fleet=fleet,
                stop_fetching=stop_fetching,
                hurry=hurry,
            )
        finally:
            await drain()


async def _clean_up_after_other_boots(reaper: Reaper, queue: CallQueue, installation_id: str) -> None:
    """Before the first container is made and the first call is fetched; nobody gets a call that still runs."""
    await reaper.reap_other_boots()
    await queue.release_owned(installation_id)


def _node_name(settings: Settings) -> str:
    return settings.node_name or socket.gethostname()


@contextlib.contextmanager
def _own_data_dir(data_dir: Path) -> Iterator[str]:
    """Make the folder ours alone for as long as we live; yields the installation's id, which lives in it."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Not 0700 for the sockets' parents only: containers reach their folder by mount, nobody else needs to.
        (data_dir / "sockets").mkdir(mode=0o700, exist_ok=True)
        lock = (data_dir / "lock").open("w")
    except OSError as error:
        raise StartupError(f"The data folder can't be used: {error}; choose another with --data-dir") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartupError(
                f"Another node uses {data_dir.absolute()}; stop it, or choose another folder with --data-dir"
            ) from None
        identity = data_dir / "installation_id"
        if not identity.exists():
            identity.write_text(new_id())
        yield identity.read_text().strip()


@asynccontextmanager
async def _open_queue(settings: Settings, store: Store) -> AsyncIterator[CallQueue]:
    if not settings.queue_url.startswith("sql:"):
        # redis-py takes 6 MiB, which a node without Redis saves.
        from faas.queue.redis import open_redis_queue

        async with open_redis_queue(settings.queue_url) as redis_queue:
            yield redis_queue
        return
    queue = SqlQueue(store.database)
    try:
        yield queue
    finally:
        await queue.close()


def _webhook_sender(settings: Settings, stack: AsyncExitStack) -> Callable[[], Sender]:
    opened: list[Sender] = []

    def sender() -> Sender:
        if not opened:
            # httpx takes 9 MiB, which a node without webhooks saves.
            from faas.calls.webhook_sender import WebhookSender

            one = WebhookSender(settings.webhook_networks)
            stack.push_async_callback(one.close)
            opened.append(one)
        return opened[0]

    return sender


def _launcher(settings: Settings, executor: Executor, sockets_dir: Path) -> Launcher:
    formats: dict[FormatName, HotFormat] = {
        FormatName.HTTP: HttpFormat(max_header_bytes=settings.max_response_header_bytes),
        FormatName.HTTP_STREAM: HttpStreamFormat(max_header_bytes=settings.max_response_header_bytes),
    }
    options = LauncherOptions(
        socket_root=sockets_dir,
        start_timeout_s=settings.start_timeout_s,
        max_parallel_starts=settings.max_parallel_starts,
        pids=settings.container_pids,
        open_files=settings.container_open_files,
        tmpfs_mib=settings.container_tmpfs_mib,
    )
    return Launcher(executor, formats, options)


def _fleet(
    settings: Settings,
    processes: int,
    agent: Agent,
    table: FunctionTable,
    recorder: Recorder,
    metrics: Metrics,
    tasks: TaskSet,
) -> Fleet:
    lender = Lender(agent.pool, agent.keeper, table, tasks, on_oom=metrics.container_oom)
    agent.refuse_other = lender.refuse
    options = Options(
        node_name=recorder.node,
        log_level=settings.log_level,
        log_format=settings.log_format,
        max_header_bytes=settings.max_header_bytes,
        max_request_bytes=settings.max_request_bytes,
        max_buffered_request_bytes=settings.max_buffered_request_bytes,
        max_response_header_bytes=settings.max_response_header_bytes,
        max_response_bytes=settings.max_response_bytes,
        max_log_bytes=settings.max_log_bytes,
        request_read_timeout_s=settings.request_read_timeout_s,
        queue_timeout_s=settings.queue_timeout_s,
        shutdown_grace_s=settings.shutdown_grace_s,
        record_sync_per_s=settings.record_sync_per_s // processes,
        recent_calls=settings.recent_calls,
    )
    return Fleet(processes - 1, options, lender, table, recorder=recorder, metrics=metrics, tasks=tasks)


def _admission(
    settings: Settings,
    store: Store,
    submission: Submission,
    lookup: Lookup,
    recorder: Recorder,
    events: CallEvents,
    tasks: TaskSet,
) -> Admission:
    once = IdempotentCalls(store, recorder, events.waiters, retention_s=settings.idempotency_retention_s)
    tasks.supervise(once.hold_forever(), name="idempotency key hold")
    tasks.supervise(once.purge_forever(), name="idempotency key purge")
    return Admission(submission.submit, lookup, once, max_result_bytes=settings.max_result_bytes)


def _schedules(store: Store, queue: CallQueue, events: CallEvents, tasks: TaskSet) -> Schedules:
    """The schedules, and the loop that fires them."""
    firings = Firings(store, queue, events)
    scheduler = Scheduler(store.schedules, firings.fire, firings.has_ended)
    tasks.supervise(scheduler.run_forever(), name="scheduler")
    return Schedules(store.schedules, wake=scheduler.wake)


def _events(recorder: Recorder, store: Store, tasks: TaskSet) -> CallEvents:
    events = CallEvents(Waiters())
    recorder.on_ended = events.waiters.wake
    if not store.database.is_sqlite:
        tasks.supervise(Relay(store.database, events).run_forever(), name="event relay")
    return events


def _engine_check(executor: Executor) -> Any:
    async def check() -> None:
        await executor.info()

    return check


def _serving_check(draining: asyncio.Event) -> Any:
    async def check() -> None:
        if draining.is_set():
            raise ShuttingDownError

    return check


def _add_probes(metrics: Metrics, queue: CallQueue, agent: Agent, capacity: Capacity, fleet: Fleet) -> None:
    async def probe_queue() -> None:
        depth = await queue.depth()
        metrics.set_queue(
            waiting=depth.waiting,
            delayed=depth.delayed,
            leased=depth.leased,
            oldest_waiting_s=depth.oldest_waiting_s,
        )

    async def probe_pool() -> None:
        pools = list(agent.pool)
        metrics.set_containers(
            {
                "starting": sum(pool.starting for pool in pools),
                "idle": sum(len(pool.idle) for pool in pools),
                "frozen": sum(len(pool.frozen) for pool in pools),
                "busy": sum(pool.busy for pool in pools),
                "stopping": sum(pool.stopping for pool in pools),
            }
        )
        metrics.set_capacity(used_mib=capacity.used_mib, total_mib=capacity.total_mib)

    async def probe_processes() -> None:
        await fleet.count()
        metrics.set_processes({0: agent.completed, **fleet.completed})

    metrics.add_probe(probe_queue)
    metrics.add_probe(probe_pool)
    metrics.add_probe(probe_processes)
