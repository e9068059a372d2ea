"""Sees to a Docker Engine that answers: installs and starts one where that is allowed, else says what to do.

An engine that this starts by itself (no systemd) leaves its process id in build/dockerd.pid, so that whoever wants the
machine as it was can stop it.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import docker
from docker.errors import DockerException

ROOT = Path(__file__).parents[1]
PID_FILE = ROOT / "build" / "dockerd.pid"
LOG_FILE = Path("/var/log/dockerd.log")
LOCAL_SOCKET = "unix:///var/run/docker.sock"

START_TIMEOUT_S = 60
POLL_S = 0.2
SHOWN_LOG_LINES = 15

APPARMOR = Path("/sys/module/apparmor/parameters/enabled")


def main() -> None:
    """Exit 0 with an engine that answers, 1 with one sentence."""
    problem = find_problem()
    if problem is None:
        return
    if isinstance(problem, PermissionError):
        sys.exit(
            "Docker Engine is running, but this account may not use it: add it to the group docker "
            "(sudo usermod -aG docker $USER) and log in again."
        )
    elsewhere = os.environ.get("DOCKER_HOST", LOCAL_SOCKET)
    if elsewhere not in (LOCAL_SOCKET, "unix:///run/docker.sock"):
        sys.exit(f"Docker Engine does not answer at DOCKER_HOST={elsewhere}: {problem}")
    if not shutil.which("dockerd"):
        install()
    start()


def find_problem() -> BaseException | None:
    """What keeps the engine from answering; None when it answers."""
    try:
        with contextlib.closing(docker.from_env()) as client:
            client.ping()
    except DockerException as error:
        # The SDK wraps requests' error, which wraps urllib3's, which wraps what the socket said.
        cause: BaseException = error
        while (inner := cause.__cause__ or cause.__context__) is not None:
            cause = inner
        return cause
    return None


def install() -> None:
    """Install the distribution's engine, as root on Debian or Ubuntu."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        sys.exit(
            "Docker Engine is needed and not installed: install it (Debian or Ubuntu: sudo apt-get install docker.io; "
            "elsewhere: https://docs.docker.com/engine/install) and run this again."
        )
    packages = ["docker.io"]
    if APPARMOR.exists() and APPARMOR.read_text().strip() == "Y":
        packages.append("apparmor")  # only recommended by docker.io; with such a kernel no container starts without
    subprocess.run([ROOT / "scripts" / "apt-install.sh", *packages], check=True)


def start() -> None:
    """Start the installed engine, as root, and wait until it answers."""
    if os.geteuid() != 0:
        sys.exit("Docker Engine is installed but not running: start it (sudo systemctl start docker) and try again.")
    sys.stderr.write("starting the Docker Engine\n")
    daemon = None
    if Path("/run/systemd/system").exists():
        subprocess.run(["systemctl", "start", "docker"], check=True)
    else:
        with LOG_FILE.open("wb") as log:
            daemon = subprocess.Popen(
                ["dockerd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        PID_FILE.parent.mkdir(exist_ok=True)
        PID_FILE.write_text(f"{daemon.pid}\n")
    deadline = time.monotonic() + START_TIMEOUT_S
    while (problem := find_problem()) is not None:
        if daemon and daemon.poll() is not None:
            give_up("dockerd ended at once; the end of its log:")
        if time.monotonic() > deadline:
            give_up(f"Docker Engine does not answer after {START_TIMEOUT_S} s ({problem}); the end of its log:")
        time.sleep(POLL_S)


def give_up(reason: str) -> None:
    """Exit 1 with the reason and the last lines of the log."""
    lines = LOG_FILE.read_text(errors="replace").splitlines() if LOG_FILE.exists() else ["(journalctl -u docker)"]
    sys.exit("\n".join([reason, *lines[-SHOWN_LOG_LINES:]]))


if __name__ == "__main__":
    main()
