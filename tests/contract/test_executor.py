"""What every `Executor` promises, against the real engine."""

from __future__ import annotations

import asyncio
import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from faas.errors import EngineError, ImageNotAvailableError, ImageUnusableError
from faas.models import PullPolicy
from faas.runner.executors.base import Container, ContainerExit, ContainerSpec, Executor, Image, Limits, Pausable
from faas.runner.executors.docker_spec import ROLE_LABEL
from tests.support.docker import MakeExecutor, Received, ScriptImages, script_spec
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from faas.runner.executors.base import ContainerInfo, Stdio

pytestmark = pytest.mark.docker

KILLED = 137
ALL_BYTES = bytes(range(256))
FOREVER = "trap exit TERM; while :; do sleep 0.05; done"


async def listed(executor: Executor) -> list[ContainerInfo]:
    """The containers that were asked for; what an executor makes for itself in the background comes and goes."""
    return [info for info in await executor.list_ours() if ROLE_LABEL not in info.labels]


@pytest.fixture(params=["docker", "pooled_docker"])
def executor(request: pytest.FixtureRequest) -> Executor:
    """Each implementation in turn."""
    executor: Executor = request.getfixturevalue(f"{request.param}_executor")
    return executor


@pytest.fixture
async def image(executor: Executor, script_images: ScriptImages) -> Image:
    return await executor.resolve_image(script_images.script, pull=PullPolicy.NEVER)


async def start(executor: Executor, spec: ContainerSpec) -> tuple[Container, Received, Stdio]:
    container = await executor.create(spec)
    received = Received()
    stdio = await container.attach(received)
    await container.start()
    return container, received, stdio


async def run(executor: Executor, spec: ContainerSpec, stdin: bytes | None = None) -> tuple[ContainerExit, Received]:
    container, received, stdio = await start(executor, spec)
    try:
        if stdin is not None:
            stdio.write(stdin)
            stdio.write_eof()
        ended = await container.wait()
        await wait_until(lambda: received.ended)
    finally:
        await container.remove()
    return ended, received


# --- images


async def test_an_image_on_the_engine_is_found_without_a_registry(
    executor: Executor, script_images: ScriptImages
) -> None:
    missing = await executor.resolve_image(script_images.script, pull=PullPolicy.MISSING)
    never = await executor.resolve_image(script_images.script, pull=PullPolicy.NEVER)
    assert missing == never
    assert missing.reference == script_images.script
    assert missing.digest.startswith("sha256:")
    assert missing.user == ""
    assert missing.size_bytes > 0


async def test_the_images_own_user_is_told(executor: Executor, script_images: ScriptImages) -> None:
    assert (await executor.resolve_image(script_images.user, pull=PullPolicy.NEVER)).user == "1234:1234"


@pytest.mark.parametrize("pull", PullPolicy)
async def test_an_image_that_nobody_has_is_refused_with_its_name(executor: Executor, pull: PullPolicy) -> None:
    with pytest.raises(ImageNotAvailableError, match=r"registry\.invalid/nobody/has-it:1"):
        await executor.resolve_image("registry.invalid/nobody/has-it:1", pull=pull)


@pytest.mark.parametrize("reference", ["Upper/Case", "has space", "", "a//b", "x" * 300, "name:tag:tag", "-bad-.x/y"])
async def test_what_is_no_reference_is_refused_as_an_image(executor: Executor, reference: str) -> None:
    with pytest.raises(ImageNotAvailableError):
        await executor.resolve_image(reference, pull=PullPolicy.MISSING)


async def test_an_image_without_a_command_is_refused(executor: Executor, script_images: ScriptImages) -> None:
    with pytest.raises(ImageUnusableError, match="ENTRYPOINT"):
        await executor.resolve_image(script_images.silent, pull=PullPolicy.NEVER)


# --- a container's life


async def test_output_and_exit_code_come_apart(executor: Executor, image: Image) -> None:
    ended, received = await run(executor, script_spec(image, "echo out; echo err >&2; exit 3"))
    assert ended == ContainerExit(exit_code=3)
    assert received == Received(stdout=bytearray(b"out\n"), stderr=bytearray(b"err\n"), ended=1)


async def test_every_byte_value_goes_through_unchanged(executor: Executor, image: Image) -> None:
    ended, received = await run(executor, script_spec(image, "cat", with_stdin=True), ALL_BYTES * 1000)
    assert ended.exit_code == 0
    assert received.stdout == ALL_BYTES * 1000


async def test_output_goes_on_after_standard_input_has_ended(executor: Executor, image: Image) -> None:
    script = "cat; echo after the end; sleep 0.3; echo later; echo also here >&2; exit 4"
    ended, received = await run(executor, script_spec(image, script, with_stdin=True), b"first\n")
    assert ended.exit_code == 4
    assert received.stdout == b"first\nafter the end\nlater\n"
    assert received.stderr == b"also here\n"


async def test_a_container_without_stdin_reads_end_of_file(executor: Executor, image: Image) -> None:
    _, received = await run(executor, script_spec(image, "cat; echo done"))
    assert received.stdout == b"done\n"


async def test_a_container_that_ignores_its_stdin_hurts_nobody(executor: Executor, image: Image) -> None:
    container, received, stdio = await start(executor, script_spec(image, "echo bye", with_stdin=True))
    for _ in range(100):
        stdio.write(b"x" * 65536)
        await stdio.drain()
    assert (await container.wait()).exit_code == 0
    await wait_until(lambda: received.ended)
    stdio.write(b"too late")
    stdio.write_eof()
    await stdio.drain()
    assert received.stdout == b"bye\n"
    await container.remove()


async def test_the_environment_is_the_given_one_on_top_of_the_images(executor: Executor, image: Image) -> None:
    env = {"PLAIN": "value", "SPACED": "a b  c", "UMLAUT": "ä", "EMPTY": "", "EQUALS": "a=b=c"}
    _, received = await run(executor, script_spec(image, "env", env=env))
    lines = received.stdout.decode().splitlines()
    assert {f"{name}={value}" for name, value in env.items()} <= set(lines)
    assert any(line.startswith("PATH=") for line in lines)


async def test_a_folder_of_the_host_is_writable_at_its_place(executor: Executor, image: Image, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    await run(executor, script_spec(image, "echo here > /tmp/sockets/file", mounts={tmp_path: "/tmp/sockets"}))
    assert (tmp_path / "file").read_text() == "here\n"


async def test_a_command_that_does_not_exist_is_told_in_the_engines_words(
    executor: Executor, script_images: ScriptImages
) -> None:
    image = await executor.resolve_image(script_images.no_such_command, pull=PullPolicy.NEVER)
    container = await executor.create(script_spec(image, ""))
    received = Received()
    await container.attach(received)
    with pytest.raises(EngineError, match="/nowhere/to/be/found"):
        await container.start()
    await container.remove()
    await wait_until(lambda: received.ended == 1)


async def test_a_name_that_is_taken_is_an_error(executor: Executor, image: Image) -> None:
    spec = script_spec(image, "true", name=f"faas-test-{os.urandom(6).hex()}")
    container = await executor.create(spec)
    with pytest.raises(EngineError, match=spec.name):
        await executor.create(spec)
    await container.remove()


async def test_wait_answers_all_who_ask_before_and_after_the_end(executor: Executor, image: Image) -> None:
    container = await executor.create(script_spec(image, "sleep 0.2; exit 7"))
    early = [asyncio.ensure_future(container.wait()) for _ in range(3)]
    early.pop().cancel()
    await container.start()
    assert [ended.exit_code for ended in await asyncio.gather(*early)] == [7, 7]
    assert (await container.wait()).exit_code == 7
    await container.remove()
    assert (await container.wait()).exit_code == 7


# --- its end


async def test_kill_returns_when_the_process_is_dead(executor: Executor, image: Image) -> None:
    container, received, _ = await start(executor, script_spec(image, f"echo up; {FOREVER}"))
    await wait_until(lambda: received.stdout == b"up\n")
    await container.kill()
    assert await asyncio.wait_for(container.wait(), 0.01) == ContainerExit(exit_code=KILLED)
    await wait_until(lambda: received.ended == 1)
    await container.kill()
    await container.remove()
    await container.kill()
    assert received.ended == 1


async def test_a_killed_container_does_nothing_any_more(executor: Executor, image: Image, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    script = "(while :; do echo x >> /tmp/out/beat; sleep 0.01; done) & while :; do sleep 1; done"
    container, _, _ = await start(executor, script_spec(image, script, mounts={tmp_path: "/tmp/out"}))
    beat = tmp_path / "beat"
    await wait_until(beat.exists)
    await container.kill()
    size_bytes = beat.stat().st_size
    await asyncio.sleep(0.1)  # nothing to wait for: it must not happen
    assert beat.stat().st_size == size_bytes
    await container.remove()


async def test_a_paused_container_can_be_killed(executor: Executor, image: Image) -> None:
    container, received, _ = await start(executor, script_spec(image, FOREVER))
    assert isinstance(container, Pausable)
    await container.pause()
    await container.kill()
    assert (await asyncio.wait_for(container.wait(), 0.01)).exit_code == KILLED
    await wait_until(lambda: received.ended == 1)
    await container.remove()


async def test_a_container_can_be_removed_in_every_state(executor: Executor, image: Image) -> None:
    spec = script_spec(image, FOREVER, with_stdin=True)
    created = await executor.create(spec)
    attached = await executor.create(spec)
    unstarted = Received()
    await attached.attach(unstarted)
    running, running_received, _ = await start(executor, spec)
    paused, paused_received, _ = await start(executor, spec)
    assert isinstance(paused, Pausable)
    await paused.pause()
    ended, ended_received, _ = await start(executor, script_spec(image, "true"))
    await ended.wait()

    containers = [created, attached, running, paused, ended]
    for container in containers:
        await container.remove()
        await container.remove()
        await executor.remove(container.id)
        await asyncio.wait_for(container.wait(), 2)
    assert await listed(executor) == []
    receivers = [unstarted, running_received, paused_received, ended_received]
    await wait_until(lambda: all(received.ended == 1 for received in receivers))


async def test_many_may_remove_the_same_container_at_once(executor: Executor, image: Image) -> None:
    container, _, _ = await start(executor, script_spec(image, FOREVER))
    await asyncio.gather(*(container.remove() for _ in range(5)), container.kill(), executor.remove(container.id))
    assert await listed(executor) == []


async def test_pause_stops_a_container_and_resume_lets_it_go_on(executor: Executor, image: Image) -> None:
    container, received, stdio = await start(executor, script_spec(image, "cat", with_stdin=True))
    assert isinstance(container, Pausable)
    await container.pause()
    stdio.write(b"hello")
    await asyncio.sleep(0.1)  # nothing to wait for: no answer must come
    assert received.stdout == b""
    await container.resume()
    await wait_until(lambda: received.stdout == b"hello")
    await container.remove()


async def test_a_container_over_its_memory_is_named_oom(executor: Executor, image: Image) -> None:
    limits = Limits(memory_mib=16)
    direct, _ = await run(executor, script_spec(image, "exec tail /dev/zero", limits=limits))
    assert direct == ContainerExit(exit_code=KILLED, is_oom=True)
    child, _ = await run(executor, script_spec(image, "tail /dev/zero; exit 5", limits=limits))
    assert child == ContainerExit(exit_code=5, is_oom=True)
    suicide, _ = await run(executor, script_spec(image, "sh -c 'kill -9 $$'; exit 137", limits=limits))
    assert suicide == ContainerExit(exit_code=KILLED, is_oom=False)


async def test_memory_below_the_engines_minimum_says_so(executor: Executor, image: Image) -> None:
    with pytest.raises(EngineError, match="at least 6 MiB"):
        await executor.create(script_spec(image, "true", limits=Limits(memory_mib=5)))


async def test_usage_is_known_while_it_runs_and_of_the_whole_life_afterwards(executor: Executor, image: Image) -> None:
    script = "x=$(head -c 4000000 /dev/zero | tr '\\0' a); echo ready; cat"
    container, received, _ = await start(executor, script_spec(image, script, with_stdin=True))
    await wait_until(lambda: received.stdout == b"ready\n")
    usage = await container.usage()
    assert usage is not None
    assert usage.cpu_s is not None
    assert 0 < usage.cpu_s < 10
    assert usage.memory_peak_bytes is None or 4_000_000 < usage.memory_peak_bytes <= 32 * 1024 * 1024
    await container.kill()
    ended = await container.usage()
    await container.remove()
    assert await container.usage() == ended
    assert ended is None or (ended.cpu_s is not None and ended.cpu_s >= usage.cpu_s)


async def test_usage_of_a_container_that_never_ran_is_unknown(executor: Executor, image: Image) -> None:
    container = await executor.create(script_spec(image, "true"))
    assert await container.usage() is None
    await container.remove()
    assert await container.usage() is None


# --- cancelling


@pytest.mark.parametrize("after_ms", [0, 1, 3, 6, 10, 15, 25])
async def test_a_cancelled_create_leaves_no_container(executor: Executor, image: Image, after_ms: int) -> None:
    creating = [asyncio.ensure_future(executor.create(script_spec(image, "true"))) for _ in range(3)]
    await asyncio.sleep(after_ms / 1000)
    for task in creating:
        task.cancel()
    for outcome in await asyncio.gather(*creating, return_exceptions=True):
        if not isinstance(outcome, BaseException):
            await outcome.remove()
    await executor.close()  # waits for what is still to be removed; the fixture looks for what is left


@pytest.mark.parametrize("after_ms", [0, 5, 50, 150])
async def test_a_start_that_was_cancelled_can_be_removed(executor: Executor, image: Image, after_ms: int) -> None:
    container = await executor.create(script_spec(image, FOREVER))
    starting = asyncio.ensure_future(container.start())
    await asyncio.sleep(after_ms / 1000)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await container.remove()
    assert await listed(executor) == []


# --- ours and others'


async def test_ours_are_listed_in_any_state_and_from_any_boot(
    make_executor: MakeExecutor, script_images: ScriptImages, installation_id: str
) -> None:
    first, second = make_executor(boot_id="boot-1"), make_executor(boot_id="boot-2")
    stranger = make_executor(installation_id=f"{installation_id}-other")
    image = await first.resolve_image(script_images.script, pull=PullPolicy.NEVER)
    created = await first.create(script_spec(image, "true", labels={"route": "/hello"}))
    running = await second.create(script_spec(image, FOREVER))
    await running.start()
    strangers = await stranger.create(script_spec(image, "true"))

    ours = {info.id: info for info in await listed(first)}
    assert ours.keys() == {created.id, running.id}
    assert (ours[created.id].state, ours[created.id].boot_id) == ("created", "boot-1")
    assert ours[created.id].labels["route"] == "/hello"
    assert ours[created.id].created_at is not None
    assert (ours[running.id].state, ours[running.id].boot_id) == ("running", "boot-2")
    assert [info.id for info in await listed(stranger)] == [strangers.id]
    await asyncio.gather(first.remove(created.id), first.remove(running.id), stranger.remove(strangers.id))


async def test_containers_stay_when_the_executor_is_closed(
    make_executor: MakeExecutor, script_images: ScriptImages
) -> None:
    first, second = make_executor(), make_executor()
    image = await first.resolve_image(script_images.script, pull=PullPolicy.NEVER)
    container = await first.create(script_spec(image, FOREVER))
    await container.start()
    await first.close()
    assert [info.state for info in await listed(second)] == ["running"]
    await second.remove(container.id)


async def test_the_engine_says_who_it_is(executor: Executor) -> None:
    info = await executor.info()
    assert info.name
    assert info.version[0].isdigit()
    assert info.cgroup_version in ("1", "2")
    assert info.memory_mib > 0
    assert info.cpus > 0


# --- hardening


LOOK_AROUND = """
id -u; id -g
grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status
touch /file 2>/dev/null && echo root is writable
cp /bin/busybox /tmp/echo && /tmp/echo tmp is executable
grep ' /tmp ' /proc/mounts
ulimit -n
"""


async def test_containers_are_hardened(executor: Executor, image: Image) -> None:
    limits = Limits(memory_mib=32, pids=20, open_files=123, tmpfs_mib=4, cpus=0.5)
    ended, received = await run(executor, script_spec(image, LOOK_AROUND, limits=limits))
    assert ended.exit_code == 0
    uid, gid, *status, executable, tmp, open_files = received.stdout.decode().splitlines()
    assert (uid, gid) == ("65534", "65534")
    assert dict(line.split(":\t") for line in status) == {
        "CapEff": "0000000000000000",
        "CapBnd": "0000000000000000",
        "NoNewPrivs": "1",
        "Seccomp": "2",
    }
    assert executable == "tmp is executable"
    assert {"rw", "nosuid", "nodev", "size=4096k"} <= set(tmp.split()[3].split(","))
    assert open_files == "123"


async def test_a_fork_bomb_ends_at_the_limit_of_processes(executor: Executor, image: Image) -> None:
    script = "for i in $(seq 50); do sleep 5 & done; echo all started"
    _, received = await run(executor, script_spec(image, script, limits=Limits(memory_mib=32, pids=20)))
    assert b"all started" not in received.stdout
    assert b"fork" in received.stderr


async def test_the_temporary_folder_has_an_end(executor: Executor, image: Image) -> None:
    script = "head -c 3000000 /dev/zero > /tmp/big; wc -c < /tmp/big"
    _, received = await run(executor, script_spec(image, script, limits=Limits(memory_mib=32, tmpfs_mib=1)))
    assert received.stdout == b"1048576\n"


async def test_an_images_own_user_is_kept(executor: Executor, script_images: ScriptImages) -> None:
    image = await executor.resolve_image(script_images.user, pull=PullPolicy.NEVER)
    _, received = await run(executor, script_spec(image, ""))
    assert received.stdout.startswith(b"uid=1234 gid=1234")


# --- many at once


async def test_many_containers_at_once_get_each_its_own_bytes(executor: Executor, image: Image) -> None:
    async def one(number: int) -> bool:
        payload = hashlib.sha512(str(number).encode()).digest() * 4096
        _, received = await run(executor, script_spec(image, "cat", with_stdin=True), payload)
        return received.stdout == payload

    assert all(await gather_bounded([lambda number=number: one(number) for number in range(20)], at_once=8))


async def gather_bounded(work: list[Callable[[], Awaitable[bool]]], *, at_once: int) -> list[bool]:
    slots = asyncio.Semaphore(at_once)

    async def one(item: Callable[[], Awaitable[bool]]) -> bool:
        async with slots:
            return await item()

    return list(await asyncio.gather(*(one(item) for item in work)))
