"""The satellites of one node: started, kept informed, asked, started again when they die, ended.

Towards the rest of the node it is a listener of the catalog, the other processes of `Calls`, and a probe of `Metrics`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from faas.calls.lookup import Stats
from faas.clock import monotonic
from faas.errors import FaasError
from faas.processes import messages as m
from faas.processes.member import Member

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from faas.catalog import CatalogListener
    from faas.metrics import Metrics
    from faas.models import App, Route
    from faas.processes.lender import Lender
    from faas.recorder import CallView, Recorder
    from faas.tasks import TaskSet

__all__ = ["Fleet"]

logger = logging.getLogger(__name__)

START_S = 30.0
"""How long the node's start waits for its satellites; one that is later serves later."""

FIRST_PAUSE_S = 0.2
LAST_PAUSE_S = 30.0
STEADY_S = 10.0
"""A satellite that dies is started again after a pause, doubled each time, until one has lived so long."""

LAST_WORDS_S = 5.0
"""How much longer than its calls may take a satellite may live when it shall end."""


class Fleet:
    """See above; of none, too, in a node that is one process."""

    def __init__(
        self,
        count: int,
        options: m.Options,
        lender: Lender,
        table: CatalogListener,
        *,
        recorder: Recorder,
        metrics: Metrics,
        tasks: TaskSet,
    ) -> None:
        self._count = count
        self._options = options
        self._lender = lender
        self._table = table
        self._recorder = recorder
        self._metrics = metrics
        self._tasks = tasks
        self._apps: dict[str, App] = {}
        self._routes: dict[tuple[str, str], tuple[App, Route]] = {}
        """What a satellite must know when it starts."""
        self._members: dict[int, Member] = {}
        """Those that live, by number from 1."""
        self._keepers: list[asyncio.Task[None]] = []
        self._completed_before = 0
        """Calls of satellites that are dead."""
        self._is_stopping = False
        self._listen: Callable[[], list[socket.socket]]
        self._adopt: Callable[[int, bytes], None]

    def __repr__(self) -> str:
        return f"<Fleet {len(self._members)} of {self._count}>"

    @property
    def is_alone(self) -> bool:
        """Whether the node is one process."""
        return not self._count

    # --- CatalogListener

    def app_changed(self, app: App) -> None:
        """An app exists."""
        self._table.app_changed(app)
        self._apps[app.name] = app
        self._tell(m.AppChanged(app=app))

    def app_removed(self, app_name: str) -> None:
        """An app is gone."""
        self._table.app_removed(app_name)
        self._apps.pop(app_name, None)
        self._tell(m.AppRemoved(app_name=app_name))

    def route_changed(self, app: App, route: Route) -> None:
        """A route was made or changed."""
        self._table.route_changed(app, route)
        self._apps[app.name] = app
        self._routes[route.app_name, route.path] = app, route
        self._tell(m.RouteChanged(app=app, route=route))

    def route_removed(self, app_name: str, path: str) -> None:
        """A route is gone."""
        self._table.route_removed(app_name, path)
        self._routes.pop((app_name, path), None)
        self._tell(m.RouteRemoved(app_name=app_name, path=path))

    async def obeyed(self) -> None:
        """Return when all satellites do what the catalog has told; a stuck one is waited for a second."""
        await self._ask_all(lambda number: m.Mark(number=number))

    def _tell(self, message: m.Message) -> None:
        for member in self._members.values():
            member.send(message)

    async def _ask_all(self, make: Callable[[int], m.Message]) -> list[CallView | None]:
        return await asyncio.gather(*(member.ask(make) for member in list(self._members.values())))

    # --- Siblings

    async def find(self, call_id: str) -> CallView | None:
        """What the satellite that runs, or lately ran, a call knows of it."""
        views = await self._ask_all(lambda number: m.FindCall(number=number, call_id=call_id))
        return next((view for view in views if view is not None), None)

    async def cancel(self, call_id: str) -> bool:
        """Begin to end a call; whether it runs in a satellite."""
        views = await self._ask_all(lambda number: m.CancelCall(number=number, call_id=call_id))
        return any(view is not None for view in views)

    async def stats(self) -> Sequence[Stats]:
        """How much each has to do, now."""
        await self.count()
        reports = [member.report for member in self._members.values() if member.report is not None]
        return [
            Stats(queue=0, running=0, complete=self._completed_before),
            *(Stats(queue=one.waiting, running=one.running, complete=one.completed) for one in reports),
        ]

    async def count(self) -> None:
        """Have everything counted here that ended before this was asked."""
        await self._ask_all(lambda number: m.Count(number=number))

    @property
    def completed(self) -> dict[int, int]:
        """Calls that ended in each satellite that lives, as of its last report."""
        reports = ((number, member.report) for number, member in self._members.items())
        return {number: report.completed if report is not None else 0 for number, report in reports}

    # --- their life

    async def start(self, listen: Callable[[], list[socket.socket]], adopt: Callable[[int, bytes], None]) -> None:
        """Start all; returns when they serve, or `START_S` have passed.

        `listen` makes the sockets of one satellite, `adopt` takes a client's connection with what came on it.
        """
        self._listen = listen
        self._adopt = adopt
        loop = asyncio.get_running_loop()
        served = [loop.create_future() for _ in range(self._count)]
        for number, first in enumerate(served, 1):
            self._keepers.append(self._tasks.spawn(self._keep(number, first), name=f"satellite {number}"))
        if served:
            await asyncio.wait(served, timeout=START_S)

    async def _keep(self, number: int, served: asyncio.Future[None]) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._is_stopping:
            began = monotonic()
            member = self._make(number)
            try:
                await member.spawn(self._listen())
            except (OSError, FaasError) as error:
                logger.error("satellite_not_started", extra={"number": number, "error": str(error)})  # noqa: TRY400
            else:
                self._members[number] = member
                self._introduce(member)
                if await member.ready and not served.done():
                    served.set_result(None)
                await member.gone
                del self._members[number]
                assert member.process is not None
                code = await member.process.wait()
                self._completed_before += member.report.completed if member.report is not None else 0
                if not self._is_stopping:
                    logger.error("satellite_died", extra={"number": number, "exit_code": code})
            if not self._is_stopping:
                pause_s = FIRST_PAUSE_S if monotonic() - began > STEADY_S else pause_s
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, LAST_PAUSE_S)

    def _make(self, number: int) -> Member:
        return Member(
            number,
            self._lender,
            {
                m.Handover: lambda message, fd: self._adopt(fd, message.data),
                m.Records: lambda message, _fd: self._write(message),
                m.CallEnded: lambda message, _fd: self._recorder.on_ended(message.call_id),
            },
            on_report=self._counted,
        )

    def _introduce(self, member: Member) -> None:
        member.send(m.Begin(options=self._options))
        for app in self._apps.values():
            member.send(m.AppChanged(app=app))
        for app, route in self._routes.values():
            member.send(m.RouteChanged(app=app, route=route))
        member.send(m.Serve())

    def _write(self, message: m.Records) -> None:
        self._tasks.spawn(self._recorder.write(message.calls), name="satellite records")

    def _counted(self, report: m.Report) -> None:
        for app_name, path, call_type, counted in report.routes:
            self._metrics.add_calls(app_name, path, call_type, counted)
        if report.dropped_records:
            self._metrics.records_dropped(report.dropped_records)

    async def stop(self, grace_s: float) -> None:
        """Have them accept nothing more, end their calls, and end; kill what is left after `grace_s`."""
        self._is_stopping = True
        self._tell(m.Stop())
        for number, keeper in enumerate(self._keepers, 1):
            if number not in self._members:
                keeper.cancel()  # it waits to start another one
        if self._keepers:
            _, late = await asyncio.wait(self._keepers, timeout=grace_s + LAST_WORDS_S)
            for member in list(self._members.values()) if late else ():
                logger.error("satellite_killed", extra={"number": member.number})
                member.kill()
            if late:
                await asyncio.wait(late)

    def hurry(self) -> None:
        """Have them wait for nothing."""
        self._tell(m.Hurry())
