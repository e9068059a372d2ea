"""Exit codes: what a script can tell from how a command ended. `docs/cli.md` has the table for people."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["ExitCode", "of_call", "of_error"]


class ExitCode(IntEnum):
    """How a command ended."""

    OK = 0
    FUNCTION_FAILED = 1
    """The function itself: an error status of its own, a bad exit, out of memory, not speaking its format."""
    USAGE = 2
    """The command line or a local file is wrong; nothing was sent."""
    REFUSED = 3
    """The server understood and said no: 400, 409, 413, 431 ..."""
    NOT_FOUND = 4
    """No such app, route or call, or its record has expired."""
    UNAUTHORIZED = 5
    UNREACHABLE = 6
    """No server answered, or the connection broke off."""
    TIMEOUT = 7
    """The call ran longer than its route's `timeout` and was killed."""
    NOT_NOW = 8
    """The same command can work later: no capacity, engine or database down, a call that has not ended yet."""
    CANCELLED = 9
    """The call was cancelled, or a question was answered with no."""
    SERVER_ERROR = 10
    """The server broke, or what answered is not a faas server."""
    INTERRUPTED = 130
    """Ctrl-C."""
    READER_LEFT = 141
    """Whatever read standard output has closed it (`| head`)."""


_BY_CODE = {
    "timeout": ExitCode.TIMEOUT,
    "cancelled": ExitCode.CANCELLED,
    **dict.fromkeys(
        (
            "bad_exit",
            "engine_error",
            "function_failed",
            "killed",
            "lost",
            "oom",
            "protocol",
            "response_too_large",
            "start_failed",
            "start_timeout",
            "too_many_attempts",
        ),
        ExitCode.FUNCTION_FAILED,
    ),
}

_BY_STATUS = {
    202: ExitCode.NOT_NOW,
    401: ExitCode.UNAUTHORIZED,
    403: ExitCode.UNAUTHORIZED,
    404: ExitCode.NOT_FOUND,
    410: ExitCode.NOT_FOUND,
    429: ExitCode.NOT_NOW,
    503: ExitCode.NOT_NOW,
    504: ExitCode.TIMEOUT,
}

_BY_REASON = {
    "timeout": ExitCode.TIMEOUT,
    "no_capacity": ExitCode.NOT_NOW,
    "client_request": ExitCode.REFUSED,
    "image_not_found": ExitCode.REFUSED,
    "internal": ExitCode.SERVER_ERROR,
}


def of_error(code: str, status: int) -> ExitCode:
    """The exit code for an error that the platform made (`faas.errors`): by its code, else by its status."""
    if code in _BY_CODE:
        return _BY_CODE[code]
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return ExitCode.REFUSED if 400 <= status < 500 else ExitCode.SERVER_ERROR


def of_call(status: str, reason: str) -> ExitCode:
    """The exit code for a call's record, by its `status` and `reason`."""
    if status == "success":
        return ExitCode.OK
    if status == "cancelled":
        return ExitCode.CANCELLED
    if status == "error":
        return _BY_REASON.get(reason, ExitCode.FUNCTION_FAILED)
    return ExitCode.NOT_NOW
