"""What `/openapi.json` says beyond the handlers' own types: errors by status, and the data plane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from faas.api.schemas import ErrorAnswer
from faas.errors import (
    AppNotFoundError,
    BadExitError,
    BodyTooLargeError,
    CallTimeoutError,
    FaasError,
    HeadersTooLargeError,
    IdempotencyKeyInUseError,
    IdempotencyKeyReusedError,
    IdempotentAnswerNotKeptError,
    InvalidRequestError,
    KilledError,
    NoCapacityError,
    OutOfMemoryError,
    ProtocolViolationError,
    RouteNotFoundError,
    StartFailedError,
    StartTimeoutError,
    UnauthorizedError,
)

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["TAGS", "describe_data_plane", "errors"]

TAGS = [
    {"name": "run", "description": "Running functions."},
    {"name": "apps", "description": "Groups of routes with a common configuration."},
    {"name": "routes", "description": "Functions: an image, where it answers, what it may use."},
    {"name": "calls", "description": "What became of a call: state, result, log."},
    {"name": "schedules", "description": "Routes that are called by the clock."},
    {"name": "tasks", "description": "Queued calls for workers outside."},
    {"name": "system", "description": "The operator's side."},
]

RUN_PATH = "/r/{app_name}/{path}"
RUN_METHODS = ("get", "post", "put", "patch", "delete", "options", "head")

_FAAS_ERROR_HEADER = {
    "Faas-Error": {"description": "The error's code: the platform made this answer.", "schema": {"type": "string"}}
}
_RETRY_AFTER_HEADER = {
    "Retry-After": {"description": "Seconds after which the same may work.", "schema": {"type": "integer"}}
}


def errors(*kinds: type[FaasError]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an operation that can raise these; every other error has the same form."""
    by_status: dict[int, list[type[FaasError]]] = {}
    for kind in kinds:
        by_status.setdefault(kind.http_status, []).append(kind)
    responses: dict[int | str, dict[str, Any]] = {
        status: {
            "model": ErrorAnswer,
            "description": " ".join(f"`{kind.code}`: {_first_sentence(kind)}" for kind in same_status),
            "headers": _FAAS_ERROR_HEADER
            | (_RETRY_AFTER_HEADER if any(kind.retry_after_s for kind in same_status) else {}),
        }
        for status, same_status in sorted(by_status.items())
    }
    responses["default"] = {
        "model": ErrorAnswer,
        "description": "Any other error, in the same form.",
        "headers": _FAAS_ERROR_HEADER,
    }
    return responses


def describe_data_plane(app: FastAPI) -> None:
    """Have the application's description include `/r/...`, which the server handles beside it."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = generate()
            schema["paths"][RUN_PATH] = {method: _run_operation(method) for method in RUN_METHODS}
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _run_operation(method: str) -> dict[str, Any]:
    return {
        "tags": ["run"],
        "summary": "Run a function",
        "description": (
            "The request goes to the function as it is, its answer comes back as it is. Async routes, and any route "
            "on `Prefer: respond-async`, answer 202 with the call's id at once."
        ),
        "operationId": f"run_{method}",
        "parameters": [
            _parameter("app_name", "path", "The app."),
            _parameter("path", "path", "The route; may contain slashes."),
            _parameter(
                "Prefer",
                "header",
                "`respond-async`: answer 202 and run it from the queue. `wait=N`: answer an async call with its "
                "result, if that comes within N seconds.",
            ),
            _parameter("X-Delay", "header", "An async call begins so many seconds later."),
            _parameter("X-Not-Before", "header", "An async call begins no earlier than this RFC 3339 time."),
            _parameter("X-Expires", "header", "An async call that has not begun after so many seconds never will."),
            _parameter("X-Priority", "header", "Of an async call: 0 to 2, higher ones go first."),
            _parameter("Idempotency-Key", "header", "A repeat of the request with the same key gets the first answer."),
            _parameter("Authorization", "header", "`Bearer <token>`, when the route has a `jwt_key`."),
        ],
        **({"requestBody": {"content": {"*/*": {}}}} if method not in ("get", "head") else {}),
        "responses": {
            "202": {
                "description": "Accepted, and stored: `GET /v1/calls/{call_id}` tells what becomes of it.",
                "headers": _RUN_HEADERS | _ADMISSION_HEADERS,
                "content": {"application/json": {"schema": _ACCEPTED}},
            },
            **{
                str(status): response
                | {"headers": response["headers"] | _RUN_HEADERS, "content": {"application/json": {"schema": _FAILED}}}
                for status, response in _run_errors().items()
            },
            "default": {
                "description": "The function's own answer, any status.",
                "headers": _RUN_HEADERS | _ADMISSION_HEADERS,
                "content": {"*/*": {}},
            },
        },
    }


def _run_errors() -> dict[int, dict[str, Any]]:
    kinds = (
        AppNotFoundError, RouteNotFoundError, UnauthorizedError, InvalidRequestError, BodyTooLargeError,
        HeadersTooLargeError, IdempotencyKeyInUseError, IdempotentAnswerNotKeptError, IdempotencyKeyReusedError,
        NoCapacityError, StartTimeoutError, StartFailedError, CallTimeoutError, BadExitError, OutOfMemoryError,
        KilledError, ProtocolViolationError,
    )  # fmt: skip
    described = errors(*kinds)
    return {
        status: {key: value for key, value in response.items() if key != "model"}
        for status, response in described.items()
        if isinstance(status, int)
    }


def _parameter(name: str, place: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "description": description,
        "schema": {"type": "string"},
    }


def _first_sentence(kind: type[FaasError]) -> str:
    text = " ".join((kind.__doc__ or "").split())
    return text.removesuffix(".") + "."


_RUN_HEADERS = {
    "X-Call-Id": {"description": "The call's id.", "schema": {"type": "string"}},
    "Server-Timing": {"description": "Where the time went.", "schema": {"type": "string"}},
}

_ADMISSION_HEADERS = {
    "Preference-Applied": {
        "description": "Which of the preferences of an async call's caller counted.",
        "schema": {"type": "string"},
    },
    "Idempotent-Replayed": {
        "description": "`true`: this is what the first request with the same `Idempotency-Key` got.",
        "schema": {"type": "string"},
    },
}

_ACCEPTED = {"type": "object", "properties": {"call_id": {"type": "string"}}, "required": ["call_id"]}

_FAILED = {
    "allOf": [
        {"$ref": "#/components/schemas/ErrorAnswer"},
        {"type": "object", "properties": {"request_id": {"type": "string", "description": "The call's id."}}},
    ]
}
