"""`/v1/calls/{id}/events` and `/v1/apps/{app}/events`: what happens to calls, as it happens."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Header, Response, status

from faas.api.event_stream import EVENT_STREAM, HEARTBEAT, OPENING, LiveResponse, event
from faas.api.event_views import (
    AppStateView,
    AttemptEndedView,
    EndView,
    InterruptedView,
    LogLineView,
    StateView,
)
from faas.api.openapi import errors
from faas.api.schemas import AttemptView, CallView
from faas.api.services import CatalogDep, Following, FollowingDep, LookupDep
from faas.calls.events import CallEvent, Notice
from faas.calls.following import HEARTBEAT_S, CallEnded, LogLine, Told
from faas.calls.history import AttemptEnded, Position
from faas.errors import (
    AppNotFoundError,
    CallExpiredError,
    CallNotFoundError,
    FaasError,
    FollowerTooSlowError,
    InvalidRequestError,
    ShuttingDownError,
)

__all__ = ["router"]

END_ID = "end"
"""The id of a call's last event; who comes back with it wants no more."""

GAP = b": some events of other nodes may be missing here\nevent: gap\ndata: {}\n\n"

router = APIRouter(prefix="/v1", tags=["calls"])

LastEventId = Annotated[
    str, Header(description="The `id` of the last event that was received; what came after it is told.")
]


@router.get(
    "/calls/{call_id}/events",
    summary="Follow a call",
    response_class=Response,
    responses={
        200: {
            "description": "Server-Sent Events until the call has ended: `state`, `attempt`, `log`, then `end`.",
            "content": {EVENT_STREAM: {"schema": {"type": "string"}}},
        },
        204: {"description": "The end was told already; an `EventSource` does not come back after this."},
        **errors(InvalidRequestError, CallNotFoundError, CallExpiredError),
    },
)
async def follow_call(
    following: FollowingDep, lookup: LookupDep, call_id: str, last_event_id: LastEventId = ""
) -> Response:
    """Its states, attempts and log from the beginning, or from where `Last-Event-ID` says, then as they come."""
    if last_event_id == END_ID:
        return Response(status_code=status.HTTP_204_NO_CONTENT)
    after = Position.parse(last_event_id) if last_event_id else Position()
    await lookup.get(call_id)  # what is not there is a 404, not a stream
    return LiveResponse(_call_events(following, call_id, after), media_type=EVENT_STREAM)


@router.get(
    "/apps/{app_name}/events",
    summary="Follow an app's calls",
    response_class=Response,
    responses={
        200: {
            "description": (
                "Server-Sent Events without end: `state` for each change of an async call, on any node; `gap` when "
                "some may be missing."
            ),
            "content": {EVENT_STREAM: {"schema": {"type": "string"}}},
        },
        **errors(AppNotFoundError),
    },
)
async def follow_app(following: FollowingDep, catalog: CatalogDep, app_name: str) -> Response:
    """Every change of an async call's state from now on; nothing is told again, the listing of calls has what was."""
    await catalog.get_app(app_name)
    return LiveResponse(_app_events(following, app_name), media_type=EVENT_STREAM)


async def _call_events(following: Following, call_id: str, after: Position) -> AsyncGenerator[bytes, None]:
    yield OPENING
    try:
        async with aclosing(following.follow(call_id, after)) as stream:
            async for told in stream:
                yield b"".join(_written(one) for one in told) or HEARTBEAT
                if told and isinstance(told[-1].news, CallEnded):
                    return
    except FaasError as error:
        yield _interrupted(error)
    else:
        yield _interrupted(ShuttingDownError())


def _written(told: Told) -> bytes:
    news, event_id = told.news, str(told.position)
    if isinstance(news, LogLine):
        line = LogLineView(attempt=news.attempt, line=news.line.decode(errors="replace"))
        return event("log", line, event_id=event_id)
    if isinstance(news, AttemptEnded):
        view = AttemptEndedView(attempt=AttemptView.model_validate(news.attempt))
        return event("attempt", view, event_id=event_id)
    if isinstance(news, CallEnded):
        return event("end", EndView(call=CallView.of(news.call)), event_id=END_ID)
    return event("state", StateView.model_validate(news), event_id=event_id)


async def _app_events(following: Following, app_name: str) -> AsyncGenerator[bytes, None]:
    with following.watch(app_name) as watch:
        yield OPENING
        while True:
            for news in (taken := await watch.take(timeout_s=HEARTBEAT_S)):
                if isinstance(news, CallEvent):
                    yield event("state", AppStateView.model_validate(news))
                elif news is Notice.GAP:
                    yield GAP
                else:
                    yield _interrupted(FollowerTooSlowError() if news is Notice.TOO_SLOW else ShuttingDownError())
                    return
            if not taken:
                yield HEARTBEAT


def _interrupted(error: FaasError) -> bytes:
    return event("interrupted", InterruptedView(code=error.code, message=error.message))
