"""Format `default`: IronFunctions' cold containers, one for each call.

The body comes on standard input; method, route, URL, headers and configuration as environment; standard output is
the answer, standard error the log, the exit code the outcome. The answer is known to be good only when the process
has ended, so it is kept until then, beyond a megabyte on disk.
Source: iron-io/functions, docs/function-format.md and api/runner/protocol/default.go.
"""

from __future__ import annotations

import asyncio
import codecs
import tempfile
from typing import TYPE_CHECKING

from faas.errors import BadExitError, EngineError, FaasError, KilledError, OutOfMemoryError, ResponseTooLargeError
from faas.runner.call_log import LogBuffer, write_log
from faas.runner.formats.iron import payload_of, variables_of
from faas.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import Mapping

    from faas.runner.executors.base import Container, ContainerExit, Stdio
    from faas.runner.invocation import Invocation

__all__ = ["ColdCall", "container_env"]

_SPOOL_BYTES = 1 << 20
_OUTPUT_TIMEOUT_S = 5.0
"""How long the engine may take to hand over the output of a container that has ended."""
_CHUNK_BYTES = 256 << 10
_TEXT = bytes(range(0x20, 0x7F)) + b"\t\n\r\f\v\x1b"


def container_env(invocation: Invocation) -> Mapping[str, str]:
    """The environment of the call's own container; `TASK_ID` is the call's id, as IronFunctions documents it."""
    return {**variables_of(invocation), "TASK_ID": invocation.id}


class ColdCall:
    """One call in its own container: feeds it, keeps its output, answers when it has ended."""

    def __init__(self, invocation: Invocation, *, max_response_bytes: int, max_log_bytes: int) -> None:
        self._invocation = invocation
        self._max_response_bytes = max_response_bytes
        self._stdout = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115 - closed in `close`
        self._size = 0
        self._log = invocation.log = LogBuffer(max_log_bytes)
        self._output_ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.error: FaasError | None = None
        """Why the call can't succeed any more, known before the container has ended."""

    def close(self) -> None:
        """Give the kept output up."""
        self._stdout.close()

    # --- OutputReceiver

    def stdout_received(self, data: bytes) -> None:
        """Keep some of the answer."""
        self._size += len(data)
        if self._max_response_bytes and self._size > self._max_response_bytes:
            self.error = self.error or ResponseTooLargeError(
                f"function response body too large: the limit is {self._max_response_bytes} bytes"
            )
        else:
            self._stdout.write(data)

    def stderr_received(self, data: bytes) -> None:
        """Standard error is the log."""
        write_log(self._invocation, self._log, data)

    def output_ended(self) -> None:
        """All output is here."""
        if not self._output_ended.done():
            self._output_ended.set_result(None)

    # --- the call

    async def run(self, container: Container, stdio: Stdio) -> ContainerExit:
        """Give the body to the started container; return when it has ended and all its output is here."""
        async with TaskSet(f"cold/{self._invocation.id}") as tasks:
            # A process may end without having read its input; then the rest of the body concerns nobody.
            tasks.spawn(self._feed(stdio), name="feed")
            ended = await container.wait()
        await asyncio.wait([self._output_ended], timeout=_OUTPUT_TIMEOUT_S)
        if not self._output_ended.done():
            self.error = self.error or EngineError(
                f"The container has ended, but the engine did not hand over all its output within {_OUTPUT_TIMEOUT_S} s"
            )
        return ended

    async def _feed(self, stdio: Stdio) -> None:
        invocation = self._invocation
        if invocation.stream is None:
            stdio.write(payload_of(invocation))
        else:
            stdio.write(invocation.body)
            async for chunk in invocation.stream:
                stdio.write(chunk)
                await stdio.drain()
        stdio.write_eof()

    def judge(self, ended: ContainerExit) -> None:
        """Raise what the end of the process means, when it means failure."""
        if self.error is not None:
            raise self.error
        if ended.is_oom:
            raise OutOfMemoryError(self._invocation.function.memory_mib)
        if ended.is_killed:
            raise KilledError
        if ended.exit_code != 0:
            raise BadExitError(ended.exit_code)

    async def answer(self) -> None:
        """Pass the kept output on to the caller."""
        invocation = self._invocation
        sink = invocation.sink
        self._stdout.seek(0)
        chunk = self._stdout.read(_CHUNK_BYTES)
        invocation.status = 200
        invocation.response_headers = [(b"content-type", _sniff(chunk))]
        sink.start(invocation, 200, invocation.response_headers, self._size)
        while chunk:
            invocation.response_bytes += len(chunk)
            sink.write(chunk)
            sink.flush()
            await sink.drain()
            chunk = self._stdout.read(_CHUNK_BYTES)


def _sniff(start: bytes) -> bytes:
    """A content type for output that names none, as Go's server guesses one: text, or bytes."""
    if start[:4096].translate(None, _TEXT + bytes(range(0x80, 0x100))):
        return b"application/octet-stream"
    try:
        # Not `decode`: a character may be cut by the end of the chunk, nothing else may be wrong.
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return b"application/octet-stream"
    return b"text/plain; charset=utf-8"
