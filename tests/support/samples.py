"""Domain values with defaults that tests need not care about."""

from __future__ import annotations

from typing import Any

from faas.clock import utc_now
from faas.ids import new_id
from faas.models import Attempt, Call, CallRequest, CallResult, CallStatus, CallType, Route
from faas.schedule import Schedule

__all__ = ["a_call", "a_request", "a_result", "a_route", "a_schedule", "an_attempt"]


def a_route(**changes: Any) -> Route:
    return Route(**{"app_name": "demo", "path": "/hello", "image": "faas/echo", **changes})


def a_call(**changes: Any) -> Call:
    values: dict[str, Any] = {
        "id": new_id(),
        "app_name": "demo",
        "path": "/hello",
        "type": CallType.ASYNC,
        "status": CallStatus.QUEUED,
        "created_at": utc_now(),
    }
    return Call(**{**values, **changes})


def a_request(**changes: Any) -> CallRequest:
    return CallRequest(**{"method": "POST", "url": "http://localhost/r/demo/hello", **changes})


def a_result(**changes: Any) -> CallResult:
    return CallResult(
        **{"status_code": 200, "headers": ((b"content-type", b"text/plain"),), "body": b"hello", **changes}
    )


def an_attempt(**changes: Any) -> Attempt:
    return Attempt(**{"number": 1, "node": "node-1", "started_at": utc_now(), **changes})


def a_schedule(**changes: Any) -> Schedule:
    return Schedule(**{"app_name": "demo", "name": "nightly", "path": "/hello", "interval_s": 60, **changes})
