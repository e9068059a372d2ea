"""A primary and its satellites in one process: real pool, real borrowing, and messages that take a turn of the loop."""

from __future__ import annotations

import asyncio
import pickle
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from faas.metrics import Metrics
from faas.models import App, FormatName
from faas.processes import messages as m
from faas.processes.borrowing import BorrowingAgent
from faas.processes.lender import Lender
from faas.runner.formats.http_stream import HttpStreamFormat
from faas.runner.functions import FunctionTable
from faas.tasks import TaskSet
from tests.support.rig import KeepingSink, Rig, an_invocation
from tests.support.samples import a_route

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from faas.runner.functions import Function
    from faas.runner.invocation import Invocation


@dataclass(eq=False)
class Satellite:
    """One of them, both ends of its line."""

    town: Town
    agent: BorrowingAgent
    table: FunctionTable
    is_alive: bool = True
    said: list[m.Message] = field(default_factory=list)
    """What it has sent."""

    def send(self, message: m.Message) -> None:
        """The primary tells it something."""
        self._later(self._told, message)

    def say(self, message: m.Message) -> None:
        """It tells the primary something."""
        if self.is_alive:
            self.said.append(message)
            self._later(self._heard, message)

    def _later(self, hear: Any, message: m.Message) -> None:
        asyncio.get_running_loop().call_soon(hear, pickle.dumps(message))

    def _told(self, data: bytes) -> None:
        if self.is_alive:
            message = pickle.loads(data)
            agent = self.agent
            {
                m.Grant: agent.granted,
                m.Refusal: agent.refused,
                m.Recall: agent.recall,
                m.Settled: agent.settled,
                m.Output: agent.output,
            }[type(message)](message)

    def _heard(self, data: bytes) -> None:
        if self.is_alive:
            message = pickle.loads(data)
            lender = self.town.lender
            {
                m.Claim: lender.claim,
                m.Withdrawal: lender.withdraw,
                m.Return: lender.take_back,
                m.Recalled: lender.recalled,
                m.Break: lender.broke,
            }[type(message)](self, message)

    def call(self, function: Function, **changes: Any) -> tuple[Invocation, KeepingSink]:
        """Start a call there."""
        sink = KeepingSink(rig=self.town.rig)
        here = self.table.get(function.app_name, function.path)
        invocation = an_invocation(here, sink, **changes)
        self.agent.start(invocation)
        return invocation, sink

    async def ask(self, function: Function, **changes: Any) -> KeepingSink:
        """Run a call there to its end."""
        _, sink = self.call(function, **changes)
        async with asyncio.timeout(10):
            await sink.ended.wait()
        return sink

    async def die(self) -> None:
        """End as by SIGKILL: its connections break, and the primary sees the line close."""
        self.is_alive = False
        for line in self.agent._lines.values():
            for place in line.places:
                place.slot.detach()
        await self.agent.tasks.cancel()
        self.town.lender.lost(self)


@dataclass(eq=False)
class Town:
    """All of them."""

    rig: Rig
    lender: Lender
    table: FunctionTable
    tasks: TaskSet
    satellites: list[Satellite] = field(default_factory=list)
    ooms: int = 0

    def deploy(self, image: str, **changes: Any) -> Function:
        """Make or change a function, in all processes."""
        values = {"image": image, "path": f"/{image}", "format": FormatName.HTTP_STREAM, **changes}
        route = a_route(**values)
        for table in (self.table, *(one.table for one in self.satellites)):
            table.route_changed(App(name="demo"), route)
        return self.table.get("demo", route.path)

    def sweep(self) -> None:
        """As from time to time."""
        self.rig.agent.pool.sweep()
        for satellite in self.satellites:
            satellite.agent.sweep()

    async def settled(self) -> None:
        """Wait until nothing is under way, then the books must balance."""
        await self.tasks.wait(timeout_s=10)
        await self.rig.settled()


def _add_satellite(town: Town) -> None:
    table = FunctionTable(Metrics())
    agent = BorrowingAgent(
        table,
        HttpStreamFormat(max_header_bytes=64 * 1024),
        lambda message: satellite.say(message),
        queue_timeout_s=30.0,
        max_log_bytes=4096,
        observe=lambda _invocation: None,
    )
    table.on_retired = agent.retired
    satellite = Satellite(town, agent, table)
    town.satellites.append(satellite)
    town.tasks.spawn(agent.sweep_forever(), name="sweep").set_name("sweep")


@asynccontextmanager
async def running_town(rig: Rig, satellites: int) -> AsyncIterator[Town]:
    """A town on a rig; when the block ends, no call is left and no place is out."""
    async with TaskSet("town") as sweeps:
        tasks, table = TaskSet("loans"), FunctionTable(Metrics())
        agent = rig.agent
        table.on_changed, table.on_retired = agent.pool.adopt, agent.keeper.retire

        def oom() -> None:
            town.ooms += 1

        lender = Lender(agent.pool, agent.keeper, table, tasks, on_oom=oom)
        agent.refuse_other = lender.refuse
        town = Town(rig, lender, table, sweeps)
        for _ in range(satellites):
            _add_satellite(town)
        town.tasks = tasks
        yield town
        for satellite in town.satellites:
            if satellite.is_alive:
                await satellite.agent.close(5.0)
                assert not satellite.agent.running
        async with asyncio.timeout(5):
            while lender._loans:
                await asyncio.sleep(0)
        await tasks.wait(timeout_s=10)
        for satellite in town.satellites:
            await satellite.agent.tasks.cancel()
