"""Real nodes for the end-to-end tests: one that most share, one with small limits, and own ones to kill."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.e2e.wire import Wire
from tests.functions.build import ensure_images
from tests.support.node import REQUEST_TIMEOUT_S, App, NodeProcess, running_node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator
    from pathlib import Path

    import docker

    StartNode = Callable[..., NodeProcess]
    MakeApp = Callable[..., App]

LOG_TAIL = 4000

ROOMY = {"memory_mib": 6144, "start_timeout_s": 60, "queue_timeout_s": 60, "max_parallel_starts": 2}

SMALL = {
    "memory_mib": 160,
    "queue_timeout_s": 2,
    "start_timeout_s": 5,
    "max_request_bytes": 256 * 1024,
    "max_buffered_request_bytes": 64 * 1024,
    "max_result_bytes": 32 * 1024,
    "max_response_bytes": 1024 * 1024,
    "max_log_bytes": 4096,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith("tests/e2e/"):
            item.add_marker(pytest.mark.docker)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the logs of a failed test's nodes."""
    report = yield
    if report.failed:
        values = getattr(item, "funcargs", {}).values()
        nodes = {
            value.node if isinstance(value, App) else value for value in values if isinstance(value, App | NodeProcess)
        }
        report.sections += [(f"log of {node}", node.log[-LOG_TAIL:]) for node in nodes]
    return report


@pytest.fixture(scope="session")
def function_images(docker_client: docker.APIClient) -> dict[str, str]:
    return ensure_images()


@pytest.fixture(scope="session")
def node(
    docker_client: docker.APIClient, function_images: object, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NodeProcess]:
    """The node that most tests share."""
    with running_node(tmp_path_factory.mktemp("node"), docker_client, **ROOMY) as node:
        yield node


@pytest.fixture(scope="session")
def small_node(
    docker_client: docker.APIClient, function_images: object, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NodeProcess]:
    """A node whose every limit is small."""
    with running_node(tmp_path_factory.mktemp("small-node"), docker_client, **SMALL) as node:
        yield node


@pytest.fixture
def start_node(
    docker_client: docker.APIClient, function_images: object, tmp_path: Path
) -> Iterator[Callable[..., NodeProcess]]:
    """Starts a node of the test's own; keywords are settings."""
    with ExitStack() as stack:

        def start(name: str = "node", **settings: object) -> NodeProcess:
            folder = tmp_path / name
            folder.mkdir()
            return stack.enter_context(running_node(folder, docker_client, **{**ROOMY, **settings}))

        yield start


@pytest.fixture
def app(node: NodeProcess) -> Iterator[App]:
    """An app of the test's own on the shared node."""
    app = App(node)
    yield app
    app.close()


@pytest.fixture
def small_app(small_node: NodeProcess) -> Iterator[App]:
    """An app of the test's own on the small node."""
    app = App(small_node)
    yield app
    app.close()


@pytest.fixture(scope="session")
def shared_app(node: NodeProcess) -> Iterator[App]:
    """The app of the functions below."""
    app = App(node, "shared")
    yield app
    app.close()


@pytest.fixture(scope="session")
def echo(shared_app: App) -> str:
    """A hot function that answers its body, for tests that leave its containers alone."""
    return shared_app.deploy("/echo", "echo", idle_timeout=600)


@pytest.fixture(scope="session")
def misfit(shared_app: App) -> str:
    """A hot function that does what `X-Mode` says, for modes that leave its containers alone."""
    return shared_app.deploy("/misfit", "misfit", idle_timeout=600)


@pytest.fixture(scope="session")
def stream(shared_app: App) -> str:
    """A hot function that answers the size and checksum of its body, or as many bytes as it is asked for."""
    return shared_app.deploy("/stream", "stream", idle_timeout=600)


@pytest.fixture(scope="session")
def stdio_echo(shared_app: App) -> str:
    """A hot function on standard input and output that answers its body."""
    return shared_app.deploy("/stdio-echo", "stdio-echo", idle_timeout=600)


@pytest.fixture(scope="session")
def cat(shared_app: App) -> str:
    """A cold function that answers its body."""
    return shared_app.deploy("/cat", "cat")


@pytest.fixture
async def client(node: NodeProcess) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the shared node."""
    async with httpx.AsyncClient(base_url=node.url, timeout=REQUEST_TIMEOUT_S) as client:
        yield client


@pytest.fixture
async def small_client(small_node: NodeProcess) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the small node."""
    async with httpx.AsyncClient(base_url=small_node.url, timeout=REQUEST_TIMEOUT_S) as client:
        yield client


@pytest.fixture
async def wire(node: NodeProcess) -> AsyncIterator[Wire]:
    """A connection to the shared node, byte by byte."""
    async with Wire(node.url) as wire:
        yield wire
