"""`/v1/calls` and `/v1/apps/{app}/calls`: what became of a call."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from faas.api.call_filters import DEFAULT_BULK, BulkLimit, Cursor, PathFilter, PerPage, Since, Until
from faas.api.event_stream import LiveResponse
from faas.api.openapi import errors
from faas.api.schemas import BulkAnswer, CallAnswer, CallsAnswer, CallView
from faas.api.services import CatalogDep, ControlDep, FollowingDep, LookupDep
from faas.errors import (
    AppNotFoundError,
    CallExpiredError,
    CallNotFinishedError,
    CallNotFoundError,
    InvalidRequestError,
    ResultNotKeptError,
)
from faas.models import CallFilter, CallStatus, clean_path

__all__ = ["router"]

MAX_WAIT_S = 300
"""Longer than that, proxies in between give up on a silent connection."""

LOG_TYPE = "text/plain; charset=utf-8"
CANCELLABLE = (CallStatus.DELAYED, CallStatus.QUEUED, CallStatus.RUNNING)

router = APIRouter(prefix="/v1", tags=["calls"])

GONE = (CallNotFoundError, CallExpiredError)

Wait = Annotated[
    float,
    Query(ge=0, le=MAX_WAIT_S, allow_inf_nan=False, description="Seconds to wait for the call's end before answering."),
]


Follow = Annotated[bool, Query(description="Go on, line by line as they are written, until the call has ended.")]


@router.get("/calls/{call_id}", summary="Show a call", responses=errors(InvalidRequestError, *GONE))
async def get_call(lookup: LookupDep, call_id: str, wait: Wait = 0) -> CallAnswer:
    """Its state now, or after its end when that comes within `wait` seconds."""
    return CallAnswer(message="Successfully loaded call", call=CallView.of(await lookup.get(call_id, wait_s=wait)))


@router.get(
    "/calls/{call_id}/result",
    summary="Get a call's result",
    response_class=Response,
    responses={
        200: {"description": "The function's own answer: its status, headers and body.", "content": {"*/*": {}}},
        **errors(CallNotFinishedError, ResultNotKeptError, *GONE),
    },
)
async def get_result(lookup: LookupDep, call_id: str) -> Response:
    """Exactly what a caller who waited would have got; for a failed call that is its error."""
    result = await lookup.result(call_id)
    response = Response(result.body, status_code=result.status_code)
    headers = [(name.lower(), value) for name, value in result.headers]
    response.raw_headers += [(name, value) for name, value in headers if name != b"content-length"]
    if "x-call-id" not in response.headers:
        response.headers["x-call-id"] = call_id
    if result.is_truncated:
        response.headers["x-result-truncated"] = "true"
    return response


@router.get(
    "/calls/{call_id}/log",
    summary="Get a call's log",
    response_class=Response,
    responses={
        200: {
            "description": "What the function wrote to standard error, so far.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
            "headers": {
                "X-Log-Truncated": {"description": "`true` when only a part was kept.", "schema": {"type": "string"}}
            },
        },
        **errors(InvalidRequestError, *GONE),
    },
)
async def get_log(
    lookup: LookupDep,
    following: FollowingDep,
    call_id: str,
    follow: Follow = False,
    attempt: Annotated[int | None, Query(ge=1, description="Only what this attempt wrote; the first is 1.")] = None,
) -> Response:
    """Its bytes as they came, one attempt after the other."""
    if follow:
        if attempt is not None:
            raise InvalidRequestError("`follow` goes through all attempts; leave `attempt` out")
        await lookup.get(call_id)  # what is not there is a 404, not a stream
        return LiveResponse(following.follow_log(call_id), media_type=LOG_TYPE)
    log = await lookup.log(call_id, attempt=attempt)
    response = Response(log.data, media_type=LOG_TYPE)
    if log.is_truncated:
        response.headers["x-log-truncated"] = "true"
    return response


@router.delete("/calls/{call_id}", summary="Cancel a call", responses=errors(*GONE))
async def cancel_call(control: ControlDep, call_id: str) -> CallAnswer:
    """A call that waits never runs, a running one's container is killed, on whichever node; an ended one stays so."""
    call = await control.cancel(call_id)
    if call.status is CallStatus.CANCELLED:
        message = "Call cancelled"
    else:
        message = "Call has already ended" if call.status.is_final else "Call is being cancelled"
    return CallAnswer(message=message, call=CallView.of(call))


@router.get(
    "/apps/{app_name}/calls", summary="List an app's calls", responses=errors(InvalidRequestError, AppNotFoundError)
)
async def list_calls(
    *,
    lookup: LookupDep,
    catalog: CatalogDep,
    app_name: str,
    status: CallStatus | None = None,
    path: PathFilter = None,
    since: Since = None,
    until: Until = None,
    cursor: Cursor = None,
    per_page: PerPage = 30,
) -> CallsAnswer:
    """Newest first, a page at a time."""
    await catalog.get_app(app_name)
    found, next_cursor = await lookup.list_calls(
        app_name,
        status=status,
        path=clean_path(path) if path else None,
        since=since,
        until=until,
        cursor=cursor or None,
        limit=per_page,
    )
    return CallsAnswer(
        message="Successfully listed calls", calls=[CallView.of(call) for call in found], next_cursor=next_cursor
    )


@router.post(
    "/apps/{app_name}/calls/cancel",
    summary="Cancel an app's calls",
    responses=errors(InvalidRequestError, AppNotFoundError),
)
async def cancel_calls(
    *,
    control: ControlDep,
    catalog: CatalogDep,
    app_name: str,
    status: Annotated[
        CallStatus | None, Query(description="Only those in this state: `delayed`, `queued` or `running`.")
    ] = None,
    path: PathFilter = None,
    since: Since = None,
    until: Until = None,
    cursor: Cursor = None,
    limit: BulkLimit = DEFAULT_BULK,
) -> BulkAnswer:
    """Async calls that have not ended, newest first; the containers of those that ran are dead when this answers."""
    if status is not None and status not in CANCELLABLE:
        raise InvalidRequestError("query parameter status: should be 'delayed', 'queued' or 'running'")
    await catalog.get_app(app_name)
    meant = CallFilter(
        app_name=app_name,
        statuses=() if status is None else (status,),
        path=clean_path(path) if path else None,
        since=since,
        until=until,
    )
    done = await control.cancel_many(meant, limit=limit, cursor=cursor or None)
    return BulkAnswer(message="Calls cancelled", count=done.count, skipped=done.skipped, next_cursor=done.next_cursor)
