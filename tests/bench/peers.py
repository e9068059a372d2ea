"""The servers that ours is compared with: nginx in front of the same function's socket, and Fn with the same image."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING

import httpx

from tests.bench.processes import free_port, running
from tests.bench.servers import HOT, Served, node

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.bench.plan import Bench
    from tests.bench.servers import Node

__all__ = ["NGINX", "fn", "nginx", "node_and_nginx"]

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
    location /stream {{
      proxy_pass http://function;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_request_buffering off;
      proxy_buffers 16 128k;
      proxy_buffer_size 128k;
      proxy_busy_buffers_size 256k;
      proxy_max_temp_file_size 0;
    }}
  }}
}}
"""
"""One worker, no access log, kept connections to the function, buffers that hold every body of a load.

Below `/stream` nothing is kept: by default nginx has a whole request on disk before it passes on its first byte.
"""

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
"""Where Debian has it, which is on root's PATH alone."""

FN_APP = FN_NAME = "bench"
FN_LABEL = "faas-bench"
"""Fn removes what an earlier run of this benchmark has left, and nothing else."""


@contextlib.contextmanager
def nginx(bench: Bench, function_socket: Path) -> Iterator[Served]:
    """nginx with one worker in front of a function's socket."""
    folder = bench.folder
    port = free_port()
    conf = folder / "nginx.conf"
    conf.write_text(NGINX_CONF.format(folder=folder, socket=function_socket, port=port))
    url = f"http://127.0.0.1:{port}"
    command = [NGINX, "-e", str(folder / "nginx.err"), "-c", str(conf)]
    with running(command, log_path=folder / "nginx.log", is_ready=lambda: _answers(url)) as pid:
        yield Served(url=url, pid=pid)


@contextlib.contextmanager
def node_and_nginx(bench: Bench, image: str, **fields: object) -> Iterator[tuple[Node, Served]]:
    """A node, and nginx in front of a function in a container of that node which nobody else calls.

    So both have containers of the same kind, and neither waits for what the other has left in one.
    """
    with node(bench) as ours:
        first = ours.deploy("/nginx", image, **{**HOT, **fields})
        ours.http.post(first.url, content=b"start").raise_for_status()
        with nginx(bench, ours.function_socket()) as theirs:
            yield ours, theirs


@contextlib.contextmanager
def fn(bench: Bench, image: str) -> Iterator[Served]:
    """Fn's server as it comes, with one function. Source: fnproject/fn, docs/swagger_v2.yml and api/agent/config.go."""
    folder = bench.folder / "fn"
    sockets = folder / "iofs"
    sockets.mkdir(parents=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    env = {
        "FN_PORT": str(port),
        "FN_DB_URL": f"sqlite3://{folder}/fn.db",
        "FN_IOFS_PATH": str(sockets),
        "FN_LOG_LEVEL": "error",
        "FN_CONTAINER_LABEL_TAG": FN_LABEL,
    }
    command = [str(bench.plan.fn_server)]
    with running(command, log_path=folder / "log", is_ready=lambda: _answers(f"{url}/version"), env=env) as pid:
        app_id = _created(f"{url}/v2/apps", name=FN_APP)
        limits = {name: HOT[name] for name in ("memory", "timeout", "idle_timeout")}
        fn_id = _created(f"{url}/v2/fns", name=FN_NAME, app_id=app_id, image=image, **limits)
        yield Served(url=f"{url}/invoke/{fn_id}", pid=pid, containers=lambda: len(list(sockets.iterdir())))


def _created(url: str, **what: object) -> str:
    answer = httpx.post(url, json=what)
    if answer.status_code != 200:
        raise RuntimeError(f"{url}: {answer.status_code} {answer.text}")
    name: str = answer.json()["id"]
    return name


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False
