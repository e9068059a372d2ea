"""Containers in network namespaces that were made ahead, on the real engine: who shares what with whom, and who not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from faas.models import PullPolicy
from faas.runner.executors.docker import Hardening
from faas.runner.executors.docker_holders import can_be_held
from faas.runner.executors.docker_spec import BOOT_LABEL, INSTALLATION_LABEL, ROLE_LABEL
from tests.support.docker import MakeExecutor, Received, ScriptImages, script_spec
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import docker

    from faas.runner.executors.base import Container, Image
    from faas.runner.executors.docker import DockerExecutor

    OpenExecutor = Callable[..., Awaitable[DockerExecutor]]

pytestmark = pytest.mark.docker

FOREVER = "echo up; while :; do sleep 0.05; done"
ON_BRIDGE = Hardening(network="bridge")


class Engine:
    """What the engine says, asked past the executor."""

    def __init__(self, client: docker.APIClient, installation_id: str) -> None:
        self.client = client
        self._labels = [f"{INSTALLATION_LABEL}={installation_id}", f"{ROLE_LABEL}=network"]

    def holders(self) -> set[str]:
        """Ids of those in any state."""
        return {entry["Id"] for entry in self.client.containers(all=True, filters={"label": self._labels})}

    def process_of(self, container_id: str) -> Path:
        return Path(f"/proc/{self.client.inspect_container(container_id)['State']['Pid']}")

    def network_of(self, container_id: str) -> str:
        """The namespace's own name."""
        return os.readlink(self.process_of(container_id) / "ns/net")

    def interfaces_of(self, container_id: str) -> list[str]:
        lines = (self.process_of(container_id) / "net/dev").read_text().splitlines()
        return [line.partition(":")[0].strip() for line in lines[2:]]

    def holder_of(self, container_id: str) -> str:
        """The holder whose namespace a container joined, as the container's configuration has it; empty without."""
        mode = self.client.inspect_container(container_id)["HostConfig"]["NetworkMode"]
        return str(mode).partition("container:")[2]


@pytest.fixture
def engine(docker_client: docker.APIClient, installation_id: str) -> Engine:
    return Engine(docker_client, installation_id)


@pytest.fixture
def open_executor(make_executor: MakeExecutor) -> OpenExecutor:
    """Opens executors on the bridge with so many networks ready; keywords are those of `DockerOptions`."""

    async def make(ready: int = 1, **options: object) -> DockerExecutor:
        executor = make_executor(**{"network_pool": ready, "hardening": ON_BRIDGE, **options})
        await executor.__aenter__()  # `make_executor` closes it
        await until_ready(executor, ready)
        return executor

    return make


async def until_ready(executor: DockerExecutor, ready: int) -> None:
    await wait_until(lambda: f"<NetworkPool {ready} of" in repr(executor), timeout_s=60)


@pytest.fixture
async def image(make_executor: MakeExecutor, script_images: ScriptImages) -> Image:
    return await make_executor().resolve_image(script_images.script, pull=PullPolicy.NEVER)


async def start(executor: DockerExecutor, image: Image, script: str = FOREVER) -> tuple[Container, Received]:
    """A container that has printed its first line."""
    container = await executor.create(script_spec(image, script))
    received = Received()
    await container.attach(received)
    await container.start()
    await wait_until(lambda: b"\n" in received.stdout)
    return container, received


# --- one network, one container


async def test_containers_at_the_same_time_have_each_a_network_of_its_own(
    open_executor: OpenExecutor, image: Image, engine: Engine
) -> None:
    executor = await open_executor(2)
    containers = [(await start(executor, image))[0] for _ in range(3)]
    networks = {engine.network_of(container.id) for container in containers}
    assert len(networks) == 3
    assert os.readlink("/proc/self/ns/net") not in networks
    assert len({engine.holder_of(container.id) for container in containers[:2]} & engine.holders()) == 2
    for container in containers:
        await container.remove()


async def test_without_a_ready_one_a_container_does_not_wait(
    open_executor: OpenExecutor, image: Image, engine: Engine
) -> None:
    executor = await open_executor(1)
    first, second = (
        await executor.create(script_spec(image, FOREVER)),
        await executor.create(script_spec(image, FOREVER)),
    )
    await first.start()
    await second.start()
    assert engine.holder_of(first.id)
    assert not engine.holder_of(second.id)
    assert engine.interfaces_of(second.id) == ["lo", "eth0"]
    await first.remove()
    await second.remove()


@pytest.mark.parametrize("network", ["bridge", "none"])
async def test_a_removed_containers_network_serves_the_next_one(
    open_executor: OpenExecutor, image: Image, engine: Engine, network: str
) -> None:
    executor = await open_executor(1, hardening=Hardening(network=network))
    networks = []
    for _ in range(3):  # one that was made up for the one in use may come first
        container, _ = await start(executor, image)
        assert engine.interfaces_of(container.id) == (["lo", "eth0"] if network == "bridge" else ["lo"])
        networks.append(engine.network_of(container.id))
        await container.remove()
    assert len(set(networks)) < len(networks)


async def test_a_port_on_localhost_is_nobody_elses(open_executor: OpenExecutor, image: Image, engine: Engine) -> None:
    executor = await open_executor(1)
    ask = "nc -w 1 127.0.0.1 7000 </dev/null 2>/dev/null && echo reached || echo refused"
    listening, itself = await start(executor, image, f"httpd -p 127.0.0.1:7000 -h /tmp; {ask}; sleep 1000")
    assert itself.stdout == b"reached\n"
    await until_ready(executor, 1)
    other, beside = await start(executor, image, f"{ask}; sleep 1000")
    assert beside.stdout == b"refused\n"
    await until_ready(executor, 1)
    network = engine.network_of(listening.id)

    await listening.remove()

    await until_ready(executor, 2)
    successors = [(await start(executor, image, f"{ask}; sleep 1000")) for _ in range(2)]
    assert network in {engine.network_of(successor.id) for successor, _ in successors}
    assert [received.stdout for _, received in successors] == [b"refused\n"] * 2
    for container in (other, *(successor for successor, _ in successors)):
        await container.remove()


async def test_what_root_writes_into_the_name_files_reaches_nobody(
    open_executor: OpenExecutor, image: Image, engine: Engine
) -> None:
    executor = await open_executor(1, hardening=Hardening(user="0:0", is_read_only=False, network="bridge"))
    evil, received = await start(executor, image, "echo 192.0.2.1 evil >> /etc/hosts && echo written; sleep 1000")
    assert received.stdout == b"written\n"
    holder_id = engine.holder_of(evil.id)
    await evil.remove()
    await wait_until(lambda: holder_id not in engine.holders())
    await until_ready(executor, 1)
    _, next_one = await start(executor, image, "grep -c evil /etc/hosts; true")
    assert next_one.stdout == b"0\n"
    for info in await executor.list_ours():
        await executor.remove(info.id)


# --- holders that end


async def test_a_killed_holder_is_replaced_and_meanwhile_containers_do_without(
    open_executor: OpenExecutor, image: Image, engine: Engine
) -> None:
    executor = await open_executor(1)
    [holder_id] = engine.holders()
    engine.client.kill(holder_id)
    await until_ready(executor, 0)
    container, _ = await start(executor, image)
    assert not engine.holder_of(container.id)
    await until_ready(executor, 1)
    assert holder_id not in engine.holders()
    await container.remove()


@pytest.mark.parametrize("is_removed", [False, True])
async def test_a_container_whose_holder_ended_before_its_start_starts_all_the_same(
    open_executor: OpenExecutor, image: Image, engine: Engine, is_removed: bool
) -> None:
    executor = await open_executor(1)
    container = await executor.create(script_spec(image, "echo up; cat; echo end", with_stdin=True))
    received = Received()
    stdio = await container.attach(received)
    holder_id = engine.holder_of(container.id)
    if is_removed:
        engine.client.remove_container(holder_id, force=True)
    else:
        engine.client.kill(holder_id)
    await wait_until(lambda: "lost" in repr(container))

    await container.start()

    await wait_until(lambda: received.stdout == b"up\n")
    assert engine.interfaces_of(container.id) == ["lo", "eth0"]
    stdio.write_eof()
    assert (await container.wait()).exit_code == 0
    await wait_until(lambda: received.ended == 1)
    assert received.stdout == b"up\nend\n"
    await container.remove()


async def test_a_container_whose_network_is_lost_is_ended(
    open_executor: OpenExecutor, image: Image, engine: Engine
) -> None:
    executor = await open_executor(1)
    container, received = await start(executor, image)
    engine.client.remove_container(engine.holder_of(container.id), force=True)
    assert (await container.wait()).is_killed
    await wait_until(lambda: received.ended == 1)
    await container.remove()
    await until_ready(executor, 1)


# --- what is left


async def test_holders_are_nobodys_business_until_their_boot_is_over(
    open_executor: OpenExecutor, make_executor: MakeExecutor, engine: Engine
) -> None:
    executor = await open_executor(1)
    assert await executor.list_ours() == []
    next_boot = make_executor(boot_id="boot-2")
    [left] = await next_boot.list_ours()
    assert (left.boot_id, left.id) == ("boot-1", *engine.holders())
    await next_boot.remove(left.id)
    assert left.id not in engine.holders()


async def test_closing_removes_all_holders_but_one_that_is_still_used(
    open_executor: OpenExecutor, make_executor: MakeExecutor, image: Image, engine: Engine
) -> None:
    executor = await open_executor(3)
    container, _ = await start(executor, image)
    await executor.close()
    assert engine.holders() == {engine.holder_of(container.id)}
    assert engine.interfaces_of(container.id) == ["lo", "eth0"]
    direct = make_executor()
    for info in await direct.list_ours():
        await direct.remove(info.id)


# --- what it is


async def test_a_holder_may_do_nothing(open_executor: OpenExecutor, engine: Engine) -> None:
    soft = Hardening(
        user="", is_read_only=False, drops_capabilities=False, forbids_new_privileges=False, network="bridge"
    )
    await open_executor(1, hardening=soft)
    [holder_id] = engine.holders()
    about = engine.client.inspect_container(holder_id)
    assert about["HostConfig"]["ReadonlyRootfs"]
    assert about["HostConfig"]["PidsLimit"] == 1
    assert about["HostConfig"]["LogConfig"]["Type"] == "none"
    assert {INSTALLATION_LABEL, BOOT_LABEL} < about["Config"]["Labels"].keys()
    status = dict(line.split(":\t", 1) for line in (engine.process_of(holder_id) / "status").read_text().splitlines())
    assert status["Uid"].split() == ["65534"] * 4
    assert int(status["CapBnd"], 16) == int(status["CapEff"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


@pytest.mark.parametrize(
    ("network", "is_held"),
    [("bridge", True), ("none", True), ("my-network", True), ("host", False), ("container:other", False)],
)
def test_only_networks_that_are_a_containers_own_can_be_held(network: str, is_held: bool) -> None:
    assert can_be_held(network) is is_held
