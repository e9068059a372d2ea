"""`faas doctor`."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Faas, Server


def _checks(faas: Faas, *arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    result = faas("doctor", "-o", "json", *arguments)
    return result.exit_code, {check["name"]: check for check in json.loads(result.stdout)["checks"]}


def _without_engine(tmp_path: Path) -> tuple[str, ...]:
    return ("--docker-host", f"unix://{tmp_path}/docker.sock", "--data-dir", str(tmp_path / "data"))


def test_without_an_engine_it_says_how_to_get_one_and_exits_with_1(faas: Faas, tmp_path: Path) -> None:
    exit_code, checks = _checks(faas, *_without_engine(tmp_path), "--port", "0")
    assert exit_code == 1
    assert checks["engine"]["state"] == "broken"
    assert "apt install docker.io" in checks["engine"]["fix"]
    assert "container" not in checks
    assert checks["memory"]["state"] == checks["disk"]["state"] == checks["port"]["state"] == "ok"


def test_a_socket_that_nobody_listens_on_is_an_engine_that_is_not_running(faas: Faas, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/docker.sock")
    _, checks = _checks(faas, *_without_engine(tmp_path), "--port", "0")
    assert "systemctl start docker" in checks["engine"]["fix"]


def test_the_report_for_people_has_the_fixes_on_stderr(faas: Faas, tmp_path: Path) -> None:
    result = faas("doctor", *_without_engine(tmp_path), "--port", "0")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[0].split() == ["CHECK", "STATE", "FOUND"]
    assert "engine: Install Docker" in result.stderr


def test_a_docker_host_that_is_no_socket_is_a_usage_error(faas: Faas) -> None:
    result = faas("doctor", "--docker-host", "tcp://localhost:2375")
    assert result.exit_code == 2
    assert "unix:///PATH" in result.stderr


def test_a_port_that_something_else_has_is_broken(faas: Faas, tmp_path: Path, server: Server) -> None:
    port = server.url.rpartition(":")[2]
    _, checks = _checks(faas, *_without_engine(tmp_path), "--port", port)
    assert checks["port"]["state"] == "broken"
    assert "FAAS_PORT" in checks["port"]["fix"]


def test_a_port_that_a_node_has_is_as_it_should_be(faas: Faas, tmp_path: Path, server: Server) -> None:
    server.on_json("GET /version", {"version": "1.2.3"})
    port = server.url.rpartition(":")[2]
    _, checks = _checks(faas, *_without_engine(tmp_path), "--port", port)
    assert checks["port"]["state"] == "ok"
    assert "faas 1.2.3 is running there" in checks["port"]["found"]


def test_too_little_memory_is_broken(faas: Faas, tmp_path: Path) -> None:
    _, checks = _checks(faas, *_without_engine(tmp_path), "--port", "0", "--memory-mib", "64")
    assert checks["memory"]["state"] == "broken"


def test_a_data_folder_that_is_a_file_is_broken(faas: Faas, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    arguments = [*_without_engine(tmp_path)[:2], "--data-dir", str(file / "data"), "--port", "0"]
    _, checks = _checks(faas, *arguments)
    assert checks["disk"]["state"] == "broken"


@pytest.mark.docker
def test_on_a_real_engine_a_container_is_started_and_timed(faas: Faas, tmp_path: Path, docker_client: object) -> None:
    exit_code, checks = _checks(faas, "--data-dir", str(tmp_path), "--port", "0")
    assert checks["engine"]["state"] == "ok"
    assert checks["container"]["found"].endswith(" ms")
    assert checks["cgroups"]["found"].startswith("version ")
    assert exit_code == 0
