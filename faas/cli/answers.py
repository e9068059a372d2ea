"""A function's answer on stdout, byte for byte; the platform's own errors on stderr instead."""

from __future__ import annotations

import json
import sys
from http import HTTPStatus
from typing import TYPE_CHECKING

import typer

from faas.cli.errors import from_answer, next_step
from faas.cli.exits import ExitCode
from faas.cli.output import print_note

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FIRST_ERROR_STATUS", "AnswerPrinter"]

FIRST_ERROR_STATUS = 400
MAX_HELD_BYTES = 1024 * 1024
"""A platform's error or a call's id is a few hundred bytes; nothing longer is held in memory."""

_ACCEPTED = 202


class AnswerPrinter:
    """Gets one answer piece by piece: `start`, `write` as often as it takes, `end`.

    With `is_expecting_id` an answer 202 is held back for the call's id in it. With `is_including` status and headers
    come first, as `curl -i` has them.
    """

    def __init__(
        self, *, url: str, call_id: str = "", is_including: bool = False, is_expecting_id: bool = False
    ) -> None:
        self._url = url
        self._call_id = call_id
        self._is_including = is_including
        self._is_expecting_id = is_expecting_id
        self._status = 0
        self._error_code = ""
        self._is_holding = False
        self._held = b""

    def start(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """Status and headers, names in any case."""
        self._status = status
        self._error_code = _header(headers, "faas-error")
        self._call_id = self._call_id or _header(headers, "x-call-id")
        self._is_holding = bool(self._error_code) or (self._is_expecting_id and status == _ACCEPTED)
        if self._is_including:
            lines = [f"HTTP/1.1 {status} {_phrase(status)}".rstrip(), *(f"{name}: {value}" for name, value in headers)]
            _to_stdout("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")

    def write(self, data: bytes) -> None:
        """Some of the body."""
        if not self._is_holding:
            _to_stdout(data)
        elif len(self._held) < MAX_HELD_BYTES:
            self._held += data

    def end(self) -> str:
        """The body is complete; returns the id of a call that was accepted for later, else nothing.

        Raises `ClientError` when the platform made the answer, and exits with 1 when the function answered an error.
        """
        if self._error_code:
            error = from_answer(self._status, self._held, url=self._url, code=self._error_code)
            error.hint = next_step(error.code, call_id=self._call_id) or error.hint
            raise error
        if self._is_holding:
            if call_id := _accepted_id(self._held):
                return call_id
            _to_stdout(self._held)
        if self._status >= FIRST_ERROR_STATUS:
            print_note(f"The function answered {self._status} {_phrase(self._status)}".rstrip())
            raise typer.Exit(ExitCode.FUNCTION_FAILED)
        return ""


def _accepted_id(body: bytes) -> str:
    """The id in `{"call_id": "..."}`; a function that answers 202 itself has none."""
    try:
        answer = json.loads(body)
    except ValueError:
        return ""
    return str(answer.get("call_id") or "") if isinstance(answer, dict) else ""


def _header(headers: Sequence[tuple[str, str]], name: str) -> str:
    return next((value for key, value in headers if key.lower() == name), "")


def _to_stdout(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    # Each piece at once: a function may stream, and somebody may be reading.
    sys.stdout.buffer.flush()


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
