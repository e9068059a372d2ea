"""Images of one program: what is in them, that the programs run, that an engine gets each once."""

from __future__ import annotations

import os
import platform
import signal
import stat
import subprocess
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from faas.cli.probe_image import PROBE
from faas.runner.executors.docker_holders import HOLDER
from faas.runner.executors.docker_tiny_image import TinyImage
from tests.support.waiting import wait_until_blocking

if TYPE_CHECKING:
    import docker

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@pytest.fixture
def here() -> str:
    """The engine's word for this machine."""
    if platform.machine() not in ARCHITECTURES:
        pytest.skip("no program for this architecture")
    return ARCHITECTURES[platform.machine()]


def executable(image: TinyImage, architecture: str, folder: Path) -> str:
    content = image.program(architecture)
    assert content is not None
    file = folder / "program"
    file.write_bytes(content)
    file.chmod(stat.S_IRWXU)
    return os.fspath(file)


def test_the_doctors_probe_ends_with_success(tmp_path: Path, here: str) -> None:
    assert subprocess.run([executable(PROBE, here, tmp_path)], check=False).returncode == 0


def test_a_holder_sleeps_until_it_is_ended(tmp_path: Path, here: str) -> None:
    process = subprocess.Popen([executable(HOLDER, here, tmp_path)])
    status = Path(f"/proc/{process.pid}/stat")

    def is_in_state(letter: str) -> bool:
        return status.read_text().rpartition(")")[2].split()[0] == letter

    try:
        wait_until_blocking(lambda: is_in_state("S"))
        process.send_signal(signal.SIGSTOP)
        wait_until_blocking(lambda: is_in_state("T"))
        process.send_signal(signal.SIGCONT)
        wait_until_blocking(lambda: is_in_state("S"))
        process.terminate()
        assert process.wait(10) == -signal.SIGTERM
    finally:
        process.kill()
        process.wait()


def test_there_is_no_program_for_other_architectures() -> None:
    assert HOLDER.program("s390x") is None
    assert HOLDER.program("amd64") != HOLDER.program("arm64") is not None


@pytest.mark.docker
def test_an_engine_is_given_an_image_once_and_another_program_has_another_tag(
    docker_client: docker.APIClient, here: str
) -> None:
    repository = f"faas/test-{uuid.uuid4().hex[:8]}"
    code = PROBE.code[here]
    references = []
    try:
        for image in (code, code, code + b"\0"):
            references.append(TinyImage(repository=repository, code={here: image}).ensure(docker_client))
        first, again, other = references
        assert first == again != other
        assert len(docker_client.images(name=repository)) == 2
    finally:
        for reference in set(references):
            docker_client.remove_image(reference, force=True)


@pytest.mark.docker
def test_an_engine_without_a_program_is_given_nothing(docker_client: docker.APIClient) -> None:
    assert TinyImage(repository="faas/test-nothing", code={}).ensure(docker_client) is None
    assert docker_client.images(name="faas/test-nothing") == []
