"""Waiting for a container's socket without trusting the container."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

import pytest

from faas.errors import StartFailedError
from faas.runner.formats.socket_watch import SocketWatch, open_socket
from tests.support.programs import listening_socket

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.both_loops

NAME = "lsnr.sock"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "iofs"
    folder.mkdir()
    return folder


@pytest.fixture
def listener(folder: Path) -> Iterator[socket.socket]:
    """A socket under another name, as Fn's contract has it."""
    with listening_socket(folder, "phony.sock") as listener:
        yield listener


async def never() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


async def test_a_relative_link_to_a_socket_means_ready(folder: Path, listener: socket.socket) -> None:
    with SocketWatch(folder, NAME) as watch:
        waiting = asyncio.create_task(watch.appeared(unless=await never()))
        await asyncio.sleep(0.01)
        (folder / "other").touch()
        await asyncio.sleep(0.01)
        assert not waiting.done()
        (folder / NAME).symlink_to("phony.sock")
        assert await asyncio.wait_for(waiting, 5) is True
    with open_socket(folder, NAME) as path, socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        listener.accept()[0].close()


async def test_a_link_that_was_there_before_the_wait_is_seen(folder: Path, listener: socket.socket) -> None:
    with SocketWatch(folder, NAME) as watch:
        (folder / NAME).symlink_to("phony.sock")
        assert await watch.appeared(unless=await never())


async def test_a_link_that_was_there_before_the_watch_is_seen(folder: Path, listener: socket.socket) -> None:
    (folder / NAME).symlink_to("phony.sock")
    with SocketWatch(folder, NAME) as watch:
        assert await watch.appeared(unless=await never())


async def test_a_name_that_is_moved_into_place_is_seen(folder: Path, listener: socket.socket) -> None:
    (folder / "new").symlink_to("phony.sock")
    with SocketWatch(folder, NAME) as watch:
        waiting = asyncio.create_task(watch.appeared(unless=await never()))
        await asyncio.sleep(0.01)
        (folder / "new").rename(folder / NAME)
        assert await asyncio.wait_for(waiting, 5)


async def test_a_socket_bound_under_the_name_itself_will_do(folder: Path) -> None:
    with listening_socket(folder, NAME), SocketWatch(folder, NAME) as watch:
        assert await watch.appeared(unless=await never())


async def test_a_container_that_ends_first_never_gets_ready(folder: Path) -> None:
    ended = await never()
    with SocketWatch(folder, NAME) as watch:
        waiting = asyncio.create_task(watch.appeared(unless=ended))
        await asyncio.sleep(0.01)
        ended.set_result(None)
        assert await asyncio.wait_for(waiting, 5) is False
        (folder / "other").touch()
        assert await watch.appeared(unless=ended) is False


async def test_a_watch_leaves_no_file_open_and_no_reader_behind(folder: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with SocketWatch(folder, NAME) as watch:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(watch.appeared(unless=await never()), 0.005)
            with pytest.raises(StartFailedError), open_socket(folder, NAME):
                pass
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    "target",
    [
        "{outside}/real.sock",
        "../outside/real.sock",
        "./../outside/real.sock",
        "{inside}/phony.sock",
        "./phony.sock",
        "..",
        ".",
        "nowhere",
        "second-link",
        NAME,
        "plain-file",
        "a-folder",
        "/var/run/docker.sock",
    ],
)
async def test_a_link_that_leads_anywhere_else_is_refused(
    folder: Path, tmp_path: Path, listener: socket.socket, target: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (folder / "second-link").symlink_to("phony.sock")
    (folder / "plain-file").touch()
    (folder / "a-folder").mkdir()
    (folder / NAME).symlink_to(target.format(outside=outside, inside=folder))
    refused = pytest.raises(StartFailedError, match="Container failed to initialize")
    with listening_socket(outside, "real.sock"), SocketWatch(folder, NAME) as watch, refused:
        await watch.appeared(unless=await never())


async def test_a_folder_that_became_a_link_is_refused(folder: Path, tmp_path: Path, listener: socket.socket) -> None:
    (folder / NAME).symlink_to("phony.sock")
    link = tmp_path / "link"
    link.symlink_to(folder)
    with pytest.raises(OSError), open_socket(link, NAME):  # noqa: PT011 - which one differs between kernels
        pass
