"""Counts words, over IronFunctions' hot protocol: HTTP requests on standard input, answers on standard output.

One container serves many calls, one after the other. Nothing else may be printed to standard output.
"""

import http.client
import json
import sys
from typing import BinaryIO


def main() -> None:
    """Serve calls until standard input is closed."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    served = 0
    while requests.readline():  # always `GET / HTTP/1.1`; the caller's method is the header Method
        headers = http.client.parse_headers(requests)
        words = requests.read(int(headers.get("Content-Length", 0))).split()
        served += 1
        answer(answers, {"words": len(words), "calls_of_this_container": served})
        # Standard error is the log.
        print(f"call {headers.get('Task-ID')}: {len(words)} words", file=sys.stderr, flush=True)


def answer(stream: BinaryIO, result: dict[str, int]) -> None:
    """Write one HTTP answer."""
    body = json.dumps(result).encode() + b"\n"
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    stream.write(head.encode() + body)
    stream.flush()


if __name__ == "__main__":
    main()
