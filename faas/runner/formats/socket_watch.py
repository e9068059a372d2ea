"""Waiting for a container's Unix socket, and connecting to it without trusting the container.

The function owns the folder: it may make the name a link to any path, and change it at any time. So nothing is ever
opened by following a link: the link's text must be a plain name in the same folder, that entry is opened without
following links, must be a socket, and is connected to through its file descriptor.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import stat
from typing import TYPE_CHECKING, Self

from faas.errors import StartFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

__all__ = ["SocketWatch", "connected_socket", "open_socket"]

FULL_LINE_PAUSE_S = 0.005
"""Until a connection is tried again that the function has no room for."""

_IN_CREATE = 0x100
_IN_MOVED_TO = 0x80

_libc = ctypes.CDLL(None, use_errno=True)


class SocketWatch:
    """Tells when a name appears in a folder, by inotify(7); open it before the container starts."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._fd = -1

    def __enter__(self) -> Self:
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        if _libc.inotify_add_watch(self._fd, os.fsencode(self._folder), _IN_CREATE | _IN_MOVED_TO) < 0:
            error = OSError(ctypes.get_errno(), "inotify_add_watch")
            os.close(self._fd)
            raise error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    async def appeared(self, *, unless: asyncio.Future[None]) -> bool:
        """Return True when the name is there and leads to a socket, False when `unless` was done first.

        Raises `StartFailedError` when the name leads elsewhere.
        """
        loop = asyncio.get_running_loop()
        while not self._is_there():
            changed: asyncio.Future[None] = loop.create_future()
            loop.add_reader(self._fd, _set_done, changed)
            try:
                await asyncio.wait((changed, unless), return_when=asyncio.FIRST_COMPLETED)
            finally:
                loop.remove_reader(self._fd)
            if not changed.done():
                return False
            with contextlib.suppress(BlockingIOError):
                os.read(self._fd, 65536)
        with open_socket(self._folder, self._name):
            return True

    def _is_there(self) -> bool:
        return os.path.lexists(self._folder / self._name)


def _set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


@contextlib.contextmanager
def open_socket(folder: Path, name: str) -> Iterator[str]:
    """A path that leads to the socket and to nothing else; `StartFailedError` when there is no socket."""
    folder_fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fd = _open_entry(folder_fd, name)
    finally:
        os.close(folder_fd)
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise StartFailedError(f"Container failed to initialize: {name} is not a socket")
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


async def connected_socket(folder: Path, name: str) -> socket.socket:
    """A connection to the socket, as a socket that does not block; waits while the function's line is full.

    An event loop would not wait: a socket that does not block is refused then (unix(7), EAGAIN), which uvloop tells as
    an error, and asyncio takes for a connection. Raises `OSError`, `StartFailedError`.
    """
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.setblocking(False)
            with open_socket(folder, name) as path:
                connection.connect(path)
        except BlockingIOError:
            connection.close()
        except BaseException:
            connection.close()
            raise
        else:
            return connection
        await asyncio.sleep(FULL_LINE_PAUSE_S)


def _open_entry(folder_fd: int, name: str) -> int:
    try:
        target = os.readlink(name, dir_fd=folder_fd)
    except OSError:
        target = name  # not a link
    if "/" in target or target in ("", ".", ".."):
        raise StartFailedError(f"Container failed to initialize: {name} is a link that leads out of its folder")
    try:
        return os.open(target, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder_fd)
    except OSError as error:
        raise StartFailedError(f"Container failed to initialize: {name} can't be opened ({error.strerror})") from error
