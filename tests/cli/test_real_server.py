"""The command line against a real node with real containers."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.functions.build import ensure_images
from tests.support.waiting import wait_until_blocking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Run = Callable[..., subprocess.CompletedProcess[bytes]]

pytestmark = pytest.mark.docker

START_TIMEOUT_S = 30.0
COMMAND_TIMEOUT_S = 60.0
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def images(docker_client: object) -> dict[str, str]:
    return ensure_images()


@pytest.fixture(scope="module")
def node_url(images: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A node that `faas serve` runs on a free port; stopped as an operator does."""
    folder: Path = tmp_path_factory.mktemp("node")
    log = folder / "log"
    command = [sys.executable, "-m", "faas", "serve", "--port", "0", "--data-dir", str(folder / "data")]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            wait_until_blocking(lambda: _address(log) or process.poll() is not None, timeout_s=START_TIMEOUT_S)
            assert process.poll() is None, log.read_text()
            yield _address(log)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=START_TIMEOUT_S)
    assert process.returncode == 0, log.read_text()


def _address(log: Path) -> str:
    found = re.search(r"http://127\.0\.0\.1:[1-9]\d*", log.read_text())
    return found[0] if found else ""


@pytest.fixture
def run(node_url: str) -> Run:
    """Run the command in a process of its own."""
    environment = {**os.environ, "FAAS_URL": node_url, "NO_COLOR": "1"}

    def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "faas", *arguments],
            input=stdin,
            capture_output=True,
            env=environment,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )

    return run


def test_a_function_is_made_called_and_deleted(run: Run, images: dict[str, str]) -> None:
    assert run("apps", "create", "shop", "--config", "A=1").returncode == 0
    assert run("routes", "create", "shop", "/cat", images["cat"], "--memory", "64").returncode == 0
    route = json.loads(run("routes", "inspect", "shop", "/cat", "-o", "json").stdout)
    assert (route["image"], route["memory"]) == (images["cat"], 64)
    answer = run("call", "shop", "/cat", stdin=b"\x00\xff hello")
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, b"\x00\xff hello", b"")
    assert run("apps", "delete", "shop").returncode == 3
    assert run("apps", "delete", "shop", "--force", "--yes").returncode == 0
    assert run("apps", "inspect", "shop").returncode == 4


def test_a_large_body_passes_through_a_function_that_answers_while_it_reads(run: Run, images: dict[str, str]) -> None:
    run("routes", "create", "large", "/cat", images["cat"])
    body = os.urandom(MIB) * 64
    answer = run("call", "large", "/cat", stdin=body)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == body


def test_an_async_call_is_accepted_waited_for_and_read(run: Run, images: dict[str, str]) -> None:
    run("routes", "create", "later", "/cat", images["cat"], "--type", "async")
    call_id = run("call", "later", "/cat", "--async", stdin=b"payload").stdout.decode().strip()
    waited = run("calls", "wait", call_id, "-o", "json")
    assert waited.returncode == 0, waited.stderr
    assert json.loads(waited.stdout)["status"] == "success"
    assert run("calls", "result", call_id).stdout == b"payload"
    assert run("calls", "log", call_id, "--follow").returncode == 0
    assert call_id in run("calls", "list", "later").stdout.decode()
    assert run("calls", "cancel", call_id).returncode == 3
    assert run("call", "later", "/cat", "--wait", stdin=b"again").stdout == b"again"


def test_headers_and_configuration_are_replaced_and_deleted(run: Run, images: dict[str, str]) -> None:
    run("routes", "create", "edit", "/cat", images["cat"], "--config", "K=1", "--header", "X-One=1")
    run("routes", "update", "edit", "/cat", "--config", "L=2", "--header", "X-One=2")
    assert json.loads(run("routes", "inspect", "edit", "/cat", "config").stdout) == {"K": "1", "L": "2"}
    assert json.loads(run("routes", "inspect", "edit", "/cat", "headers").stdout) == {"X-One": ["2"]}
    run("routes", "config", "unset", "edit", "/cat", "K")
    run("routes", "headers", "unset", "edit", "/cat", "x-one")
    assert json.loads(run("routes", "inspect", "edit", "/cat", "config").stdout) == {"L": "2"}
    assert json.loads(run("routes", "inspect", "edit", "/cat", "headers").stdout) == {}


def test_what_is_not_there_says_what_to_do_next(run: Run) -> None:
    answer = run("call", "nowhere", "/cat")
    assert answer.returncode == 4
    assert b"faas apps list" in answer.stderr
    image = run("routes", "create", "shop2", "/x", "faas/no-such-image:local", "--pull", "never")
    assert image.returncode == 3
    assert b"docker images" in image.stderr
