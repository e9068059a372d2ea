"""What went wrong, in words for a person: the cause, and the next step."""

from __future__ import annotations

import json

from faas.cli.exits import ExitCode, of_error

__all__ = ["ClientError", "UnreachableError", "from_answer", "next_step"]

_EXCERPT_CHARS = 300
"""How much of an answer that is not ours an error shows."""


class ClientError(Exception):
    """A request that did not do what it was for. `status` is 0 when no answer came."""

    def __init__(self, message: str, *, code: str, status: int = 0, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status
        self.hint = hint or next_step(code)

    @property
    def exit_code(self) -> ExitCode:
        """The exit code that tells a script the same."""
        if self.status == 0:
            return ExitCode.SERVER_ERROR if self.code == "not_faas" else ExitCode.USAGE
        return of_error(self.code, self.status)


class UnreachableError(ClientError):
    """No server answered, or it broke off."""

    def __init__(self, url: str, cause: str) -> None:
        super().__init__(f"Can't reach {url}: {cause}", code="unreachable")

    @property
    def exit_code(self) -> ExitCode:
        """Its own, whatever the reason."""
        return ExitCode.UNREACHABLE


def from_answer(status: int, body: bytes, *, url: str, code: str = "") -> ClientError:
    """The error in an answer: the platform's JSON, IronFunctions' bare strings, or what a proxy wrote.

    `code` is what the header `Faas-Error` said, if there was one.
    """
    message = ""
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    error = answer.get("error") if isinstance(answer, dict) else answer
    if isinstance(error, dict):
        message = str(error.get("message") or "")
        code = str(error.get("code") or code)
    elif isinstance(error, str):
        message = error
    if not message:
        excerpt = body.decode("utf-8", "replace").strip()[:_EXCERPT_CHARS]
        message = f"{url} answered {status}" + (f": {excerpt}" if excerpt else "")
    return ClientError(message, code=code or f"http_{status}", status=status)


_NEXT_STEPS = {
    "unreachable": "Start a node with `faas serve`, or name another one with --url or FAAS_URL.",
    "bad_url": "Write it like http://127.0.0.1:8080 (--url or FAAS_URL).",
    "not_faas": "Look at --url or FAAS_URL.",
    "unauthorized": "Set FAAS_TOKEN, or FAAS_JWT_AUTH_KEY to the server's key; for a route with a jwt_key, "
    "`faas routes token APP PATH` makes a token.",
    "http_401": "Set FAAS_TOKEN, or FAAS_JWT_AUTH_KEY to the server's key.",
    "app_not_found": "`faas apps list` shows the apps there are.",
    "route_not_found": "`faas routes list APP` shows an app's routes.",
    "schedule_not_found": "`faas schedules list APP` shows an app's schedules.",
    "route_has_schedules": "`faas schedules list APP` shows them, `faas schedules delete APP NAME` deletes one.",
    "call_not_found": "`faas calls list APP` shows an app's calls.",
    "call_not_ended": "`faas calls wait ID` waits for its end, `faas calls cancel ID` ends it.",
    "call_expired": "The node keeps records for FAAS_RETENTION_S.",
    "call_not_finished": "`faas calls wait ID` waits for its end.",
    "app_exists": "`faas apps update` changes it.",
    "route_exists": "`faas routes update` changes it.",
    "app_has_routes": "`faas apps delete APP --force` deletes them, too.",
    "image_not_found": "Build or pull it on the node's machine (`docker images` lists what is there), or check its "
    "name and FAAS_DOCKER_AUTH.",
    "engine_unavailable": "`faas doctor` on the node's machine says what is wrong with the engine.",
    "no_capacity": "Try again, or give the node more memory (FAAS_MEMORY_MIB) or the route less (--memory).",
    "timeout": "If it needs longer: `faas routes update APP PATH --timeout 5m`.",
    "oom": "If it needs more: `faas routes update APP PATH --memory 256`.",
    "start_timeout": "Its log shows how far it came: `faas calls log ID`.",
    "body_too_large": "The limits are FAAS_MAX_REQUEST_BYTES and FAAS_MAX_ASYNC_REQUEST_BYTES.",
    "headers_too_large": "The limit is FAAS_MAX_HEADER_BYTES.",
}

_SEE_LOG = frozenset({"bad_exit", "function_failed", "killed", "oom", "protocol", "start_failed", "start_timeout"})


def next_step(code: str, *, call_id: str = "") -> str:
    """What to do about an error; empty where nothing general can be said."""
    if call_id and code in _SEE_LOG:
        see_log = f"What it wrote: `faas calls log {call_id}`."
        return f"{see_log} {_NEXT_STEPS[code]}" if code == "oom" else see_log
    return _NEXT_STEPS.get(code, "")
