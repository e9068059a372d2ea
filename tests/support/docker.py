"""The real Docker Engine for the tests: an installation of its own for each test, and nothing left of it afterwards.

Without an answering engine the tests skip on a laptop and fail where `FAAS_TEST_REQUIRE=1` (CI).
"""

from __future__ import annotations

import io
import os
import socket
import uuid
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import docker
import pytest
from docker import errors as docker_errors

from deploy.images import busybox_base, ensure
from faas.models import PullPolicy
from faas.runner.executors.base import ContainerSpec, Image, Limits
from faas.runner.executors.docker import DockerExecutor, DockerOptions, Hardening
from faas.runner.executors.docker_spec import INSTALLATION_LABEL
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

__all__ = ["DOCKER_HOST", "MakeExecutor", "Received", "ScriptImages", "reachable_engine", "script_spec"]

DOCKER_HOST = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")

BASE = "faas/base-busybox:local"
SCRIPT_TAG = "faas/test-executor-script:local"
IMAGES = {
    SCRIPT_TAG: f'FROM {BASE}\nCMD ["/bin/sh", "-c", "eval \\"$SCRIPT\\""]\n',
    "faas/test-executor-user:local": f'FROM {BASE}\nUSER 1234:1234\nCMD ["/bin/id"]\n',
    "faas/test-executor-no-such-command:local": f'FROM {BASE}\nCMD ["/nowhere/to/be/found"]\n',
    "faas/test-executor-silent:local": f"FROM {BASE}\nENTRYPOINT []\nCMD []\n",
}

MakeExecutor = Callable[..., DockerExecutor]


@dataclass(frozen=True, slots=True)
class ScriptImages:
    """Images of the executor's own tests; `script` runs the shell script in its environment's SCRIPT."""

    script: str = SCRIPT_TAG
    user: str = "faas/test-executor-user:local"
    no_such_command: str = "faas/test-executor-no-such-command:local"
    silent: str = "faas/test-executor-silent:local"


@dataclass(slots=True)
class Received:
    """An `OutputReceiver` that keeps everything."""

    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    ended: int = 0

    def stdout_received(self, data: bytes) -> None:
        self.stdout += data

    def stderr_received(self, data: bytes) -> None:
        self.stderr += data

    def output_ended(self) -> None:
        self.ended += 1


def script_spec(
    image: Image,
    script: str,
    *,
    with_stdin: bool = False,
    limits: Limits | None = None,
    env: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    mounts: Mapping[Path, str] | None = None,
    name: str = "",
) -> ContainerSpec:
    """A container that runs a shell script."""
    return ContainerSpec(
        image=image,
        limits=limits or Limits(memory_mib=32, pids=64, open_files=256, tmpfs_mib=8),
        env={"SCRIPT": script, **(env or {})},
        labels=labels or {},
        mounts=mounts or {},
        with_stdin=with_stdin,
        name=name,
    )


def reachable_engine() -> docker.APIClient:
    """A client of the engine; skips or fails the test when none answers."""
    try:
        # The SDK itself leaves its socket open when nobody answers, and a warning is an error here.
        with closing(socket.socket(socket.AF_UNIX)) as knock:
            knock.connect(DOCKER_HOST.removeprefix("unix://"))
        return docker.APIClient(base_url=DOCKER_HOST, version="auto")
    except (OSError, docker_errors.DockerException) as error:
        message = f"no Docker Engine at {DOCKER_HOST}: {error}"
        if os.environ.get("FAAS_TEST_REQUIRE") == "1":
            pytest.fail(message + " and FAAS_TEST_REQUIRE=1", pytrace=False)
        pytest.skip(message)


@pytest.fixture(scope="session")
def docker_client() -> Iterator[docker.APIClient]:
    """The engine, asked past the executor: what the tests check against."""
    client = reachable_engine()
    yield client
    client.close()


@pytest.fixture(scope="session")
def script_images(docker_client: docker.APIClient) -> ScriptImages:
    """The executor tests' images, built where they are missing."""
    ensure([busybox_base()], lambda _line: None)
    for tag, dockerfile in IMAGES.items():
        for line in docker_client.build(fileobj=io.BytesIO(dockerfile.encode()), tag=tag, rm=True, decode=True):
            assert "error" not in line, line
    return ScriptImages()


@pytest.fixture
def installation_id(docker_client: docker.APIClient) -> Iterator[str]:
    """An installation of this test's own; the test fails when it leaves a container behind, which is then removed."""
    installation_id = f"test-{uuid.uuid4().hex[:12]}"
    yield installation_id
    left = remove_installation(docker_client, installation_id)
    assert not left, f"the test left containers behind: {left}"


@pytest.fixture
async def make_executor(docker_client: docker.APIClient, installation_id: str) -> AsyncIterator[MakeExecutor]:
    """Makes executors of this test's installation, closes them; keywords are those of `DockerOptions`."""
    failures: list[BaseException] = []
    made: list[DockerExecutor] = []

    def make(**options: Any) -> DockerExecutor:
        defaults: dict[str, Any] = {
            "installation_id": installation_id,
            "boot_id": "boot-1",
            "docker_host": DOCKER_HOST,
            "hardening": Hardening(network="none"),
        }
        executor = DockerExecutor(DockerOptions(**{**defaults, **options}), on_failure=failures.append)
        made.append(executor)
        return executor

    yield make
    for executor in made:
        await executor.close()
    assert not failures


@pytest.fixture
def docker_executor(make_executor: MakeExecutor) -> DockerExecutor:
    """An executor on the real engine."""
    return make_executor()


@pytest.fixture
async def pooled_docker_executor(make_executor: MakeExecutor) -> AsyncIterator[DockerExecutor]:
    """The same with a network made ahead, so that its first container joins that."""
    async with make_executor(network_pool=1) as executor:
        await wait_until(lambda: "1 of 1 free" in repr(executor), timeout_s=60)
        yield executor


@pytest.fixture
async def script_image(docker_executor: DockerExecutor, script_images: ScriptImages) -> Image:
    """The image that runs scripts."""
    return await docker_executor.resolve_image(script_images.script, pull=PullPolicy.NEVER)


def remove_installation(client: docker.APIClient, installation_id: str) -> list[str]:
    """Remove all containers of installations whose id begins so; returns what was there, as "name (state)"."""
    labelled = client.containers(all=True, filters={"label": INSTALLATION_LABEL})
    left = [entry for entry in labelled if entry["Labels"][INSTALLATION_LABEL].startswith(installation_id)]
    for entry in left:
        with suppress(docker_errors.NotFound):
            client.remove_container(entry["Id"], v=True, force=True)
    return [f"{entry['Names']} ({entry['State']})" for entry in left]
