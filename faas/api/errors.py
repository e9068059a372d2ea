"""Errors of the control API as answers. Nothing that is not a `FaasError` tells its message to a caller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from faas.api.encoding import JSON_CONTENT_TYPE, to_json
from faas.api.error_answer import error_body, error_headers
from faas.errors import (
    FaasError,
    InternalError,
    InvalidJSONError,
    InvalidRequestError,
    ValidationError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastapi import FastAPI
    from starlette.requests import Request

__all__ = ["NOT_FOUND_BODY", "error_response", "install", "not_found_response"]

NOT_FOUND_BODY = to_json("Not Found")
"""What an unmatched path or method gets: IronFunctions answers a JSON string here, not the envelope."""


def error_response(error: FaasError, request_id: str | None = None) -> Response:
    """The error as an ASGI answer."""
    response = Response(error_body(error, request_id), status_code=error.http_status)
    response.raw_headers.extend(error_headers(error))
    return response


def not_found_response() -> Response:
    """The answer to a path or method that does not exist."""
    return Response(NOT_FOUND_BODY, 404, {"faas-error": "not_found"}, media_type=JSON_CONTENT_TYPE)


def install(app: FastAPI) -> None:
    """Have the application answer every error of its handlers in this form."""

    async def faas_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, FaasError)
        return error_response(error)

    async def invalid_request(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return error_response(from_pydantic(error.errors()))

    async def http_exception(request: Request, error: Exception) -> Response:
        # Our handlers never raise these. The framework does, for a body that it can't read as JSON (not UTF-8, nested
        # too deep), and for what it can't route, which has a handler of its own.
        assert isinstance(error, HTTPException)
        if error.status_code == 400:
            return error_response(InvalidJSONError())
        return error_response(InternalError())

    async def defect(request: Request, error: Exception) -> Response:
        # The server logs it with its trace: the framework raises it again after this answer.
        return error_response(InternalError())

    app.add_exception_handler(FaasError, faas_error)
    app.add_exception_handler(RequestValidationError, invalid_request)
    app.add_exception_handler(HTTPException, http_exception)
    app.add_exception_handler(Exception, defect)


def from_pydantic(problems: Sequence[Mapping[str, Any]]) -> FaasError:
    """One readable error for what pydantic found: each sentence names its field and never repeats the value."""
    if any(_is_not_json(problem) for problem in problems):
        return InvalidJSONError()
    if problems and problems[0]["loc"][0] == "body":
        return ValidationError([_sentence(problem) for problem in problems])
    return InvalidRequestError("; ".join(_sentence(problem) for problem in problems))


def _is_not_json(problem: Mapping[str, Any]) -> bool:
    # An empty body, text that is no JSON, and JSON that is no object at all.
    return problem["type"] == "json_invalid" or tuple(problem["loc"]) == ("body",)


def _sentence(problem: Mapping[str, Any]) -> str:
    place, *names = problem["loc"]
    field = ".".join(str(name) for name in names if name != "[key]")
    where = field if place == "body" else f"{place} parameter {field}"
    message = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return f"{where}: {message}"
