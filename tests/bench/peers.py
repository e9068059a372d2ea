"""The servers that are measured: our node, and nginx in front of the same function's socket."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Node", "Served", "nginx", "node"]

START_TIMEOUT_S = 60.0

NGINX_CONF = """
user root;
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.err;
events {{ worker_connections 2048; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 0;
  client_body_buffer_size 2m;
  upstream function {{ server unix:{socket}; keepalive 256; }}
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    keepalive_requests 1000000000;
    location / {{
      proxy_pass http://function;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffers 16 128k;
      proxy_buffer_size 128k;
      proxy_busy_buffers_size 256k;
    }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Served:
    """A URL, and the process that answers it."""

    url: str
    pid: int

    def cpu_s(self) -> float:
        """CPU time of the process so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Node:
    """A running node of ours."""

    def __init__(self, url: str, pid: int, data_dir: Path) -> None:
        self.url = url
        self.pid = pid
        self.data_dir = data_dir
        self.http = httpx.Client(base_url=url, timeout=120)

    def deploy(self, path: str, image: str, **fields: object) -> Served:
        """Create a route of the app `bench`."""
        route = {"path": path, "image": image, **fields}
        self.http.post("/v1/apps/bench/routes", json={"route": route}).raise_for_status()
        return Served(f"{self.url}/r/bench{path}", self.pid)

    def function_socket(self) -> Path:
        """The socket of the one hot container there is."""
        sockets = list((self.data_dir / "sockets").glob("*/lsnr.sock"))
        if len(sockets) != 1:
            raise RuntimeError(f"expected one hot container, found {len(sockets)}")
        return sockets[0]

    def rss_mib(self) -> float:
        """Resident memory of the process."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextlib.contextmanager
def node(folder: Path) -> Iterator[Node]:
    """Start a node on a free port with its data in `folder`; stop it afterwards."""
    log_path = folder / "node.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "faas", "serve", "--port", "0", "--data-dir", str(folder / "data")], stderr=log
        )
        try:
            yield Node(_await_url(process, log_path), process.pid, folder / "data")
        finally:
            process.terminate()
            process.wait(60)


def _await_url(process: subprocess.Popen[bytes], log_path: Path) -> str:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        match = re.search(r"event=node_started url=(\S+)", log_path.read_text())
        if match:
            return match[1]
        time.sleep(0.05)
    raise RuntimeError(f"the node did not start:\n{log_path.read_text()[-2000:]}")


@contextlib.contextmanager
def nginx(folder: Path, function_socket: Path) -> Iterator[Served]:
    """Start nginx with one worker in front of a function's socket."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    conf = folder / "nginx.conf"
    conf.write_text(NGINX_CONF.format(folder=folder, socket=function_socket, port=port))
    process = subprocess.Popen(["nginx", "-e", str(folder / "nginx.err"), "-c", str(conf)], stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}/call"
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                httpx.post(url, content=b"ready?").raise_for_status()
            except httpx.HTTPError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                break
        yield Served(url, _child_of(process.pid))
    finally:
        process.terminate()
        process.wait(10)


def _child_of(pid: int) -> int:
    """nginx's worker; its master does nothing but wait for it."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
