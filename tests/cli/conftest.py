"""A real HTTP server with canned answers, and the command line run against it in this process."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner, Result

from faas.cli.main import app

Faas = Callable[..., Result]
FORGOTTEN = (
    "API_URL",
    "FAAS_JWT_AUTH_KEY",
    "FAAS_ROUTE_JWT_KEY",
    "FAAS_TOKEN",
    "HTTP_PROXY",
    "JWT_AUTH_KEY",
    "SSL_SKIP_VERIFY",
    "http_proxy",
)


@dataclass(frozen=True)
class Received:
    """A request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> object:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """What to send; `chunks` go out one by one, without a length."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    chunks: tuple[bytes, ...] | None = None


@dataclass
class Server:
    """Canned answers by "METHOD /target"; the last one of a list is given for ever."""

    url: str = ""
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)

    def on(self, request: str, *answers: Answer) -> None:
        self.answers[request] = list(answers)

    def on_json(self, request: str, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        content = {"content-type": "application/json", **(headers or {})}
        self.on(request, Answer(status, json.dumps(value).encode(), content))

    def on_error(self, request: str, status: int, code: str, message: str) -> None:
        self.on_json(request, {"error": {"message": message, "code": code}}, status, {"faas-error": code})

    @property
    def requests(self) -> list[str]:
        return [f"{request.method} {request.target}" for request in self.received]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    canned: Server

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline:
            self.close_connection = True
            return
        if self.parse_request():
            self._answer()

    def _answer(self) -> None:
        body = self._body()
        self.canned.received.append(Received(self.command, self.path, dict(self.headers.items()), body))
        answers = self.canned.answers.get(f"{self.command} {self.path}", [Answer(404, b'"Not Found"')])
        answer = answers[0] if len(answers) == 1 else answers.pop(0)
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.chunks is None:
            self.send_header("content-length", str(len(answer.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)
            return
        self.send_header("connection", "close")
        self.end_headers()
        for chunk in answer.chunks:
            self.wfile.write(chunk)
        self.close_connection = True

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body


@pytest.fixture
def server() -> Iterator[Server]:
    canned = Server()
    handler = type("Handler", (_Handler,), {"canned": canned})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        canned.url = f"http://127.0.0.1:{http.server_address[1]}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield canned
        http.shutdown()
        thread.join()


@pytest.fixture
def faas(server: Server, monkeypatch: pytest.MonkeyPatch) -> Faas:
    """Run the command line against the canned server."""
    for name in FORGOTTEN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FAAS_URL", server.url)
    # Nobody's terminal: lines break where the text says, nothing is coloured.
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    runner = CliRunner()

    def run(*arguments: str, stdin: str | bytes | None = None) -> Result:
        return runner.invoke(app, list(arguments), input=stdin)

    return run
