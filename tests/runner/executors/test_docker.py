"""What only the Docker executor has to stand: an engine that is down, hangs, or loses its stream of events."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from faas.config import Settings
from faas.errors import EngineUnavailableError, ValidationError
from faas.models import PullPolicy
from faas.runner.executors import docker_exits
from faas.runner.executors.base import ContainerExit
from faas.runner.executors.docker import DockerExecutor, DockerOptions, Hardening
from tests.support.docker import DOCKER_HOST, MakeExecutor, Received, ScriptImages, script_spec
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import docker

ENGINE_SOCKET = DOCKER_HOST.removeprefix("unix://")


class Line:
    """A Unix socket in front of the engine's, which can be cut and closed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.host = f"unix://{path}"
        self.is_open = True
        self.requests: list[bytes] = []
        self._writers: list[tuple[bytes, asyncio.StreamWriter]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def cut(self, path: bytes = b"") -> None:
        """Break the connections whose request names the path."""
        for request, writer in self._writers:
            if path in request:
                writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.is_open:
            writer.close()
            return
        engine_reader, engine_writer = await asyncio.open_unix_connection(ENGINE_SOCKET)
        first = await reader.read(65536)
        self.requests.append(first)
        self._writers += [(first, writer), (first, engine_writer)]
        engine_writer.write(first)
        await asyncio.gather(self._pass_on(reader, engine_writer), self._pass_on(engine_reader, writer))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    folder = tempfile.mkdtemp(prefix="faas-line-")  # short: a socket's path has 108 bytes
    line = Line(Path(folder) / "engine.sock")
    server = await asyncio.start_unix_server(line.serve, line.path)
    yield line
    server.close()
    line.cut()
    await server.wait_closed()
    await asyncio.sleep(0)
    shutil.rmtree(folder)


def test_options_come_from_the_settings() -> None:
    settings = Settings(
        container_user="1:1", container_network="none", container_read_only=False, docker_auth="", network_pool=3
    )
    options = DockerOptions.from_settings(settings, installation_id="i", boot_id="b")
    assert options.hardening == Hardening(user="1:1", network="none", is_read_only=False)
    assert (options.engine_timeout_s, options.pull_timeout_s) == (settings.engine_timeout_s, settings.pull_timeout_s)
    assert options.network_pool == 3


@pytest.mark.parametrize("docker_host", ["tcp://127.0.0.1:2375", "unix:relative", "", "/var/run/docker.sock"])
def test_an_engine_behind_anything_but_a_unix_socket_is_refused(docker_host: str) -> None:
    with pytest.raises(ValidationError, match="unix:///PATH"):
        DockerExecutor(DockerOptions(installation_id="i", boot_id="b", docker_host=docker_host))


async def test_an_engine_that_is_down_is_unavailable_and_not_a_bad_image(tmp_path: Path) -> None:
    options = DockerOptions(installation_id="i", boot_id="b", docker_host=f"unix://{tmp_path}/nobody.sock")
    async with DockerExecutor(options) as executor:
        for pull in PullPolicy:
            with pytest.raises(EngineUnavailableError, match="is it running"):
                await executor.resolve_image("a/b", pull=pull)
        for asking in (executor.info(), executor.list_ours(), executor.remove("abc")):
            with pytest.raises(EngineUnavailableError):
                await asking


async def test_an_engine_that_hangs_is_given_up_and_blocks_nobody(tmp_path: Path) -> None:
    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(never_answer, tmp_path / "hung.sock")
    host = f"unix://{tmp_path}/hung.sock"
    options = DockerOptions(installation_id="i", boot_id="b", docker_host=host, engine_timeout_s=0.3)
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.01)
            beats += 1

    beating = asyncio.ensure_future(beat())
    async with DockerExecutor(options) as executor:
        with pytest.raises(EngineUnavailableError):
            await executor.info()
    assert beats > 10
    beating.cancel()
    server.close()
    await server.wait_closed()


@pytest.mark.docker
async def test_an_end_during_a_broken_stream_of_events_is_noticed(
    make_executor: MakeExecutor, line: Line, script_images: ScriptImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_exits, "RECONNECT_DELAYS_S", (0.5,))
    executor = make_executor(docker_host=line.host)
    direct = make_executor()
    image = await executor.resolve_image(script_images.script, pull=PullPolicy.NEVER)
    ends = await executor.create(script_spec(image, "exit 9"))
    stays = await executor.create(script_spec(image, "sleep 1000"))
    removed = await executor.create(script_spec(image, "sleep 1000"))
    await stays.start()
    await removed.start()
    await wait_until(lambda: any(b"/events" in request for request in line.requests))

    line.cut(b"/events")
    await ends.start()
    await direct.remove(removed.id)
    assert await asyncio.wait_for(ends.wait(), 5) == ContainerExit(exit_code=9)
    assert (await asyncio.wait_for(removed.wait(), 5)).exit_code == 137
    waiting = asyncio.ensure_future(stays.wait())
    await stays.kill()
    assert (await waiting).exit_code == 137
    await ends.remove()
    await stays.remove()


@pytest.mark.docker
async def test_an_end_that_the_engine_tells_of_before_its_list_does_is_noticed(
    make_executor: MakeExecutor,
    line: Line,
    script_images: ScriptImages,
    docker_client: docker.APIClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def list_that_lags(_self: docker_exits.ExitWatcher) -> None:
        """The engine's list, a moment ago: nothing has ended."""

    monkeypatch.setattr(docker_exits, "RECONNECT_DELAYS_S", (0.5,))
    monkeypatch.setattr(docker_exits.ExitWatcher, "_sync", list_that_lags)
    executor = make_executor(docker_host=line.host)
    image = await executor.resolve_image(script_images.script, pull=PullPolicy.NEVER)
    container = await executor.create(script_spec(image, "exit 9"))
    await wait_until(lambda: any(b"/events" in request for request in line.requests))
    line.is_open = False
    line.cut(b"/events")
    docker_client.start(container.id)
    docker_client.wait(container.id)
    line.is_open = True
    assert await asyncio.wait_for(container.wait(), 10) == ContainerExit(exit_code=9)
    await container.remove()


@pytest.mark.docker
async def test_an_event_that_never_comes_is_made_up_for_by_asking(
    make_executor: MakeExecutor, line: Line, script_images: ScriptImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_exits, "RESYNC_INTERVAL_S", 0.2)
    monkeypatch.setattr(docker_exits.ExitWatcher, "_handle", lambda _self, _event: None)
    executor = make_executor(docker_host=line.host)
    image = await executor.resolve_image(script_images.script, pull=PullPolicy.NEVER)
    container = await executor.create(script_spec(image, "exit 9"))
    await container.start()
    assert await asyncio.wait_for(container.wait(), 5) == ContainerExit(exit_code=9)
    oom = await executor.create(script_spec(image, "exec tail /dev/zero"))
    await oom.start()
    assert await asyncio.wait_for(oom.wait(), 5) == ContainerExit(exit_code=137, is_oom=True)
    killed = await executor.create(script_spec(image, "sleep 1000"))
    await killed.start()
    await killed.kill()
    assert (await killed.wait()).exit_code == 137
    for each in (container, oom, killed):
        await each.remove()


@pytest.mark.docker
async def test_an_engine_that_comes_back_is_used_again(
    make_executor: MakeExecutor, line: Line, script_images: ScriptImages
) -> None:
    executor = make_executor(docker_host=line.host)
    image = await executor.resolve_image(script_images.script, pull=PullPolicy.NEVER)
    container = await executor.create(script_spec(image, "sleep 1000"))
    received = Received()
    await container.attach(received)
    await container.start()
    line.is_open = False
    line.cut()
    await wait_until(lambda: received.ended == 1)
    with pytest.raises(EngineUnavailableError):
        await container.kill()
    line.is_open = True
    await container.kill()
    assert (await container.wait()).exit_code == 137
    await container.remove()


@pytest.mark.docker
async def test_networks_are_made_ahead_as_soon_as_the_engine_answers(make_executor: MakeExecutor, line: Line) -> None:
    line.is_open = False
    async with make_executor(docker_host=line.host, network_pool=1) as executor:
        with pytest.raises(EngineUnavailableError):
            await executor.info()
        line.is_open = True
        await wait_until(lambda: "1 of 1 free" in repr(executor), timeout_s=60)


async def test_a_network_that_containers_share_with_the_host_is_not_made_ahead() -> None:
    options = DockerOptions(installation_id="i", boot_id="b", hardening=Hardening(network="host"), network_pool=8)
    async with DockerExecutor(options) as executor:
        assert "0 of 0 free" in repr(executor)


@pytest.mark.docker
async def test_a_container_that_waits_costs_no_thread(
    docker_executor: DockerExecutor, script_images: ScriptImages
) -> None:
    image = await docker_executor.resolve_image(script_images.script, pull=PullPolicy.NEVER)
    containers = [await docker_executor.create(script_spec(image, "true")) for _ in range(40)]
    waiting = [asyncio.ensure_future(container.wait()) for container in containers]
    await docker_executor.info()
    assert len(os.listdir("/proc/self/task")) < 40
    await asyncio.gather(*(container.remove() for container in containers))
    await asyncio.gather(*waiting)
