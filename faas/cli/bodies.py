"""What `faas call` sends: text, a file, or standard input as it comes."""

from __future__ import annotations

import io
import os
import stat
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from faas.cli.errors import ClientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Body", "file_body", "stdin_body", "text_body"]

FIRST_CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A request's body: what is at hand, and how to read on (`b""` is the end; it may block)."""

    first: bytes
    read: Callable[[int], bytes] | None = None
    length: int | None = None
    """In bytes, where it is known; else the body goes in chunks."""


def text_body(text: str) -> Body:
    """A text, as UTF-8."""
    content = text.encode()
    return Body(first=content, length=len(content))


@contextmanager
def file_body(path: str) -> Iterator[Body]:
    """A file, read as it is sent; raises `ClientError` when it can't be."""
    try:
        file: BinaryIO = open(path, "rb", buffering=0)  # noqa: SIM115 - closed below
    except OSError as error:
        raise _unreadable(path, error) from error
    with file:
        try:
            status = os.fstat(file.fileno())
            first = file.read(FIRST_CHUNK_BYTES)
        except OSError as error:
            raise _unreadable(path, error) from error
        yield Body(first=first, read=file.read, length=status.st_size if stat.S_ISREG(status.st_mode) else None)


def stdin_body() -> Body | None:
    """Standard input, or `None` when a terminal is behind it."""
    if sys.stdin is None or sys.stdin.isatty():
        return None
    try:
        descriptor = sys.stdin.fileno()
    except io.UnsupportedOperation:
        return Body(first=sys.stdin.buffer.read(FIRST_CHUNK_BYTES), read=sys.stdin.buffer.read)

    def read(size: int) -> bytes:
        # Past Python's buffer, whose lock a thread that waits for input would hold while the interpreter ends.
        return os.read(descriptor, size)

    return Body(first=read(FIRST_CHUNK_BYTES), read=read)


def _unreadable(path: str, error: OSError) -> ClientError:
    return ClientError(f"Can't read {path}: {error.strerror}", code="bad_data")
