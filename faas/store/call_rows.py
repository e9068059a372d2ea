"""A call's record as a row, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from faas.models import Attempt, Call, CallStatus, CallType, Reason, ResultInfo
from faas.webhooks import Webhooks

if TYPE_CHECKING:
    from sqlalchemy import Row

__all__ = ["call_of", "result_values", "values_of"]


def call_of(row: Row[Any], attempts: tuple[Attempt, ...] = ()) -> Call:
    """The record in a row of `calls`."""
    result = None
    if row.result_status_code is not None:
        result = ResultInfo(
            status_code=row.result_status_code,
            content_type=row.result_content_type,
            size_bytes=row.result_size_bytes,
        )
    return Call(
        id=row.id,
        app_name=row.app_name,
        path=row.path,
        type=CallType(row.type),
        status=CallStatus(row.status),
        created_at=row.created_at,
        started_at=row.started_at,
        completed_at=row.completed_at,
        reason=Reason(row.reason) if row.reason else None,
        error=row.error,
        attempt=row.attempt,
        retries=row.retries,
        attempts=attempts,
        priority=row.priority,
        not_before=row.not_before,
        expires_at=row.expires_at,
        retry_of=row.retry_of,
        retried_by=row.retried_by,
        is_dead_letter=row.is_dead_letter,
        cancel_requested_at=row.cancel_requested_at,
        schedule=row.schedule,
        webhooks=None if row.webhooks is None else Webhooks.from_json(row.webhooks),
        result=result,
    )


def values_of(call: Call) -> dict[str, object]:
    """The row of a record; its attempts are rows of their own."""
    return {
        "id": call.id,
        "app_name": call.app_name,
        "path": call.path,
        "type": call.type.value,
        "status": call.status.value,
        "created_at": call.created_at,
        "started_at": call.started_at,
        "completed_at": call.completed_at,
        "reason": call.reason.value if call.reason else None,
        "error": call.error,
        "attempt": call.attempt,
        "retries": call.retries,
        "priority": call.priority,
        "not_before": call.not_before,
        "expires_at": call.expires_at,
        "webhooks": None if call.webhooks is None else call.webhooks.to_json(),
        "is_untold": call.webhooks is not None,
        "retry_of": call.retry_of,
        "retried_by": call.retried_by,
        "is_dead_letter": call.is_dead_letter,
        "cancel_requested_at": call.cancel_requested_at,
        "schedule": call.schedule,
        **result_values(call.result),
    }


def result_values(result: ResultInfo | None) -> dict[str, object]:
    """The columns that say what the result is."""
    return {
        "result_status_code": result.status_code if result else None,
        "result_content_type": result.content_type if result else None,
        "result_size_bytes": result.size_bytes if result else None,
    }
