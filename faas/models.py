"""The domain's values: app, route, call, attempt. Frozen; nothing here knows HTTP, SQL or Docker."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping  # noqa: TC003 - pydantic and dataclasses resolve it at run time
from dataclasses import dataclass, field, replace
from datetime import datetime  # noqa: TC003
from enum import StrEnum

from faas.errors import ValidationError
from faas.retry_policy import RetryPolicy  # noqa: TC001
from faas.webhooks import Webhooks  # noqa: TC001

__all__ = [
    "App",
    "Attempt",
    "Bulk",
    "Call",
    "CallFilter",
    "CallLog",
    "CallRequest",
    "CallResult",
    "CallStatus",
    "CallType",
    "FormatName",
    "PullPolicy",
    "Reason",
    "ResultInfo",
    "Route",
    "Usage",
    "clean_path",
    "merge_config",
]

MAX_APP_NAME = 30
"""IronFunctions' limit, in characters."""

_APP_NAME = re.compile(r"[A-Za-z0-9_-]+\Z")


class CallType(StrEnum):
    """Whether the caller waits (`sync`) or polls (`async`)."""

    SYNC = "sync"
    ASYNC = "async"


class FormatName(StrEnum):
    """The contracts by which a call crosses into a container and back."""

    DEFAULT = "default"
    HTTP = "http"
    HTTP_STREAM = "http-stream"


class PullPolicy(StrEnum):
    """When an image is fetched from its registry; Kubernetes' words."""

    MISSING = "missing"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """A named group of routes with a configuration that all of them see."""

    name: str
    config: Mapping[str, str] = field(default_factory=dict)
    created_at: datetime | None = None
    updated_at: datetime | None = None

    def validate(self) -> None:
        """Raise `ValidationError` with IronFunctions' sentences when the name can't be one."""
        problems = []
        if not self.name:
            problems.append("Missing app name")
        elif len(self.name) > MAX_APP_NAME:
            problems.append(f"App name must be {MAX_APP_NAME} characters or less")
        elif not _APP_NAME.match(self.name):
            problems.append("Invalid app name")
        if problems:
            raise ValidationError(problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One function: where it answers, which image it is and what it may use."""

    app_name: str
    path: str
    image: str
    image_digest: str = ""
    """The engine's content id of the image when the route was created or its image last changed (`sha256:...`)."""
    memory_mib: int = 128
    cpus: float = 0.0
    """CPUs' worth of time a container may use; 0 is no limit."""
    type: CallType = CallType.SYNC
    format: FormatName = FormatName.DEFAULT
    max_concurrency: int = 0
    """Containers of this route on one node at the same time; 0 is bounded by the node's memory alone."""
    concurrency: int = 1
    """Calls that run in one container at the same time, where the format allows more than one."""
    min_warm: int = 0
    """Containers that each node keeps ready, also when nobody calls."""
    freeze_ms: int = 0
    """A container that is idle for so long is paused until the next call; 0 is never."""
    timeout_s: int = 30
    idle_timeout_s: int = 30
    stream_idle_s: int = 0
    """Longest silence of the function within an answer that it has begun; 0 is no limit but the call's own."""
    retries: RetryPolicy | None = None
    """When its failed async calls run again; None: never, unless the platform lost them."""
    webhooks: Webhooks | None = None
    """Who is told of the ends of its async calls."""
    pull: PullPolicy = PullPolicy.MISSING
    config: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    jwt_key: str = ""
    created_at: datetime | None = None
    updated_at: datetime | None = None

    def validate(self) -> None:
        """Raise `ValidationError` with IronFunctions' sentences, all problems at once."""
        problems = [*self._path_problems(), *self._number_problems()]
        if not self.app_name:
            problems.insert(0, "Missing route AppName")
        if not self.image:
            problems.append("Missing route Image")
        if problems:
            raise ValidationError(problems, nesting=2)

    def _path_problems(self) -> list[str]:
        if not self.path:
            return ["Missing route Path"]
        problems = []
        if any(ord(char) < 0x20 or ord(char) == 0x7F for char in self.path) or "?" in self.path or "#" in self.path:
            problems.append("Path malformed")
        if ":" in self.path:
            problems.append("Dynamic URL is not allowed")
        if not self.path.startswith("/"):
            problems.append("Invalid Path format")
        return problems

    def _number_problems(self) -> list[str]:
        checks = {
            "Negative MaxConcurrency": self.max_concurrency < 0,
            "Negative timeout": self.timeout_s < 0,
            "Negative idle timeout": self.idle_timeout_s < 0,
            "Negative memory": self.memory_mib < 0,
            "Negative cpus": self.cpus < 0,
            "Concurrency must be at least 1": self.concurrency < 1,
            "Negative min_warm": self.min_warm < 0,
            "Negative freeze_ms": self.freeze_ms < 0,
            "Negative stream_idle_s": self.stream_idle_s < 0,
            "concurrency: only containers of format http-stream take more than one call at a time": (
                self.concurrency > 1 and self.format is not FormatName.HTTP_STREAM
            ),
            "min_warm: format default has no containers to keep": (
                self.min_warm > 0 and self.format is FormatName.DEFAULT
            ),
            "freeze_ms: format default has no containers to pause": (
                self.freeze_ms > 0 and self.format is FormatName.DEFAULT
            ),
            "min_warm: more than max_concurrency allows": 0 < self.max_concurrency < self.min_warm,
        }
        return [message for message, is_wrong in checks.items() if is_wrong]


def clean_path(path: str) -> str:
    """The path as routes are stored and looked up: absolute, no `.`, `..`, doubled or trailing slash."""
    cleaned = posixpath.normpath("/" + path)
    # POSIX lets two leading slashes mean something else, so normpath keeps them.
    return "/" + cleaned.lstrip("/")


def merge_config(old: Mapping[str, str], patch: Mapping[str, str]) -> dict[str, str]:
    """IronFunctions' PATCH rule: keys are added or replaced, an empty value deletes the key, the others stay."""
    merged = dict(old)
    for key, value in patch.items():
        if value == "":
            merged.pop(key, None)
        else:
            merged[key] = value
    return merged


# --- calls ------------------------------------------------------------------------------------------------------


class CallStatus(StrEnum):
    """The life of a call.

        delayed -> queued -> running -> success | error
           |         |          |
           +---------+----------+-----> cancelled

    A call whose node died goes from running back to queued, one that is retried to queued or delayed; `attempt` counts
    how often it was running.
    """

    DELAYED = "delayed"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    ERROR = "error"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the call will never change again."""
        return self in (CallStatus.SUCCESS, CallStatus.ERROR, CallStatus.CANCELLED)


class Reason(StrEnum):
    """Why a call ended in `error` or `cancelled`."""

    TIMEOUT = "timeout"
    OOM = "oom"
    BAD_EXIT = "bad_exit"
    KILLED = "killed"
    IMAGE_NOT_FOUND = "image_not_found"
    NO_CAPACITY = "no_capacity"
    PROTOCOL = "protocol"
    START_FAILED = "start_failed"
    CLIENT_REQUEST = "client_request"
    EXPIRED = "expired"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRequest:
    """What the caller sent, exactly as a function gets it."""

    method: str
    url: str
    """The full URL: scheme, host, path, query."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Lower-case names, in the order they came; connection-level headers removed."""
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultInfo:
    """A result without its body."""

    status_code: int
    content_type: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CallResult:
    """What a sync caller would have got: also for a failed call, whose body is the error's JSON."""

    status_code: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    is_truncated: bool = False
    """The body passed `max_result_bytes` and was cut there."""

    @property
    def info(self) -> ResultInfo:
        """The part that the call record shows."""
        content_type = next((value for name, value in self.headers if name.lower() == b"content-type"), b"")
        return ResultInfo(
            status_code=self.status_code,
            content_type=content_type.decode("latin-1"),
            size_bytes=len(self.body),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLog:
    """What a call's containers wrote beside its answer."""

    data: bytes
    is_truncated: bool = False
    """It passed `max_log_bytes` and was cut there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What an attempt used, as far as the engine could tell."""

    memory_peak_bytes: int | None = None
    cpu_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try at running a call, with its evidence."""

    number: int
    """From 1."""
    node: str
    started_at: datetime
    completed_at: datetime | None = None
    container_id: str = ""
    image_digest: str = ""
    exit_code: int | None = None
    reason: Reason | None = None
    error: str = ""
    is_cold: bool | None = None
    queue_ms: float | None = None
    start_ms: float | None = None
    exec_ms: float | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call's record: everything but its bodies and its log."""

    id: str
    app_name: str
    path: str
    type: CallType
    status: CallStatus
    created_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    reason: Reason | None = None
    error: str = ""
    attempt: int = 0
    """How many attempts began; also the fence: only the latest attempt may finish the call."""
    retries: int = 0
    """How many of them failed and were retried by the route's policy; the platform lost the others."""
    attempts: tuple[Attempt, ...] = ()
    priority: int = 0
    not_before: datetime | None = None
    expires_at: datetime | None = None
    """A call that has not begun by then never will."""
    retry_of: str | None = None
    retried_by: str | None = None
    is_dead_letter: bool = False
    """Its retries are exhausted, and it was not run again since."""
    cancel_requested_at: datetime | None = None
    """Somebody asked for its end while it ran on another node than the one asked."""
    schedule: str | None = None
    """Name of the schedule whose firing it is."""
    webhooks: Webhooks | None = None
    """Who is told of its end, as it was when the call was accepted."""
    result: ResultInfo | None = None

    def ended(
        self,
        status: CallStatus,
        *,
        completed_at: datetime,
        reason: Reason | None = None,
        error: str = "",
        result: ResultInfo | None = None,
    ) -> Call:
        """This call in a final state."""
        return replace(self, status=status, completed_at=completed_at, reason=reason, error=error, result=result)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFilter:
    """Which of an app's calls are meant: those for which all of it is true."""

    app_name: str
    statuses: tuple[CallStatus, ...] = ()
    """Empty: any."""
    path: str | None = None
    reason: Reason | None = None
    since: datetime | None = None
    """Created then or later."""
    until: datetime | None = None
    """Created then or before."""
    is_dead_letter: bool = False
    """True: dead letters only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bulk:
    """What was done about a page of calls."""

    count: int
    """With how many it was done."""
    skipped: int
    """With how many it could not be done."""
    next_cursor: str | None
    """None: there were no more."""
