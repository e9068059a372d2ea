"""A real node, `faas serve` in a process of its own, and apps to try on it; nothing of either is left afterwards."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from docker.errors import NotFound

from faas.runner.executors.docker_spec import INSTALLATION_LABEL, ROLE_LABEL
from tests.support.docker import remove_installation
from tests.support.waiting import wait_until_blocking

if TYPE_CHECKING:
    from collections.abc import Iterator

    import docker

__all__ = ["App", "NodeProcess", "running_node"]

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
REQUEST_TIMEOUT_S = 90.0
"""These bound what hangs; the machine may be very busy."""

LOG_TAIL = 8000

FORMATS = {
    "cat": "default",
    "shell": "default",
    "hog": "default",
    "stdio-echo": "http",
    "stdio-misfit": "http",
    "echo": "http-stream",
    "misfit": "http-stream",
    "stream": "http-stream",
}
"""The format of each folder of `tests/functions`."""

PROCESSES = {"processes": count} if (count := os.environ.get("FAAS_TEST_PROCESSES")) else {}
"""Has the suite's nodes be of several processes, unless a test says how many it wants."""

_numbers = itertools.count(1)


class NodeProcess:
    """One data folder and the node on it, which can be started again after its end."""

    def __init__(self, folder: Path, engine: docker.APIClient, **settings: object) -> None:
        self.data_dir = folder / "data"
        self.settings: dict[str, object] = {"port": 0, "data_dir": self.data_dir, **PROCESSES, **settings}
        self.url = ""
        self._engine = engine
        self._log = folder / "log"
        self._log.touch()
        self._boot_begins = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<NodeProcess {self.url} {self.data_dir}>"

    # --- its life

    def start(self) -> None:
        """Return when it serves; fails with its log when it does not."""
        process = self.spawn()
        wait_until_blocking(lambda: self._address() or process.poll() is not None, timeout_s=START_TIMEOUT_S)
        assert process.poll() is None, f"the node did not start, exit code {process.returncode}:\n{self.log}"
        self.url = self._address()

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the process and wait for nothing."""
        options = [
            part for name, value in self.settings.items() for part in (f"--{name.replace('_', '-')}", str(value))
        ]
        # Its parent's end is its end, also when that is killed.
        leash = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
        env = {name: value for name, value in os.environ.items() if not name.startswith("FAAS_")}
        self._boot_begins = self._log.stat().st_size
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*leash, sys.executable, "-m", "faas", "serve", *options], stdout=log, stderr=log, env=env
            )
        return self._process

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """End it as a power failure would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def terminate(self) -> None:
        """Ask it to end, as an operator does; see `wait`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Its exit code, once it has ended."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    # --- what can be seen of it

    @property
    def log(self) -> str:
        """What it wrote since its latest start."""
        with self._log.open("rb") as log:
            log.seek(self._boot_begins)
            return log.read().decode("utf-8", "replace")

    @property
    def installation_id(self) -> str:
        return (self.data_dir / "installation_id").read_text().strip()

    def containers(self, **labels: str) -> list[dict[str, Any]]:
        """Its functions' containers in any state, as the engine lists them; `faas.<keyword>` labels narrow them."""
        wanted = [f"{INSTALLATION_LABEL}={self.installation_id}", *(f"faas.{k}={v}" for k, v in labels.items())]
        return [entry for entry in self._listed(wanted) if ROLE_LABEL not in entry["Labels"]]

    def all_containers(self) -> list[dict[str, Any]]:
        """Its containers in any state, those that only hold a network too."""
        return self._listed([f"{INSTALLATION_LABEL}={self.installation_id}"])

    def is_alive(self, container_id: str) -> bool:
        """Whether a container's process runs. The engine's list is some milliseconds behind, an inspection is not."""
        try:
            return bool(self._engine.inspect_container(container_id)["State"]["Running"])
        except NotFound:
            return False

    def memory_mib(self, field: str) -> float:
        """A figure of the process's memory: VmRSS now, VmHWM at its height since `forget_memory_peak`."""
        found = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text(), re.MULTILINE)
        assert found
        return int(found[1]) / 1024

    def forget_memory_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def api(self) -> httpx.Client:
        """A client of its control API, to be closed by the caller."""
        return httpx.Client(base_url=self.url, timeout=REQUEST_TIMEOUT_S)

    def stats(self) -> dict[str, int]:
        with self.api() as api:
            answer: dict[str, int] = api.get("/stats").json()
        return answer

    def busy_containers(self) -> int:
        """How many hot containers run a call, not counting one that waits for its container."""
        with self.api() as api:
            found = re.search(r'^faas_containers\{state="busy"\} (\S+)$', api.get("/metrics").text, re.MULTILINE)
        assert found
        return round(float(found[1]))

    def record(self, call_id: str, *, wait_s: float = 0) -> dict[str, Any]:
        """A call's record, after its end when that comes within `wait_s`."""
        with self.api() as api:
            answer = api.get(f"/v1/calls/{call_id}", params={"wait": wait_s})
        assert answer.status_code == 200, answer.text
        call: dict[str, Any] = answer.json()["call"]
        return call

    def container_of(self, call_id: str) -> str:
        """The id of the container that ran a call."""
        container_id: str = self.record(call_id)["attempts"][-1]["container_id"]
        return container_id

    def _listed(self, labels: list[str]) -> list[dict[str, Any]]:
        return self._engine.containers(all=True, filters={"label": labels})  # type: ignore[no-any-return]

    def _address(self) -> str:
        found = re.search(r"event=node_started url=(http://\S+)", self.log)
        return found[1] if found else ""


@contextmanager
def running_node(folder: Path, engine: docker.APIClient, **settings: object) -> Iterator[NodeProcess]:
    """A node for a while. Afterwards: it ends by SIGTERM with 0 (unless the test ended it), has logged no traceback,
    and has left no container."""
    node = NodeProcess(folder, engine, **settings)
    try:
        node.start()
        yield node
        if node.is_running:
            node.terminate()
            code = node.wait()
            assert code == 0, f"exit code {code}:\n{node.log[-LOG_TAIL:]}"
            left = [f"{entry['Names']} ({entry['State']})" for entry in node.all_containers()]
            assert not left, f"the node left containers behind: {left}\n{node.log[-LOG_TAIL:]}"
        assert "Traceback" not in node.log, node.log[-LOG_TAIL:]
    finally:
        if node.is_running:
            node.kill()
        with suppress(FileNotFoundError):
            remove_installation(engine, node.installation_id)


class App:
    """An app of one test's own."""

    def __init__(self, node: NodeProcess, name: str = "", *, config: dict[str, str] | None = None) -> None:
        self.node = node
        self.name = name or f"app-{os.getpid()}-{next(_numbers)}"
        self._paths: set[str] = set()
        self._ask("POST", "/v1/apps", {"app": {"name": self.name, "config": config or {}}})

    def deploy(self, path: str, image: str, **fields: object) -> str:
        """Make a route for one of `tests/functions`, or any image; returns where it answers."""
        defaults: dict[str, object] = {"memory": 64, "timeout": 60}
        if image in FORMATS:
            defaults["format"] = FORMATS[image]
            image = f"faas/test-{image}:local"
        route = {**defaults, "path": path, "image": image, **fields}
        self._ask("POST", f"/v1/apps/{self.name}/routes", {"route": route})
        self._paths.add(path)
        return f"/r/{self.name}{path}"

    def change(self, path: str, **fields: object) -> None:
        self._ask("PATCH", f"/v1/apps/{self.name}/routes{path}", {"route": fields})

    def remove(self, path: str) -> None:
        self._ask("DELETE", f"/v1/apps/{self.name}/routes{path}")
        self._paths.discard(path)

    def containers(self, path: str) -> list[dict[str, Any]]:
        """A route's containers in any state, but the one that was created ahead."""
        return [one for one in self.node.containers(app=self.name, route=path) if one["State"] != "created"]

    def running(self, path: str) -> list[str]:
        """Ids of a route's containers whose process runs."""
        listed = [entry["Id"] for entry in self.containers(path) if entry["State"] == "running"]
        return [container_id for container_id in listed if self.node.is_alive(container_id)]

    def close(self) -> None:
        """Remove it, when its node still serves."""
        if self.node.is_running:
            for path in list(self._paths):
                self.remove(path)
            self._ask("DELETE", f"/v1/apps/{self.name}")

    def _ask(self, method: str, url: str, body: object = None) -> None:
        with self.node.api() as api:
            answer = api.request(method, url, json=body)
        assert answer.status_code == 200, f"{method} {url}: {answer.status_code} {answer.text}"
