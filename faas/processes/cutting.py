"""Cuts what a client sends so that no piece has bytes of two requests: a connection can be handed over between them.

The parser says that a request has begun or ended, but not where in the bytes; so the ends are looked for here, and a
piece at a time goes to the parser.
"""

from __future__ import annotations

import re

__all__ = ["RequestCutter"]

_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)


class RequestCutter:
    """Follows one connection. What is no HTTP is cut somewhere: the parser will refuse it."""

    __slots__ = ("_body_left", "_is_chunked", "_is_in_head", "_tail", "begun")

    def __init__(self) -> None:
        self.begun = b""
        """What came of the request whose head is not complete, or has become complete with the latest piece."""
        self._is_in_head = True
        self._is_chunked = False
        self._body_left = 0
        self._tail = b""
        """The last bytes of a chunked body: its end may come in two packets."""

    def next_piece(self, data: bytes, *, is_between: bool) -> int:
        """How many bytes of `data`, which is not empty, belong together; to be called again for the rest.

        `is_between` says that the parser has seen the end of the last request, and nothing of the next one.
        """
        if is_between:
            self.begun = b""
            self._is_in_head = True
        if self._is_in_head:
            return self._head(data)
        self.begun = b""
        if self._is_chunked:
            return self._chunks(data)
        size = min(self._body_left, len(data)) or len(data)
        self._body_left -= size
        return size

    def _head(self, data: bytes) -> int:
        known = len(self.begun)
        whole = self.begun + data
        end = whole.find(_END, max(0, known - 3)) + 4
        if end < 4:
            self.begun = whole
            return len(data)
        self._is_in_head = False
        head = whole[:end]
        self._is_chunked = _CHUNKED.search(head) is not None
        self._tail = b""
        length = None if self._is_chunked else _LENGTH.search(head)
        body = min(int(length[1]), len(whole) - end) if length is not None else 0
        self._body_left = int(length[1]) - body if length is not None else 0
        self.begun = whole[: end + body]
        return end + body - known

    def _chunks(self, data: bytes) -> int:
        """The end of a chunked body, with its trailers, is an empty line; so may be others in it."""
        window = self._tail + data
        end = window.find(_END) + 4
        if end < 4:
            self._tail = window[-3:]
            return len(data)
        size = end - len(self._tail)
        self._tail = b""
        return size
