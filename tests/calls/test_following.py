"""A follower hears all of a call once: from the beginning, from the middle, while it runs and long afterwards."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from faas.calls import following as following_module
from faas.calls.events import CallEvents
from faas.calls.following import CallEnded, Following, LogLine, Told
from faas.calls.history import AttemptEnded, Position
from faas.errors import CallNotFoundError, EngineUnavailableError
from faas.ids import new_id
from faas.models import App, CallLog, CallStatus
from faas.tasks import TaskSet
from tests.support.rig import KeepingSink, an_invocation
from tests.support.samples import a_call, a_request, a_route
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from faas.models import Call
    from tests.test_calls import Desk

END_S = 10.0


@dataclass
class Talker:
    """A function that says what the test wants, when the test wants."""

    said: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)

    async def program(self, process: Any) -> None:
        while (line := await self.said.get()) is not None:
            process.write_error(line)

    def say(self, *lines: bytes | None) -> None:
        """Have it write these, and end at None."""
        for line in lines:
            self.said.put_nowait(line)


def in_words(told: Told) -> str:
    news = told.news
    if isinstance(news, LogLine):
        return f"log {news.attempt} {news.line.decode()!r}"
    if isinstance(news, AttemptEnded):
        return f"ended {news.attempt.number}"
    return "end" if isinstance(news, CallEnded) else news.status.value


@pytest.fixture(autouse=True)
def _no_lookout(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told was notified: nobody looks by himself within a test's time."""
    monkeypatch.setattr(following_module, "POLL_S", 60.0)


@pytest.fixture
def talker(desk: Desk) -> Talker:
    talker = Talker()
    desk.rig.executor.programs["talk"] = talker.program
    desk.table.route_changed(App(name="demo"), a_route(image="talk", path="/talk"))
    return talker


@pytest.fixture
def following(desk: Desk) -> Following:
    return Following(desk.lookup, desk.events, desk.rig.agent)


@pytest.fixture
async def tasks() -> AsyncIterator[TaskSet]:
    async with TaskSet("test") as tasks:
        yield tasks


class Follower:
    """Follows a call in a task of its own."""

    def __init__(self, following: Following, call_id: str, tasks: TaskSet, after: Position | None = None) -> None:
        self.told: list[Told] = []
        self._following = following
        self._call_id = call_id
        self._after = after or Position()
        self.task = tasks.spawn(self._follow(), name="follower")

    @property
    def words(self) -> list[str]:
        return [in_words(one) for one in self.told]

    async def _follow(self) -> None:
        async with aclosing(self._following.follow(self._call_id, self._after)) as stream:
            async for told in stream:
                self.told += told

    async def hears(self, count: int) -> list[str]:
        """The words once there are so many."""
        await wait_until(lambda: len(self.told) >= count or self.task.done())
        return self.words

    async def end(self) -> list[str]:
        """The words once there are all."""
        async with asyncio.timeout(END_S):
            await self.task
        return self.words


async def everything(following: Following, call_id: str, after: Position | None = None) -> list[str]:
    return [
        in_words(one)
        for batch in [one async for one in following.follow(call_id, after or Position())]
        for one in batch
    ]


TALKED = ["queued", "running", "log 1 'one\\n'", "log 1 'two\\n'", "log 1 'half'", "ended 1", "success", "end"]


async def test_states_and_log_lines_are_told_as_they_come(
    desk: Desk, following: Following, talker: Talker, tasks: TaskSet
) -> None:
    call = await desk.submit("talk")
    follower = Follower(following, call.id, tasks)
    assert await follower.hears(1) == TALKED[:1]
    run = tasks.spawn(desk.execution.run(call.id), name="run")
    assert await follower.hears(2) == TALKED[:2]
    talker.say(b"one\n")
    assert await follower.hears(3) == TALKED[:3]
    talker.say(b"two\nha")
    assert await follower.hears(4) == TALKED[:4], "half a line waits for the rest"
    talker.say(b"lf", None)
    assert await follower.end() == TALKED
    await run
    assert repr(desk.events) == "<CallEvents 0 calls waited for, 0 apps watched>"


async def test_a_call_that_waits_on_its_way_to_a_container_is_followed_into_it(
    desk: Desk, following: Following, talker: Talker, tasks: TaskSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = asyncio.Event()

    class Share:
        @asynccontextmanager
        async def taken(self, _memory_mib: float) -> AsyncIterator[None]:
            await gate.wait()
            yield

    monkeypatch.setattr(desk.execution, "_share", Share())
    looks: list[str] = []
    now = desk.lookup.now

    async def counted(call_id: str) -> Call:
        call = await now(call_id)
        looks.append(call.status.value)
        return call

    monkeypatch.setattr(desk.lookup, "now", counted)
    call = await desk.submit("talk")
    follower = Follower(following, call.id, tasks)
    await follower.hears(1)
    run = tasks.spawn(desk.execution.run(call.id), name="run")
    await wait_until(lambda: looks.count("queued") >= 2, timeout_s=END_S)
    gate.set()
    talker.say(b"one\n")
    assert await follower.hears(3) == TALKED[:3]
    talker.say(None)
    await follower.end()
    await run


async def test_a_call_that_ended_long_ago_is_told_whole(desk: Desk, following: Following, talker: Talker) -> None:
    talker.say(b"one\ntwo\n", b"half", None)
    call = await desk.submit("talk")
    await desk.execution.run(call.id)
    assert await everything(following, call.id) == TALKED


async def test_who_comes_back_hears_exactly_what_he_has_missed(
    desk: Desk, following: Following, talker: Talker, tasks: TaskSet
) -> None:
    talker.say(b"one\ntwo\n", b"half", None)
    call = await desk.submit("talk")
    await desk.execution.run(call.id)
    follower = Follower(following, call.id, tasks)
    await follower.end()
    for index, one in enumerate(follower.told[:-1], 1):
        assert await everything(following, call.id, Position.parse(str(one.position))) == TALKED[index:]


async def test_an_attempt_that_did_not_happen_and_the_next_are_both_told(
    desk: Desk, following: Following, talker: Talker, tasks: TaskSet
) -> None:
    desk.rig.executor.fail("create", EngineUnavailableError("The engine is away"))
    call = await desk.submit("talk")
    follower = Follower(following, call.id, tasks)
    assert await desk.execution.run(call.id) is not None
    talker.say(b"one\n", None)
    await desk.execution.run(call.id)
    assert await follower.end() == [
        *("queued", "running", "ended 1", "queued"),
        *("running", "log 2 'one\\n'", "ended 2", "success", "end"),
    ]


async def test_who_was_told_more_by_another_node_goes_on_when_this_one_knows_it_too(
    desk: Desk, following: Following, tasks: TaskSet
) -> None:
    call = await desk.submit()
    follower = Follower(following, call.id, tasks, after=Position(changes=2))
    await wait_until(lambda: len(desk.waiters) == 1)
    await desk.execution.run(call.id)
    assert await follower.end() == ["ended 1", "success", "end"]


async def test_a_cancelled_call_is_told_to_its_end(desk: Desk, following: Following, tasks: TaskSet) -> None:
    call = await desk.submit()
    follower = Follower(following, call.id, tasks)
    await follower.hears(1)
    await desk.control.cancel(call.id)
    assert await follower.end() == ["queued", "cancelled", "end"]


async def test_a_sync_call_can_be_followed(desk: Desk, following: Following, talker: Talker, tasks: TaskSet) -> None:
    invocation = an_invocation(desk.function("talk"), KeepingSink())
    desk.rig.agent.start(invocation)
    follower = Follower(following, invocation.id, tasks)
    assert (await follower.hears(2))[:2] == ["queued", "running"]
    talker.say(b"one\n")
    assert await follower.hears(3) == ["queued", "running", "log 1 'one\\n'"]
    talker.say(None)
    assert await follower.end() == ["queued", "running", "log 1 'one\\n'", "ended 1", "success", "end"]


async def test_a_log_is_followed_line_by_line_until_the_end(
    desk: Desk, following: Following, talker: Talker, tasks: TaskSet
) -> None:
    talker.say(b"one\n\xff", b"two\r\n\n", b"half", None)
    call = await desk.submit("talk")
    run = tasks.spawn(desk.execution.run(call.id), name="run")
    log = b"".join([lines async for lines in following.follow_log(call.id)])
    await run
    assert log == b"one\n\xfftwo\r\n\nhalf" == (await desk.lookup.log(call.id)).data


async def test_a_long_log_comes_in_parts_and_whole(
    desk: Desk, following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following_module, "LOG_PART_BYTES", 10)
    data = b"x" * 35 + b"\n" + b"".join(b"%d\n" % number for number in range(50)) + b"tail"
    call = await ended_call(desk, data)
    batches = [one async for one in following.follow(call.id, Position())]
    lines = [one.news.line for batch in batches for one in batch if isinstance(one.news, LogLine)]
    assert b"".join(lines) == data
    assert max(sum(len(one.news.line) for one in batch if isinstance(one.news, LogLine)) for batch in batches) <= 10


async def ended_call(desk: Desk, log: bytes) -> Call:
    call = a_call()
    await desk.store.calls.insert(call, a_request())
    begun = await desk.store.calls.begin_attempt(call.id, node="other", started_at=call.created_at)
    assert begun is not None
    done = begun.ended(CallStatus.SUCCESS, completed_at=call.created_at)
    assert await desk.store.calls.finish(done, begun.attempts[-1], None, CallLog(data=log))
    return done


async def test_nothing_for_a_while_is_a_sign_of_life(
    desk: Desk, following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following_module, "HEARTBEAT_S", 0.01)
    call = await desk.submit()
    async with aclosing(following.follow(call.id, Position())) as stream:
        assert [in_words(one) for one in await anext(stream)] == ["queued"]
        assert await anext(stream) == []
        assert await anext(stream) == []
    assert repr(desk.events) == "<CallEvents 0 calls waited for, 0 apps watched>"


async def test_a_node_that_shuts_down_ends_the_stream_before_the_call(
    desk: Desk, following: Following, tasks: TaskSet
) -> None:
    call = await desk.submit()
    follower = Follower(following, call.id, tasks)
    await follower.hears(1)
    desk.events.close()
    assert await follower.end() == ["queued"]


async def test_a_call_that_is_not_there_can_not_be_followed(following: Following) -> None:
    with pytest.raises(CallNotFoundError):
        await anext(following.follow(new_id(), Position()))


async def test_a_lost_notification_is_made_good_by_the_next_look(
    desk: Desk, tasks: TaskSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following_module, "POLL_S", 0.01)
    deaf = Following(desk.lookup, CallEvents(type(desk.waiters)()), desk.rig.agent)
    call = await desk.submit()
    follower = Follower(deaf, call.id, tasks)
    await follower.hears(1)
    await desk.execution.run(call.id)
    assert await follower.end() == ["queued", "running", "ended 1", "success", "end"]
