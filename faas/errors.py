"""Every failure that can reach a user: one root class, a stable `code` and an HTTP status each.

The message says what happened and, where it is not obvious, what to do next. `reason` is the word that the call
record keeps (`GET /v1/calls/{id}`). One place, `faas.api.errors`, turns these into JSON.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AppExistsError",
    "AppHasRoutesError",
    "AppNotFoundError",
    "BadExitError",
    "BodyTooLargeError",
    "CallCancelledError",
    "CallExpiredError",
    "CallNotBegunError",
    "CallNotEndedError",
    "CallNotFinishedError",
    "CallNotFoundError",
    "CallRetriedError",
    "CallTimeoutError",
    "ClientGoneError",
    "DeliveryNotFoundError",
    "EngineError",
    "EngineUnavailableError",
    "FaasError",
    "FollowerTooSlowError",
    "FunctionFailedError",
    "HeadersTooLargeError",
    "IdempotencyKeyInUseError",
    "IdempotencyKeyReusedError",
    "IdempotentAnswerNotKeptError",
    "ImageGoneError",
    "ImageNotAvailableError",
    "ImageUnusableError",
    "ImmutableFieldError",
    "InternalError",
    "InvalidJSONError",
    "InvalidRequestError",
    "KilledError",
    "LostError",
    "NoCapacityError",
    "OutOfMemoryError",
    "ProtocolViolationError",
    "QueueUnavailableError",
    "RequestNotKeptError",
    "RequestTimeoutError",
    "ResponseTooLargeError",
    "ResultNotKeptError",
    "RouteExistsError",
    "RouteHasSchedulesError",
    "RouteNotFoundError",
    "ScheduleExistsError",
    "ScheduleNotFoundError",
    "SchemaTooNewError",
    "ShuttingDownError",
    "StartFailedError",
    "StartTimeoutError",
    "StartupError",
    "StoreUnavailableError",
    "TooManyAttemptsError",
    "UnauthorizedError",
    "ValidationError",
]


class FaasError(Exception):
    """Root of all errors that the platform makes; never raised itself."""

    http_status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    reason: ClassVar[str] = "internal"
    """What the call record says when this error ended a call."""
    retry_after_s: int | None = None
    """Sent as `Retry-After` when the same request can work later."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InternalError(FaasError):
    """A defect of ours; the log has the details, the caller gets none."""

    def __init__(self, message: str = "Something unexpected happened on the server") -> None:
        super().__init__(message)


# --- what the client sent ---------------------------------------------------------------------------------------


class InvalidRequestError(FaasError):
    """The request can't be understood: a query parameter, header or value is wrong."""

    http_status = 400
    code = "invalid_request"
    reason = "client_request"


class InvalidJSONError(InvalidRequestError):
    """The body is not the JSON object that was expected."""

    code = "invalid_json"

    def __init__(self, message: str = "Invalid JSON") -> None:
        super().__init__(message)


class ValidationError(InvalidRequestError):
    """Fields have values that can't be accepted; `problems` has one sentence for each."""

    code = "validation_failed"

    def __init__(self, problems: list[str], *, nesting: int = 1) -> None:
        """`nesting` repeats the heading as often as IronFunctions' nested validations do."""
        super().__init__("validation failure list:\n" * nesting + "\n".join(problems))
        self.problems = problems


class ImmutableFieldError(InvalidRequestError):
    """A PATCH names a field that can't change."""

    code = "immutable_field"


class AppHasRoutesError(InvalidRequestError):
    """An app can only be deleted when its routes are gone."""

    code = "app_has_routes"

    def __init__(self) -> None:
        super().__init__("Cannot remove apps with routes")


class RouteHasSchedulesError(InvalidRequestError):
    """A route can only be deleted when its schedules are gone."""

    code = "route_has_schedules"

    def __init__(self, message: str = "Cannot remove routes with schedules; delete its schedules first") -> None:
        super().__init__(message)


class ImageNotAvailableError(InvalidRequestError):
    """The image is neither on the engine nor can it be pulled; the message has the engine's own words."""

    code = "image_not_found"
    reason = "image_not_found"


class ImageUnusableError(InvalidRequestError):
    """The image exists but can't run here (wrong architecture, nothing to execute)."""

    code = "image_unusable"
    reason = "image_not_found"


class ChangeNotStartedError(InvalidRequestError):
    """A route is in use, and its containers do not start as the change would have them; the old ones go on serving."""

    code = "change_not_started"
    reason = "start_failed"


class ImageGoneError(FaasError):
    """A route's image can't be had when it is needed; the message has the engine's own words."""

    http_status = 500
    code = "image_not_found"
    reason = "image_not_found"


class UnauthorizedError(FaasError):
    """No token, or one that does not fit."""

    http_status = 401
    code = "unauthorized"
    reason = "client_request"


class AppNotFoundError(FaasError):
    """No app of that name."""

    http_status = 404
    code = "app_not_found"
    reason = "client_request"

    def __init__(self, message: str = "App not found") -> None:
        super().__init__(message)


class RouteNotFoundError(FaasError):
    """The app has no route at that path."""

    http_status = 404
    code = "route_not_found"
    reason = "client_request"

    def __init__(self, message: str = "Route not found") -> None:
        super().__init__(message)


class ScheduleNotFoundError(FaasError):
    """The app has no schedule of that name."""

    http_status = 404
    code = "schedule_not_found"
    reason = "client_request"

    def __init__(self, message: str = "Schedule not found") -> None:
        super().__init__(message)


class DeliveryNotFoundError(FaasError):
    """The call has no webhook delivery of that number."""

    http_status = 404
    code = "delivery_not_found"
    reason = "client_request"

    def __init__(self, message: str = "Delivery not found; GET /v1/calls/{id}/deliveries lists them") -> None:
        super().__init__(message)


class CallNotFoundError(FaasError):
    """No call of that id was ever accepted here."""

    http_status = 404
    code = "call_not_found"

    def __init__(self, message: str = "Call not found") -> None:
        super().__init__(message)


class CallExpiredError(FaasError):
    """The id is older than the retention, its record is gone."""

    http_status = 410
    code = "call_expired"


class ResultNotKeptError(FaasError):
    """The call has ended, its answer was not kept."""

    http_status = 404
    code = "result_not_kept"


class CallNotFinishedError(FaasError):
    """The call has no result yet: ask again."""

    http_status = 202
    code = "call_not_finished"
    retry_after_s = 1


class CallNotEndedError(FaasError):
    """The call waits or runs: what was asked for can be done when it has ended."""

    http_status = 409
    code = "call_not_ended"


class CallRetriedError(FaasError):
    """The call was retried before, by the call that the message names."""

    http_status = 409
    code = "call_retried"

    def __init__(self, retried_by: str) -> None:
        super().__init__(f"The call was retried already, by {retried_by}; retry that one")
        self.retried_by = retried_by


class RequestNotKeptError(FaasError):
    """The call can't run again: its request was not kept."""

    http_status = 409
    code = "request_not_kept"


class IdempotencyKeyReusedError(FaasError):
    """The `Idempotency-Key` was used with another request; nothing ran."""

    http_status = 422
    code = "idempotency_key_reused"
    reason = "client_request"

    def __init__(self) -> None:
        super().__init__("This Idempotency-Key was used with a different request; take a new key for a new request")


class IdempotencyKeyInUseError(FaasError):
    """The first request with this `Idempotency-Key` is still under way: ask again."""

    http_status = 409
    code = "idempotency_key_in_use"
    reason = "client_request"
    retry_after_s = 5

    def __init__(self) -> None:
        super().__init__("The first request with this Idempotency-Key is still under way; ask again with the same key")


class IdempotentAnswerNotKeptError(FaasError):
    """The first call with this `Idempotency-Key` has run; its answer is gone, and it does not run again."""

    http_status = 409
    code = "idempotent_answer_not_kept"
    reason = "client_request"

    def __init__(self, call_id: str) -> None:
        super().__init__(
            f"The first call with this Idempotency-Key, {call_id}, has ended; its answer was not kept, because it was "
            "larger than max_result_bytes or its node died. Look at /v1/calls/" + call_id
        )


class AppExistsError(FaasError):
    """The name is taken."""

    http_status = 409
    code = "app_exists"

    def __init__(self) -> None:
        super().__init__("App already exists")


class RouteExistsError(FaasError):
    """The app already has a route at that path."""

    http_status = 409
    code = "route_exists"

    def __init__(self) -> None:
        super().__init__("Route already exists")


class ScheduleExistsError(FaasError):
    """The app already has a schedule of that name."""

    http_status = 409
    code = "schedule_exists"

    def __init__(self) -> None:
        super().__init__("Schedule already exists")


class RequestTimeoutError(FaasError):
    """The request stopped arriving; the connection is closed."""

    http_status = 408
    code = "request_timeout"
    reason = "client_request"


class BodyTooLargeError(FaasError):
    """The request body passes the limit that the message names."""

    http_status = 413
    code = "body_too_large"
    reason = "client_request"


class HeadersTooLargeError(FaasError):
    """The request's header block passes `max_header_bytes`."""

    http_status = 431
    code = "headers_too_large"
    reason = "client_request"


class ClientGoneError(FaasError):
    """The caller hung up before the answer; nobody reads this one, the call record keeps it."""

    http_status = 499
    code = "client_gone"
    reason = "client_request"


# --- what the node could not do ---------------------------------------------------------------------------------


class NoCapacityError(FaasError):
    """No container could be had before the deadline; nothing was started."""

    http_status = 503
    code = "no_capacity"
    reason = "no_capacity"
    retry_after_s = 5


class FollowerTooSlowError(FaasError):
    """Who follows takes what is told more slowly than it comes, and has been let go."""

    http_status = 503
    code = "too_slow"
    reason = "client_request"

    def __init__(self) -> None:
        super().__init__("You read more slowly than events come; follow again, then list what you have missed")


class ShuttingDownError(FaasError):
    """The node is draining; nothing was started."""

    http_status = 503
    code = "shutting_down"
    reason = "no_capacity"
    retry_after_s = 5

    def __init__(self, message: str = "This node is shutting down; try again") -> None:
        super().__init__(message)


class StartupError(FaasError):
    """The node can't start; the message says what to do."""

    code = "startup"


class EngineUnavailableError(FaasError):
    """The container engine does not answer."""

    http_status = 503
    code = "engine_unavailable"
    reason = "no_capacity"
    retry_after_s = 5


class QueueUnavailableError(FaasError):
    """The call queue does not answer; the call was not accepted."""

    http_status = 503
    code = "queue_unavailable"
    retry_after_s = 5


class StoreUnavailableError(FaasError):
    """The database does not answer; nothing was accepted."""

    http_status = 503
    code = "store_unavailable"
    retry_after_s = 5


class SchemaTooNewError(FaasError):
    """The database was changed by a newer faas; this one would not understand it, and has not touched it."""

    code = "schema_too_new"

    def __init__(self, revision: str) -> None:
        super().__init__(
            f"The database's schema (revision {revision}) is newer than this faas knows; "
            "start the newer version, or restore a backup from before its upgrade"
        )
        self.revision = revision


# --- how the function failed ------------------------------------------------------------------------------------


class EngineError(FaasError):
    """The engine refused to create or start the container; the message has its own words."""

    http_status = 502
    code = "engine_error"
    reason = "start_failed"


class BadExitError(FaasError):
    """The function's process ended with a non-zero exit code."""

    http_status = 500
    code = "bad_exit"
    reason = "bad_exit"

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"exit code {exit_code}")
        self.exit_code = exit_code


class OutOfMemoryError(FaasError):
    """The kernel killed the function at its memory limit."""

    http_status = 500
    code = "oom"
    reason = "oom"

    def __init__(self, limit_mib: int) -> None:
        super().__init__(f"out of memory error: the function passed its limit of {limit_mib} MiB; raise `memory`")
        self.limit_mib = limit_mib


class KilledError(FaasError):
    """The container was killed while the call ran, and not for its memory."""

    http_status = 502
    code = "killed"
    reason = "killed"

    def __init__(
        self, message: str = "the function's process was killed (exit code 137), and not for its memory"
    ) -> None:
        super().__init__(message)


class FunctionFailedError(FaasError):
    """The function itself reported that it failed (an Fn function development kit answers 502 for an exception)."""

    http_status = 502
    code = "function_failed"
    reason = "bad_exit"

    def __init__(self, message: str = "function failed") -> None:
        super().__init__(message)


class ProtocolViolationError(FaasError):
    """The container did not speak its format; it never serves again."""

    http_status = 502
    code = "protocol"
    reason = "protocol"


class ResponseTooLargeError(FaasError):
    """The function's answer, or its header block, passes the limit that the message names."""

    http_status = 502
    code = "response_too_large"
    reason = "protocol"


class StartFailedError(FaasError):
    """The container ended, or broke its contract, before it was ready for a call."""

    http_status = 502
    code = "start_failed"
    reason = "start_failed"


class StartTimeoutError(FaasError):
    """The container was not ready within `start_timeout_s`."""

    http_status = 504
    code = "start_timeout"
    reason = "start_failed"


class CallTimeoutError(FaasError):
    """The function ran longer than the route's `timeout`; its container is dead."""

    http_status = 504
    code = "timeout"
    reason = "timeout"

    def __init__(self, message: str = "Timed out") -> None:
        super().__init__(message)


class CallCancelledError(FaasError):
    """Somebody cancelled the call."""

    http_status = 409
    code = "cancelled"
    reason = "client_request"

    def __init__(self, message: str = "The call was cancelled") -> None:
        super().__init__(message)


class CallNotBegunError(FaasError):
    """The call's `X-Expires` passed before it began; it never ran."""

    http_status = 504
    code = "expired"
    reason = "expired"

    def __init__(self, message: str = "The call expired before it began") -> None:
        super().__init__(message)


class LostError(FaasError):
    """The node that ran the call died or lost its lease; another attempt follows."""

    http_status = 502
    code = "lost"
    reason = "killed"


class TooManyAttemptsError(FaasError):
    """The node died each time it ran this call; it will not be tried again."""

    http_status = 502
    code = "too_many_attempts"
    reason = "killed"
