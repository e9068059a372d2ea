"""Our node, with an app to measure on it, and what a server is to those who measure."""

from __future__ import annotations

import contextlib
import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from tests.bench.processes import memory_mib
from tests.support.node import NodeProcess, running_node
from tests.support.waiting import wait_until_blocking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.bench.plan import Bench

__all__ = ["HOT", "MANY_CALLS", "Node", "Served", "node"]

APP = "bench"
SETTLE_TIMEOUT_S = 120.0

NODE_MEMORY_MIB = 4096
"""Enough for all containers of a run at the same time, whatever the machine has free; they use little of it."""

QUEUE_TIMEOUT_S = 120.0
"""The first of many calls at once wait until a container for each has been started."""

HOT = {"format": "http-stream", "memory": 16, "idle_timeout": 3600, "timeout": 120}
"""It stays longer than a section takes: nginx's container is idle in our node's eyes, nginx calls it past the node."""

MANY_CALLS = {**HOT, "concurrency": 128}
"""Like for like with nginx, which opens as many connections to the one container as it has calls."""

_folders = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A function behind a server."""

    url: str
    pid: int
    """The server's process; its children belong to it."""
    containers: Callable[[], int] = lambda: 1
    """How many containers there are for it, started or starting."""
    settle: Callable[[], None] = lambda: None
    """Wait until nothing goes on that a load has left behind: wrk hangs up in the middle of calls."""


class Node:
    """A running node and its app `bench`."""

    def __init__(self, process: NodeProcess, http: httpx.Client) -> None:
        self.http = http
        self.pid = process.pid
        self._process = process

    def deploy(self, path: str, image: str, **fields: object) -> Served:
        """Create a route; raises when the node does not know one of the fields, which would be measured unawares."""
        answer = self.http.post(f"/v1/apps/{APP}/routes", json={"route": {"path": path, "image": image, **fields}})
        if answer.status_code != 200:
            raise RuntimeError(f"{path}: {answer.status_code} {answer.text}")
        route = answer.json()["route"]
        if unknown := [name for name, value in fields.items() if route.get(name) != value]:
            raise RuntimeError(f"{path}: the node ignores {', '.join(unknown)}")
        return Served(
            url=f"{self._process.url}/r/{APP}{path}", pid=self.pid, containers=self.containers, settle=self.settle
        )

    def remove(self, path: str) -> None:
        """Delete a route; its containers go with it."""
        self.http.delete(f"/v1/apps/{APP}/routes{path}").raise_for_status()

    def containers(self) -> int:
        """How many there are, in any state."""
        return sum(self._containers_by_state().values())

    def settle(self) -> None:
        """Wait until no container is being started or stopped and no call runs."""
        wait_until_blocking(
            lambda: not any(self._containers_by_state().get(state) for state in _RESTLESS),
            timeout_s=SETTLE_TIMEOUT_S,
        )

    def function_socket(self) -> Path:
        """The socket of the one hot container there is."""
        sockets = list((self._process.data_dir / "sockets").glob("*/lsnr.sock"))
        if len(sockets) != 1:
            raise RuntimeError(f"expected one hot container, found {len(sockets)}")
        return sockets[0]

    def memory_mib(self, field: str = "VmRSS") -> float:
        """See `processes.memory_mib`."""
        return memory_mib(self.pid, field)

    def _containers_by_state(self) -> dict[str, int]:
        text = self.http.get("/metrics").raise_for_status().text
        found = re.findall(r'^faas_containers\{.*?state="(\w+)".*?\} (\S+)$', text, re.MULTILINE)
        return {state: round(float(count)) for state, count in found}


_RESTLESS = ("starting", "busy", "stopping")


@contextlib.contextmanager
def node(bench: Bench, **settings: Any) -> Iterator[Node]:
    """Start a node on a free port with data of its own; stop it afterwards, when it must leave no container."""
    folder = bench.folder / f"node-{next(_folders)}"
    folder.mkdir()
    settings = {"memory_mib": NODE_MEMORY_MIB, "queue_timeout_s": QUEUE_TIMEOUT_S, **settings}
    with (
        running_node(folder, bench.engine, **settings) as process,
        httpx.Client(base_url=process.url, timeout=QUEUE_TIMEOUT_S) as http,
    ):
        yield Node(process, http)
