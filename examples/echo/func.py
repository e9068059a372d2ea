"""Answers each call with its own body, over Fn's http-stream contract, with nothing but the standard library.

One container serves many calls: an HTTP server on the Unix socket that FN_LISTENER names gets each as `POST /call`.
"""

import os
import signal
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer


class Echo(BaseHTTPRequestHandler):
    """One connection; it is kept open from call to call."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # status, headers and body leave in one write

    def do_POST(self) -> None:
        """Answer one call."""
        body = self._read_body()
        self.send_response(200)  # the call was served; the caller's status is Fn-Http-Status
        self.send_header("Content-Type", self.headers.get("Content-Type", "application/octet-stream"))
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Fn-Http-Status", "200")
        self.send_header("Fn-Http-H-X-Served-By", os.uname().nodename)
        self.end_headers()
        self.wfile.write(body)
        # Standard error is the call's log.
        print(f"echoed {len(body)} bytes of call {self.headers.get('Fn-Call-Id')}", file=sys.stderr, flush=True)

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers
        return b"".join(chunks)

    def log_message(self, *_: object) -> None:
        """Keep the server's own access lines out of the log."""


class Server(ThreadingMixIn, UnixStreamServer):
    """A thread for each connection."""

    daemon_threads = True


def main() -> None:
    """Listen, say so, and serve until SIGTERM."""
    listener = Path(os.environ["FN_LISTENER"].removeprefix("unix:"))
    socket = listener.with_name(f"phony-{listener.name}")
    with Server(str(socket), Echo) as server:
        # The link appears only when the socket listens and may be opened by everybody: that is the sign of being
        # ready. It is relative, because the folder has another path outside of the container.
        socket.chmod(0o666)
        listener.symlink_to(socket.name)
        # A container's first process ignores signals that it has no handler for.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        server.serve_forever()


if __name__ == "__main__":
    main()
