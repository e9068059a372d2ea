"""A small image registry in this process: just what a pull asks for, with a login and with faults on request.

The real one can be had neither everywhere nor hanging.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Registry", "running_registry"]

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"


class Registry:
    """Serves one-file images `NAME:TAG`; counts who asks."""

    def __init__(self) -> None:
        self.login: tuple[str, str] | None = None
        """User and password that a pull must bring."""
        self.hangs = threading.Event()
        """While set, manifests are not answered."""
        self.manifest_requests = 0
        self.address = ""
        self._blobs: dict[str, bytes] = {}
        self._manifests: dict[tuple[str, str], bytes] = {}
        self._released = threading.Condition()

    def add(self, name: str, *, architecture: str = "amd64", content: bytes = b"") -> str:
        """Make an image; returns its reference."""
        layer = _tar(content)
        layer_gz = gzip.compress(layer, mtime=0)
        config = json.dumps(
            {
                "architecture": architecture,
                "os": "linux",
                "config": {"Cmd": ["/file"]},
                "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
            }
        ).encode()
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": self._put(config, "application/vnd.docker.container.image.v1+json"),
                "layers": [self._put(layer_gz, "application/vnd.docker.image.rootfs.diff.tar.gzip")],
            }
        ).encode()
        for reference in ("latest", _digest(manifest)):
            self._manifests[name, reference] = manifest
        return f"{self.address}/{name}:latest"

    def stop_hanging(self) -> None:
        """Let go of all requests that hang."""
        self.hangs.clear()
        with self._released:
            self._released.notify_all()

    def answer(self, path: str, authorization: str) -> tuple[int, str, bytes]:
        """Status, content type and body for a GET."""
        if self.login and authorization != "Basic " + base64.b64encode(":".join(self.login).encode()).decode():
            return 401, "application/json", _error("UNAUTHORIZED", "authentication required")
        if path == "/v2/":
            return 200, "application/json", b"{}"
        name, _, rest = path.removeprefix("/v2/").partition("/manifests/")
        if rest:
            self.manifest_requests += 1
            with self._released:
                self._released.wait_for(lambda: not self.hangs.is_set())
            manifest = self._manifests.get((name, rest))
            return (200, MANIFEST_TYPE, manifest) if manifest else _not_found("MANIFEST_UNKNOWN")
        blob = self._blobs.get(path.rpartition("/")[2])
        return (200, "application/octet-stream", blob) if blob else _not_found("BLOB_UNKNOWN")

    def _put(self, blob: bytes, media_type: str) -> dict[str, Any]:
        self._blobs[_digest(blob)] = blob
        return {"mediaType": media_type, "size": len(blob), "digest": _digest(blob)}


@contextmanager
def running_registry() -> Iterator[Registry]:
    """A registry on a free port of this machine, which the engine trusts without TLS."""
    registry = Registry()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, content_type, body = registry.answer(self.path, self.headers.get("Authorization", ""))
            self.send_response(status)
            if status == 401:
                self.send_header("WWW-Authenticate", 'Basic realm="test"')
            self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
            self.send_header("Docker-Content-Digest", _digest(body))
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    registry.address = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, name="registry")
    thread.start()
    try:
        yield registry
    finally:
        registry.stop_hanging()
        server.shutdown()
        thread.join()
        server.server_close()


def _tar(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("file")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _error(code: str, message: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()


def _not_found(code: str) -> tuple[int, str, bytes]:
    return 404, "application/json", _error(code, "unknown")
