"""A function of format http (HTTP over standard input and output) that misbehaves as MODE says, for tests."""

import http.client
import os
import signal
import sys
import time

MODE = os.environ.get("MODE", "ok")


def main() -> None:
    """Serve requests until standard input is closed."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    requests = sys.stdin.buffer
    while requests.readline():
        headers = http.client.parse_headers(requests)
        body = requests.read(int(headers.get("Content-Length", 0)))
        print(f"call of {len(body)} bytes", file=sys.stderr, flush=True)
        answer(body)


def answer(body: bytes) -> None:
    """Answer one call, or don't."""
    proper = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    match MODE:
        case "garbage":
            write(b"this is not HTTP at all\r\n\r\n\0\1\2")
        case "stdout_print":  # the classic: a print() left in the code
            write(b"debug: got here\n" + proper)
        case "extra_bytes":  # more than the answer: would be taken for the next call's
            write(proper + b"more")
        case "status":  # an own status and header
            write(b"HTTP/1.1 404 Not Found\r\nX-Own: shown\r\nContent-Length: 4\r\n\r\nown\n")
        case "chunked":
            write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        case "exit":
            os._exit(3)
        case "exit_midbody":
            write(proper[:-1])
            os._exit(3)
        case "exit_after_answer":
            write(proper)
            os._exit(0)
        case "never":
            time.sleep(3600)
        case "slow":  # after SECONDS (1)
            time.sleep(float(os.environ.get("SECONDS", "1")))
            write(proper)
        case _:
            write(proper)


def write(data: bytes) -> None:
    """Send bytes as they are."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
