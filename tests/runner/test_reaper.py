"""What is left behind is removed, and nothing else."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from faas.clock import utc_now
from faas.errors import EngineError, EngineUnavailableError
from faas.models import PullPolicy
from faas.runner.executors.base import ContainerInfo
from faas.runner.reaper import PARALLEL_REMOVALS, Reaper
from tests.support.docker import MakeExecutor, ScriptImages, script_spec
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

BOOT = "this-boot"


class Engine:
    """Lists what it is given, forgets what is removed; removals of `stuck` ids fail."""

    def __init__(self, *containers: ContainerInfo) -> None:
        self.containers = {info.id: info for info in containers}
        self.stuck: set[str] = set()
        self.is_down = False
        self.at_once = self.most_at_once = 0

    async def list_ours(self) -> list[ContainerInfo]:
        if self.is_down:
            raise EngineUnavailableError("down")
        return list(self.containers.values())

    async def remove(self, container_id: str) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        if container_id in self.stuck:
            raise EngineError("device or resource busy")
        self.containers.pop(container_id, None)

    def reaper(self, *, known: tuple[str, ...] = (), **options: object) -> Reaper:
        return Reaper(
            boot_id=BOOT,
            list_ours=self.list_ours,
            remove=self.remove,
            is_known=lambda container_id: container_id in known,
            **options,  # type: ignore[arg-type]
        )


def container(name: str, *, boot: str = BOOT, state: str = "running", age_s: float = 0) -> ContainerInfo:
    created_at = utc_now() - timedelta(seconds=age_s)
    return ContainerInfo(id=name, name=name, boot_id=boot, state=state, created_at=created_at)


async def test_at_start_every_container_of_another_boot_goes_in_whatever_state() -> None:
    states = ("created", "running", "paused", "restarting", "exited", "dead", "removing")
    engine = Engine(*(container(state, boot="old", state=state) for state in states), container("mine", age_s=1e6))
    assert await engine.reaper().reap_other_boots() == len(states)
    assert engine.containers.keys() == {"mine"}


async def test_later_the_forgotten_of_this_boot_go_too_but_not_those_in_the_making() -> None:
    engine = Engine(
        container("known", age_s=1000), container("forgotten", age_s=1000), container("young"), container("x", boot="")
    )
    assert await engine.reaper(known=("known",)).reap() == 2
    assert engine.containers.keys() == {"known", "young"}


async def test_a_container_without_an_age_is_never_taken_for_forgotten() -> None:
    engine = Engine(ContainerInfo(id="ageless", name="", boot_id=BOOT, state="running"))
    assert await engine.reaper().reap() == 0
    assert engine.containers


async def test_what_can_not_be_removed_is_tried_again_and_holds_up_nothing(caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine(container("stuck", boot="old"), container("other", boot="old"))
    engine.stuck = {"stuck"}
    reaper = engine.reaper()
    assert await reaper.reap_other_boots() == 1
    assert "container_reap_failed" in caplog.messages
    engine.stuck = set()
    assert await reaper.reap() == 1
    assert not engine.containers


async def test_an_engine_that_is_down_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine(container("left", boot="old"))
    engine.is_down = True
    reaping = asyncio.ensure_future(engine.reaper(interval_s=0.001).run())
    await wait_until(lambda: "reap_failed" in caplog.messages)
    engine.is_down = False
    await wait_until(lambda: not engine.containers)
    reaping.cancel()


async def test_only_a_few_are_removed_at_the_same_time() -> None:
    engine = Engine(*(container(str(number), boot="old") for number in range(50)))
    assert await engine.reaper().reap_other_boots() == 50
    assert engine.most_at_once == PARALLEL_REMOVALS


# --- socket folders


def folder(parent: Path, name: str, *, age_s: float = 0) -> Path:
    path = parent / name
    path.mkdir()
    (path / "lsnr.sock").touch()
    modified_at = utc_now().timestamp() - age_s
    os.utime(path, (modified_at, modified_at))
    return path


async def test_at_start_all_socket_folders_that_nobody_uses_go(tmp_path: Path) -> None:
    old, used = folder(tmp_path, "old"), folder(tmp_path, "used")
    (tmp_path / "a-file").touch()
    (tmp_path / "a-link").symlink_to(used)
    reaper = Engine().reaper(sockets_dir=tmp_path, is_socket_dir_known=lambda name: name == "used")
    await reaper.reap_other_boots()
    assert not old.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"used", "a-file", "a-link"}
    assert (used / "lsnr.sock").exists()


async def test_later_only_old_socket_folders_go(tmp_path: Path) -> None:
    folder(tmp_path, "stale", age_s=1000)
    folder(tmp_path, "in-the-making")
    await Engine().reaper(sockets_dir=tmp_path, is_socket_dir_known=lambda _name: False).reap()
    assert {path.name for path in tmp_path.iterdir()} == {"in-the-making"}


async def test_a_folder_of_sockets_that_does_not_exist_is_no_error(tmp_path: Path) -> None:
    reaper = Engine().reaper(sockets_dir=tmp_path / "nowhere", is_socket_dir_known=lambda _name: False)
    assert await reaper.reap_other_boots() == 0


# --- for real


@pytest.mark.docker
async def test_after_a_crash_the_next_boot_removes_what_the_last_one_left_and_nobody_elses(
    make_executor: MakeExecutor, script_images: ScriptImages, installation_id: str
) -> None:
    crashed, present = make_executor(boot_id="crashed"), make_executor(boot_id=BOOT)
    stranger = make_executor(installation_id=f"{installation_id}-other", boot_id="crashed")
    image = await crashed.resolve_image(script_images.script, pull=PullPolicy.NEVER)
    forever = script_spec(image, "sleep 1000", with_stdin=True)
    _created, running, paused, ended = [await crashed.create(forever) for _ in range(4)]
    for left in (running, paused, ended):
        await left.start()
    await paused.pause()
    await ended.kill()
    mine, theirs = await present.create(forever), await stranger.create(forever)
    await crashed.close()

    reaper = Reaper(boot_id=BOOT, list_ours=present.list_ours, remove=present.remove, is_known=lambda _id: True)
    assert await reaper.reap_other_boots() == 4
    assert [info.id for info in await present.list_ours()] == [mine.id]
    assert [info.id for info in await stranger.list_ours()] == [theirs.id]
    await mine.remove()
    await theirs.remove()
