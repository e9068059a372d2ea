"""`/v1/apps/{app}/schedules`: routes that are called by the clock."""

from fastapi import APIRouter

from faas.api.openapi import errors
from faas.api.schedule_schemas import (
    ScheduleAnswer,
    ScheduleEnvelope,
    ScheduleRequest,
    SchedulesAnswer,
    ScheduleView,
)
from faas.api.schemas import MessageAnswer
from faas.api.services import SchedulesDep
from faas.errors import (
    AppNotFoundError,
    BodyTooLargeError,
    ImmutableFieldError,
    InvalidJSONError,
    InvalidRequestError,
    RouteNotFoundError,
    ScheduleExistsError,
    ScheduleNotFoundError,
    ValidationError,
)

__all__ = ["router"]

router = APIRouter(prefix="/v1/apps/{app_name}/schedules", tags=["schedules"])

BODY_ERRORS = (InvalidJSONError, ValidationError, BodyTooLargeError, AppNotFoundError, RouteNotFoundError)


@router.get("", summary="List an app's schedules", responses=errors(AppNotFoundError))
async def list_schedules(schedules: SchedulesDep, app_name: str) -> SchedulesAnswer:
    """Schedules by name."""
    found = await schedules.list(app_name)
    return SchedulesAnswer(
        message="Successfully listed schedules", schedules=[ScheduleView.of(schedule) for schedule in found]
    )


@router.post("", summary="Create a schedule", responses=errors(*BODY_ERRORS, ScheduleExistsError))
async def create_schedule(schedules: SchedulesDep, app_name: str, body: ScheduleEnvelope) -> ScheduleAnswer:
    """Each firing is an async call of the route, made once however many nodes there are."""
    wanted = _schedule_of(body)
    created = await schedules.create(app_name, wanted.name or "", wanted.patch())
    return ScheduleAnswer(message="Schedule successfully created", schedule=ScheduleView.of(created))


@router.get("/{name}", summary="Show a schedule", responses=errors(AppNotFoundError, ScheduleNotFoundError))
async def get_schedule(schedules: SchedulesDep, app_name: str, name: str) -> ScheduleAnswer:
    """One schedule, with its next firings and its last call."""
    found = await schedules.get(app_name, name)
    return ScheduleAnswer(message="Successfully loaded schedule", schedule=ScheduleView.of(found))


@router.patch(
    "/{name}",
    summary="Change a schedule",
    responses=errors(*BODY_ERRORS, ImmutableFieldError, ScheduleNotFoundError),
)
async def update_schedule(schedules: SchedulesDep, app_name: str, name: str, body: ScheduleEnvelope) -> ScheduleAnswer:
    """What is given replaces, the rest stays; `cron` replaces `interval_s` and the other way round."""
    wanted = _schedule_of(body)
    if wanted.name:
        raise ImmutableFieldError("Could not update schedule - name is immutable")
    changed = await schedules.update(app_name, name, wanted.patch())
    return ScheduleAnswer(message="Schedule successfully updated", schedule=ScheduleView.of(changed))


@router.delete("/{name}", summary="Delete a schedule", responses=errors(AppNotFoundError, ScheduleNotFoundError))
async def delete_schedule(schedules: SchedulesDep, app_name: str, name: str) -> MessageAnswer:
    """The calls that it has made stay, and run."""
    await schedules.delete(app_name, name)
    return MessageAnswer(message="Schedule deleted")


def _schedule_of(body: ScheduleEnvelope) -> ScheduleRequest:
    if body.schedule is None:
        raise InvalidRequestError("Missing new schedule")
    return body.schedule
