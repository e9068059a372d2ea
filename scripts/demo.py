"""`make run`: serves on this machine, deploys the example functions, shows calls of them, serves on until Ctrl-C.

Speaks the public HTTP API only, as any user would; each call is printed as the curl line that repeats it.
"""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import httpx
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
DATA_DIR = ROOT / "data"
LOG_FILE = DATA_DIR / "serve.log"
FAAS = Path(sys.executable).with_name("faas")

HOST = "127.0.0.1"
APP = "demo"
EXAMPLES = ("hello", "echo", "report")

READY_TIMEOUT_S = 60
CALL_TIMEOUT_S = 60
STOP_TIMEOUT_S = 60
POLL_S = 0.1
SHOWN_LOG_LINES = 15
SHOWN_HEADERS = ("Content-Type", "X-Served-By", "X-Call-Id", "Server-Timing")
UNFINISHED = ("delayed", "queued", "running")

console = Console(highlight=False, soft_wrap=True)


class DemoError(Exception):
    """Something did not go as it should; the message says what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An HTTP request that can be sent and be shown as a curl line."""

    url: str
    body: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def curl(self) -> str:
        """The line to type."""
        words = ["curl", "-i"]
        for name, value in self.headers.items():
            words += ["-H", f"{name}: {value}"]
        if self.body is not None:
            words += ["-d", self.body]
        return shlex.join([*words, self.url])

    def send(self, client: httpx.Client) -> httpx.Response:
        """Send it, as curl would."""
        method = "GET" if self.body is None else "POST"
        return client.request(method, self.url, content=self.body, headers=self.headers)


def main() -> None:
    """Exit 0 when stopped by Ctrl-C or SIGTERM, 1 with the reason otherwise."""
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)  # a shell starts what runs in its background deaf to it
    try:
        port = _free_port(os.environ.get("PORT", "8080"))
        with httpx.Client(timeout=CALL_TIMEOUT_S) as client, _server(port) as process:
            base = f"http://{HOST}:{port}"
            _wait_until_ready(client, base, process)
            _deploy(client, base)
            _show_calls(client, base)
            console.print(f"\nServing on [bold]{base}[/bold] (API: {base}/docs, log: {_short(LOG_FILE)})")
            console.print("Ctrl-C stops it.")
            process.wait()
            sys.exit(f"the server ended by itself with exit code {process.returncode}; {_log_tail()}")
    except KeyboardInterrupt:
        signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # the server is gone; an impatient second Ctrl-C has nothing to stop
        console.print("Stopped.")
    except httpx.TransportError as error:
        sys.exit(f"the server did not answer: {error}; {_log_tail()}")
    except DemoError as error:
        sys.exit(str(error))


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


# The server.


def _free_port(port: str) -> int:
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise DemoError(f"PORT={port} is not a port number.")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, int(port)))
        except OSError as error:
            raise DemoError(
                f"Port {port} is not free ({error.strerror}); choose another: make run PORT=8081"
            ) from error
    return int(port)


@contextmanager
def _server(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A running `faas serve`, stopped at the end, politely first; a second Ctrl-C kills it."""
    DATA_DIR.mkdir(exist_ok=True)
    command = [str(FAAS), "serve", "--host", HOST, "--port", str(port), "--data-dir", _short(DATA_DIR)]
    console.print(Text(f"$ {shlex.join([_short(FAAS), *command[1:]])}", style="bold"))
    with LOG_FILE.open("wb") as log:
        # In a session of its own, so that Ctrl-C reaches it once, through us, and not from the terminal as well.
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        try:
            process.terminate()
            process.wait(STOP_TIMEOUT_S)
        except (KeyboardInterrupt, subprocess.TimeoutExpired):
            process.kill()
            process.wait()


def _wait_until_ready(client: httpx.Client, base: str, process: subprocess.Popen[bytes]) -> None:
    started = time.monotonic()
    while time.monotonic() - started < READY_TIMEOUT_S:
        if process.poll() is not None:
            raise DemoError(f"the server ended with exit code {process.returncode}; {_log_tail()}")
        try:
            if client.get(f"{base}/readyz").status_code == httpx.codes.OK:
                return console.print(f"ready after {_duration(time.monotonic() - started)}", style="dim")
        except httpx.TransportError:
            pass
        time.sleep(POLL_S)
    raise DemoError(f"the server was not ready after {READY_TIMEOUT_S} s; {_log_tail()}")


def _log_tail() -> str:
    lines = LOG_FILE.read_text(errors="replace").splitlines()[-SHOWN_LOG_LINES:]
    return "\n".join([f"the end of {_short(LOG_FILE)}:", *lines])


# What is deployed.


def _deploy(client: httpx.Client, base: str) -> None:
    """Bring the app and its routes to what the examples say, whatever was there before."""
    console.print(f"\nThe app [bold]{APP}[/bold]:")
    answer = client.post(f"{base}/v1/apps", json={"app": {"name": APP}})
    if answer.status_code != httpx.codes.CONFLICT:
        _expect(answer, httpx.codes.OK)
    for example in EXAMPLES:
        route = json.loads((ROOT / "examples" / example / "route.json").read_text())["route"]
        url = f"{base}/v1/apps/{APP}/routes"
        answer = client.post(url, json={"route": route})
        if answer.status_code == httpx.codes.CONFLICT:
            # A path can't be changed, and headers would be appended to the ones that are there.
            changes = {name: value for name, value in route.items() if name not in ("path", "headers")}
            answer = client.patch(f"{url}{route['path']}", json={"route": changes})
        _expect(answer, httpx.codes.OK)
        console.print(f"  {route['path']:<8} {route['type']:<6} {route['format']:<12} {route['image']}")


# The transcript.


def _show_calls(client: httpx.Client, base: str) -> None:
    run = f"{base}/r/{APP}"
    text = {"Content-Type": "text/plain"}
    _show("A cold function: a container for each call", client, Request(url=f"{run}/hello", body="Ada"))
    hot = Request(url=f"{run}/echo", body="hello, hello", headers=text)
    _show("A hot function: the first call starts its container", client, hot)
    _show("The second finds it waiting", client, hot)

    order = Request(url=f"{run}/report", body='{"title": "March", "amounts": [120, 80, 40]}')
    accepted = _show("An async function: accepted now, run later", client, order, httpx.codes.ACCEPTED)
    call = f"{base}/v1/calls/{accepted.json()['call_id']}"
    _follow(client, call)
    _show("Its result", client, Request(url=f"{call}/result"))
    _show("Its log", client, Request(url=f"{call}/log"))


def _show(title: str, client: httpx.Client, request: Request, status: int = httpx.codes.OK) -> httpx.Response:
    console.print(f"\n[dim]# {title}[/dim]")
    console.print(Text(f"$ {request.curl()}", style="bold"))
    started = time.perf_counter()
    answer = request.send(client)
    took_s = time.perf_counter() - started
    console.print(Text(f"{answer.http_version} {answer.status_code} {answer.reason_phrase}", style="green"), end="")
    console.print(f"  [dim]{_duration(took_s)}[/dim]")
    for name in SHOWN_HEADERS:
        if name in answer.headers:
            console.print(Text(f"{name}: {answer.headers[name]}", style="dim"))
    console.print(Text(answer.text.rstrip()))
    _expect(answer, status)
    return answer


def _follow(client: httpx.Client, call: str) -> None:
    """Poll a call to its end, a line for each state."""
    request = Request(url=call)
    console.print("\n[dim]# Polled to its end[/dim]")
    console.print(Text(f"$ {request.curl()}", style="bold"))
    started, state = time.monotonic(), ""
    while state in ("", *UNFINISHED):
        if time.monotonic() - started > CALL_TIMEOUT_S:
            raise DemoError(f"the call was still {state} after {CALL_TIMEOUT_S} s; {_log_tail()}")
        answer = request.send(client)
        _expect(answer, httpx.codes.OK)
        record = answer.json()["call"]
        if record["status"] != state:
            state = record["status"]
            console.print(Text(f'"status": "{state}"'), f"  [dim]{_duration(time.monotonic() - started)}[/dim]")
        time.sleep(POLL_S)
    if state != "success":
        raise DemoError(f"the call ended as {state}: {json.dumps(record)}; {_log_tail()}")


def _expect(answer: httpx.Response, status: int) -> None:
    if answer.status_code != status:
        request = f"{answer.request.method} {answer.request.url}"
        raise DemoError(f"{request} answered {answer.status_code} and not {status}: {answer.text}; {_log_tail()}")


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds:.2f} s"


def _short(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


if __name__ == "__main__":
    main()
