"""The wire's models and their way to the domain and back; the names are IronFunctions'.

Requests are strict: a number in quotes is an error and not a number. Fields that nobody knows are passed over, as
IronFunctions does: its clients send back what they were given. An explicit `null` for a single value puts it back to
its default, which IronFunctions has no way to say.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from faas.catalog import MAX_FREEZE_MS, MAX_MIN_WARM, MAX_PER_CONTAINER, MAX_STREAM_IDLE_S, RoutePatch
from faas.models import App, Call, CallStatus, CallType, FormatName, PullPolicy, Reason, Route
from faas.retry_policy import (
    DEFAULT_BACKOFF,
    DEFAULT_DELAY_S,
    DEFAULT_JITTER,
    DEFAULT_MAX_DELAY_S,
    MAX_RETRIES,
    RETRYABLE_REASONS,
    Backoff,
    RetryPolicy,
)
from faas.webhooks import DeliveryStatus, Webhooks

__all__ = [
    "AppAnswer",
    "AppEnvelope",
    "AppsAnswer",
    "BulkAnswer",
    "CallAnswer",
    "CallsAnswer",
    "DeliveriesAnswer",
    "DeliveryAnswer",
    "ErrorAnswer",
    "MessageAnswer",
    "RetryAnswer",
    "RouteAnswer",
    "RouteEnvelope",
    "RoutesAnswer",
    "StatsAnswer",
    "VersionAnswer",
]


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)


# --- apps


class AppRequest(_Request):
    """An app as a client writes it."""

    name: str | None = Field(None, description="1 to 30 letters, digits, `_` and `-`. Can't be changed.")
    config: dict[str, str] | None = Field(
        None, description="Environment of all its functions. In a PATCH: keys are merged, an empty value deletes one."
    )


class AppEnvelope(_Request):
    """The body of POST and PATCH."""

    app: AppRequest | None = None


class AppView(_Answer):
    """An app as it is shown."""

    name: str
    config: dict[str, str] | None = Field(description="`null` when empty, as IronFunctions has it.")
    created_at: datetime | None
    updated_at: datetime | None

    @classmethod
    def of(cls, app: App) -> "AppView":
        """From the domain."""
        return cls(
            name=app.name,
            config=dict(app.config) or None,
            created_at=app.created_at,
            updated_at=app.updated_at,
        )


class AppAnswer(_Answer):
    """One app."""

    message: str
    app: AppView


class AppsAnswer(_Answer):
    """All apps."""

    message: str
    apps: list[AppView]


# --- routes

_Number = Annotated[float, Field(allow_inf_nan=False)]


def _between(minimum: int, maximum: int) -> WithJsonSchema:
    """Limits that are told here; the catalog holds to them, in its own words and with all problems at once."""
    return WithJsonSchema({"type": "integer", "minimum": minimum, "maximum": maximum})


class RetriesRequest(_Request):
    """When failed async calls run again; what is left out, or `null`, is the default."""

    max: Annotated[int, _between(1, MAX_RETRIES)] = Field(description="Retries after the first attempt.")
    backoff: Literal["fixed", "exponential"] | None = Field(
        None, description="Whether each delay is the same or twice the one before. Default `exponential`."
    )
    delay_s: _Number | None = Field(None, description="Seconds before the first retry. Default 1.")
    max_delay_s: _Number | None = Field(None, description="No delay is longer. Default 300, or `delay_s`.")
    jitter: _Number | None = Field(None, description="Which share of a delay, 0 to 1, is drawn at random. Default 0.5.")
    on: list[str | int] | None = Field(
        None,
        description="Reasons and error statuses (400 to 599) that are retried. Default every reason: "
        + ", ".join(f"`{reason}`" for reason in RETRYABLE_REASONS)
        + ".",
    )

    def policy(self) -> RetryPolicy:
        """To the domain."""
        delay_s = DEFAULT_DELAY_S if self.delay_s is None else self.delay_s
        return RetryPolicy(
            max_retries=self.max,
            backoff=Backoff(self.backoff) if self.backoff else DEFAULT_BACKOFF,
            delay_s=delay_s,
            max_delay_s=max(DEFAULT_MAX_DELAY_S, delay_s) if self.max_delay_s is None else self.max_delay_s,
            jitter=DEFAULT_JITTER if self.jitter is None else self.jitter,
            on=RETRYABLE_REASONS if self.on is None else tuple(self.on),
        )


class WebhooksRequest(_Request):
    """Who is told of the ends of async calls; given, it replaces all of it but a secret that is left out."""

    on_success: str | None = Field(None, description="URL that a message is posted to when a call succeeds.")
    on_failure: str | None = Field(None, description="The same when it ends in `error` or `cancelled`.")
    secret: str | None = Field(
        None, description="`whsec_` and 24 to 64 bytes in base64; signs each message. Never shown again."
    )

    def webhooks(self) -> Webhooks:
        """To the domain."""
        return Webhooks(on_success=self.on_success or "", on_failure=self.on_failure or "", secret=self.secret or "")


class RouteRequest(_Request):
    """A route as a client writes it; zero, empty and absent all mean "the default", or "as it is" in a PATCH."""

    app_name: str | None = Field(None, description="Ignored: the URL says it.")
    path: str | None = Field(None, description="Absolute, without `:`; stored in its shortest form. Can't be changed.")
    image: str | None = Field(None, description="Reference of the container image.")
    memory: int | None = Field(None, description="MiB that a container may use. Default 128.")
    cpus: Annotated[float, Field(allow_inf_nan=False)] | None = Field(
        None, description="CPUs' worth of time that a container may use. Default 0, no limit."
    )
    headers: dict[str, list[str] | None] | None = Field(
        None, description="Added to every answer. In a PATCH: a list replaces the values, an empty one or null deletes."
    )
    type: str | None = Field(None, description="`sync` (default) or `async`.")
    format: str | None = Field(None, description="`default`, `http` or `http-stream`.")
    max_concurrency: int | None = Field(None, description="Containers on one node. Default 0: bounded by memory.")
    concurrency: Annotated[int, _between(1, MAX_PER_CONTAINER)] | None = Field(
        None, description="Calls at the same time in one container; more than 1 with `http-stream` only. Default 1."
    )
    min_warm: Annotated[int, _between(0, MAX_MIN_WARM)] | None = Field(
        None,
        description="Containers that each node keeps ready; not with `default`, at most `max_concurrency`, and no more "
        "than the node's memory holds. Default 0.",
    )
    freeze_ms: Annotated[int, _between(0, MAX_FREEZE_MS)] | None = Field(
        None,
        description="Milliseconds after which an idle container is paused until the next call; not with `default`. "
        "Default 0, never.",
    )
    stream_idle_s: Annotated[int, _between(0, MAX_STREAM_IDLE_S)] | None = Field(
        None, description="Longest silence, in seconds, within an answer that has begun. Default 0, no limit."
    )
    timeout: int | None = Field(None, description="Seconds that a call may run. Default 30.")
    idle_timeout: int | None = Field(None, description="Seconds that a hot container is kept idle. Default 30.")
    retries: RetriesRequest | None = Field(
        None, description="When failed async calls run again. Default: when the platform lost them, else never."
    )
    webhooks: WebhooksRequest | None = Field(
        None, description="Who is told of the ends of async calls. Default nobody."
    )
    pull: str | None = Field(None, description="`missing` (default), `always` or `never`.")
    config: dict[str, str] | None = Field(
        None, description="Environment, over the app's. In a PATCH: keys are merged, an empty value deletes one."
    )
    jwt_key: str | None = Field(None, description="When set, callers need a token signed by it. Never shown again.")

    def patch(self) -> RoutePatch:
        """To the domain."""
        said = self.model_fields_set
        return RoutePatch(
            image=self.image or "",
            memory_mib=self.memory or 0,
            cpus=self.cpus or 0.0,
            type=self.type or "",
            format=self.format or "",
            pull=self.pull or "",
            max_concurrency=self.max_concurrency or 0,
            concurrency=self.concurrency or 0,
            min_warm=self.min_warm or 0,
            freeze_ms=self.freeze_ms or 0,
            stream_idle_s=self.stream_idle_s or 0,
            timeout_s=self.timeout or 0,
            idle_timeout_s=self.idle_timeout or 0,
            retries=self.retries.policy() if self.retries else None,
            webhooks=self.webhooks.webhooks() if self.webhooks else None,
            jwt_key=self.jwt_key or "",
            config=self.config,
            headers=self.headers,
            reset=frozenset(
                domain_name
                for wire_name, domain_name in _RESETTABLE.items()
                if wire_name in said and getattr(self, wire_name) is None
            ),
        )


_RESETTABLE = {
    "memory": "memory_mib",
    "cpus": "cpus",
    "type": "type",
    "format": "format",
    "max_concurrency": "max_concurrency",
    "concurrency": "concurrency",
    "min_warm": "min_warm",
    "freeze_ms": "freeze_ms",
    "stream_idle_s": "stream_idle_s",
    "timeout": "timeout_s",
    "idle_timeout": "idle_timeout_s",
    "retries": "retries",
    "webhooks": "webhooks",
    "pull": "pull",
    "jwt_key": "jwt_key",
}


class RouteEnvelope(_Request):
    """The body of POST and PATCH."""

    route: RouteRequest | None = None


class RetriesView(_Answer):
    """When failed async calls run again."""

    max: int
    backoff: Backoff
    delay_s: float
    max_delay_s: float
    jitter: float
    on: list[str | int]


class WebhooksView(_Answer):
    """Who is told of the ends of async calls."""

    on_success: str
    on_failure: str
    has_secret: bool = Field(description="The secret itself is never shown.")

    @classmethod
    def of(cls, webhooks: Webhooks) -> "WebhooksView":
        """From the domain."""
        return cls(on_success=webhooks.on_success, on_failure=webhooks.on_failure, has_secret=bool(webhooks.secret))


class RouteView(_Answer):
    """A route as it is shown: IronFunctions' fields in its order, then ours."""

    app_name: str
    path: str
    image: str
    memory: int
    headers: dict[str, list[str]]
    type: CallType
    format: FormatName
    max_concurrency: int
    timeout: int
    idle_timeout: int
    config: dict[str, str]
    has_jwt_key: bool = Field(description="Whether callers need a token; the key itself is never shown.")
    cpus: float
    concurrency: int
    min_warm: int
    freeze_ms: int
    stream_idle_s: int
    retries: RetriesView | None
    webhooks: WebhooksView | None
    pull: PullPolicy
    image_digest: str = Field(description="What the image's name meant when it was last given.")
    created_at: datetime | None
    updated_at: datetime | None

    @classmethod
    def of(cls, route: Route) -> "RouteView":
        """From the domain."""
        return cls(
            app_name=route.app_name,
            path=route.path,
            image=route.image,
            memory=route.memory_mib,
            headers={name: list(values) for name, values in route.headers.items()},
            type=route.type,
            format=route.format,
            max_concurrency=route.max_concurrency,
            timeout=route.timeout_s,
            idle_timeout=route.idle_timeout_s,
            config=dict(route.config),
            has_jwt_key=bool(route.jwt_key),
            cpus=route.cpus,
            concurrency=route.concurrency,
            min_warm=route.min_warm,
            freeze_ms=route.freeze_ms,
            stream_idle_s=route.stream_idle_s,
            retries=RetriesView.model_validate(route.retries.to_json()) if route.retries else None,
            webhooks=WebhooksView.of(route.webhooks) if route.webhooks else None,
            pull=route.pull,
            image_digest=route.image_digest,
            created_at=route.created_at,
            updated_at=route.updated_at,
        )


class RouteAnswer(_Answer):
    """One route."""

    message: str
    route: RouteView


class RoutesAnswer(_Answer):
    """Several routes."""

    message: str
    routes: list[RouteView]


# --- calls


class UsageView(_Answer):
    """What an attempt used, as far as the engine could tell."""

    memory_peak_bytes: int | None
    cpu_s: float | None


class AttemptView(_Answer):
    """One try at running a call, with its evidence."""

    number: int
    node: str
    started_at: datetime
    completed_at: datetime | None
    container_id: str
    image_digest: str
    exit_code: int | None
    reason: Reason | None
    error: str
    is_cold: bool | None
    queue_ms: float | None
    start_ms: float | None
    exec_ms: float | None
    usage: UsageView | None


class ResultView(_Answer):
    """A result without its body, which is at `/v1/calls/{id}/result`."""

    status_code: int
    content_type: str
    size_bytes: int


class CallView(_Answer):
    """A call's record."""

    id: str
    app_name: str
    path: str
    type: CallType
    status: CallStatus
    reason: Reason | None = Field(description="Why it ended in `error` or `cancelled`.")
    error: str
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    priority: int
    not_before: datetime | None = Field(description="It does not begin earlier.")
    expires_at: datetime | None = Field(description="When it has not begun by then, it never will.")
    attempts: list[AttemptView]
    retry_of: str | None
    retried_by: str | None
    retries: int = Field(description="How many of its attempts failed and were retried.")
    is_dead_letter: bool = Field(description="Its retries are exhausted, and nobody has run it again.")
    schedule: str | None = Field(description="Name of the schedule whose firing it is.")
    result: ResultView | None
    usage: UsageView | None = Field(description="Of the latest attempt.")

    @classmethod
    def of(cls, call: Call) -> "CallView":
        """From the domain."""
        latest = call.attempts[-1] if call.attempts else None
        return cls(
            id=call.id,
            app_name=call.app_name,
            path=call.path,
            type=call.type,
            status=call.status,
            reason=call.reason,
            error=call.error,
            created_at=call.created_at,
            started_at=call.started_at,
            completed_at=call.completed_at,
            priority=call.priority,
            not_before=call.not_before,
            expires_at=call.expires_at,
            attempts=[AttemptView.model_validate(attempt) for attempt in call.attempts],
            retry_of=call.retry_of,
            retried_by=call.retried_by,
            retries=call.retries,
            is_dead_letter=call.is_dead_letter,
            schedule=call.schedule,
            result=ResultView.model_validate(call.result) if call.result else None,
            usage=UsageView.model_validate(latest.usage) if latest and latest.usage else None,
        )


class CallAnswer(_Answer):
    """One call."""

    message: str
    call: CallView


class RetryAnswer(_Answer):
    """The call that runs an ended one again."""

    message: str
    call_id: str
    call: CallView


class BulkAnswer(_Answer):
    """What was done about a page of calls."""

    message: str
    count: int = Field(description="With how many it was done.")
    skipped: int = Field(description="With how many it could not be done.")
    next_cursor: str | None = Field(description="Give it as `cursor` to go on; `null`: there were no more.")


class CallsAnswer(_Answer):
    """A page of calls, newest first."""

    message: str
    calls: list[CallView]
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page; `null` on the last.")


class DeliveryView(_Answer):
    """A message about a call's end, and what became of it."""

    number: int
    url: str
    status: DeliveryStatus
    tries: int = Field(description="How many have begun.")
    created_at: datetime
    next_try_at: datetime | None = Field(description="While it is `pending`.")
    completed_at: datetime | None
    status_code: int | None = Field(description="The receiver's latest answer.")
    error: str


class DeliveryAnswer(_Answer):
    """One delivery."""

    message: str
    delivery: DeliveryView


class DeliveriesAnswer(_Answer):
    """A call's deliveries in the order in which they were made."""

    message: str
    deliveries: list[DeliveryView]


# --- tasks: calls as IronFunctions' workers see them


class TaskView(_Answer):
    """A queued call for a worker outside."""

    id: str
    app_name: str
    path: str
    image: str
    payload: str = Field(description="The request's body as text.")
    payload_base64: str | None = Field(None, description="The body, when it is not UTF-8 and `payload` is a poor copy.")
    priority: int
    env_vars: dict[str, str]
    timeout: int
    idle_timeout: int
    status: CallStatus
    created_at: datetime
    started_at: datetime | None = None


class TaskAck(BaseModel):
    """A task that was run outside; only its id counts, the rest is echoed."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    id: str


# --- the rest


class MessageAnswer(_Answer):
    """What was done."""

    message: str


class ErrorView(_Answer):
    """What went wrong and what to do next."""

    message: str
    code: str = Field(description="Stable; also in the header `Faas-Error`.")


class ErrorAnswer(_Answer):
    """The envelope of every error."""

    error: ErrorView


class PingAnswer(_Answer):
    """IronFunctions' greeting."""

    goto: str
    hello: str


class VersionAnswer(_Answer):
    """The server's version."""

    version: str


class StatsAnswer(_Answer):
    """Calls of this node; the capitals are IronFunctions'."""

    Queue: int
    Running: int
    Complete: int


class HealthAnswer(_Answer):
    """The process answers."""

    status: str


class ReadyAnswer(_Answer):
    """The node can take work."""

    status: str
    checks: dict[str, str] = Field(description="`ok` for each part.")
