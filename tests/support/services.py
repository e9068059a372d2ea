"""Real Redis and real PostgreSQL for the tests: started on free ports in temporary folders, stopped by their pid.

A missing binary skips the test on a laptop and fails it where `FAAS_TEST_REQUIRE=1` (CI). Both servers are told by the
kernel to end when the test process dies, so that a killed run leaves nothing behind either.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from tests.support.waiting import wait_until_blocking

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PostgresServer", "RedisServer", "free_port", "missing"]

STOP_TIMEOUT_S = 20.0
REDIS_OPTIONS = ("--save", "", "--appendonly", "no", "--daemonize", "no", "--bind", "127.0.0.1")
POSTGRES_OPTIONS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200")
"""Tests start from nothing: what a power failure would lose is not theirs to keep."""


def missing(what: str) -> NoReturn:
    """Skip on a laptop, fail in CI: a real service that should be here is not."""
    message = f"{what} is not installed"
    if os.environ.get("FAAS_TEST_REQUIRE") == "1":
        pytest.fail(message + " and FAAS_TEST_REQUIRE=1", pytrace=False)
    pytest.skip(message)


def free_port() -> int:
    """A TCP port of the loopback address that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int, greeting: bytes, expected: bytes) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(greeting)
            return connection.recv(len(expected)) == expected
    except OSError:
        return False


def _privileges(*options: str) -> list[str]:
    """A command prefix that ties a child to this process; empty where setpriv is missing."""
    return ["setpriv", "--pdeathsig", "KILL", *options] if shutil.which("setpriv") else []


@contextmanager
def _running(command: list[str], log: Path, *, stop_signal: signal.Signals) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.send_signal(stop_signal)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# --- Redis --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RedisServer:
    """A running redis-server of our own."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


@contextmanager
def running_redis(folder: Path, *options: str, port: int | None = None) -> Iterator[RedisServer]:
    """Start a redis-server in the folder, wait until it answers, stop it in the end."""
    if shutil.which("redis-server") is None:
        missing("redis-server")
    port = port or free_port()
    command = [*_privileges(), "redis-server", "--port", str(port), "--dir", str(folder), *REDIS_OPTIONS, *options]
    log = folder / "redis.log"
    with _running(command, log, stop_signal=signal.SIGTERM) as process:
        wait_until_blocking(lambda: _answers(port, b"PING\r\n", b"+PONG") or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield RedisServer(port, process)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One Redis for the whole run."""
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of an empty Redis."""
    with socket.create_connection(("127.0.0.1", redis_server.port), timeout=5) as connection:
        connection.sendall(b"FLUSHALL\r\n")
        assert connection.recv(16).startswith(b"+OK")
    return redis_server.url


# --- PostgreSQL ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PostgresServer:
    """A running PostgreSQL of our own; every test gets a database of its own in it."""

    port: int
    programs: Path
    process: subprocess.Popen[bytes]
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def url(self, database: str) -> str:
        return f"postgresql+asyncpg://postgres@127.0.0.1:{self.port}/{database}"

    def sql(self, statement: str) -> None:
        """Run one statement as the administrator."""
        program = str(self.programs / "psql")
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres"]
        subprocess.run([program, *where, "-qXc", statement], check=True, capture_output=True)

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a new, empty database."""
        name = f"test_{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name} STRATEGY wal_log")
        try:
            yield self.url(name)
        finally:
            self.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def _postgres_programs() -> Path:
    """The folder of `postgres`: on PATH, or where Debian puts its newest."""
    if on_path := shutil.which("postgres"):
        return Path(on_path).resolve().parent
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if not found:
        missing("PostgreSQL")
    return found[-1].parent


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Start PostgreSQL in a new temporary folder, wait until it answers, stop it in the end."""
    programs = _postgres_programs()
    # Not pytest's temporary folder: that one is closed to the user postgres, as whom root has to run it.
    folder = Path(tempfile.mkdtemp(prefix="faas-postgres-"))
    prefix = _privileges()
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
        prefix = _privileges("--reuid=postgres", "--regid=postgres", "--clear-groups")
    try:
        data = str(folder / "data")
        initdb = [str(programs / "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"]
        subprocess.run([*prefix, *initdb, "--locale=C"], check=True, capture_output=True, cwd=folder)
        port = free_port()
        settings = [f"unix_socket_directories={folder}", "listen_addresses=127.0.0.1", *POSTGRES_OPTIONS]
        command = [*prefix, str(programs / "postgres"), "-D", data, "-p", str(port)]
        command += [part for setting in settings for part in ("-c", setting)]
        # SIGINT is PostgreSQL's fast shutdown: it ends the sessions that are left.
        with _running(command, folder / "postgres.log", stop_signal=signal.SIGINT) as process:
            ready = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
            wait_until_blocking(lambda: subprocess.run(ready, check=False).returncode == 0)
            yield PostgresServer(port, programs, process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One PostgreSQL for the whole run."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a new, empty database."""
    with postgres_server.database() as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of a database file that does not exist yet."""
    return f"sqlite+aiosqlite:///{tmp_path / 'faas.db'}"
