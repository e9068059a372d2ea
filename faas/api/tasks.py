"""`/tasks`: queued calls for workers outside, as IronFunctions' own workers fetch them.

Our workers do not use it. It is guarded by the service's token like `/v1`.
"""

import base64

from fastapi import APIRouter, status

from faas.api.openapi import errors
from faas.api.schemas import TaskAck, TaskView
from faas.api.services import CatalogDep, OutsideWorkersDep
from faas.errors import CallNotFoundError, InvalidJSONError, QueueUnavailableError
from faas.models import App, Call, CallRequest, Route
from faas.runner.formats.iron import call_variables

__all__ = ["router"]

router = APIRouter(prefix="/tasks", tags=["tasks"])


@router.get(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    summary="Lease a call",
    responses=errors(QueueUnavailableError),
    response_model_exclude_none=True,
)
async def lease_task(workers: OutsideWorkersDep, catalog: CatalogDep) -> TaskView | None:
    """One queued call, or `null`. Acknowledge it with DELETE, or it is given to somebody else when its lease ends."""
    leased = await workers.lease()
    if leased is None:
        return None
    call, route, request = leased
    return _view(call, await catalog.get_app(call.app_name), route, request)


@router.delete(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    summary="Acknowledge a call",
    responses=errors(InvalidJSONError, CallNotFoundError, QueueUnavailableError),
)
async def finish_task(workers: OutsideWorkersDep, body: TaskAck) -> TaskAck:
    """The call was run outside; the body is the task as it was leased, and is the answer too."""
    await workers.finish(body.id)
    return body


def _view(call: Call, app: App, route: Route, request: CallRequest) -> TaskView:
    try:
        payload, exact = request.body.decode(), None
    except UnicodeDecodeError:
        payload, exact = request.body.decode(errors="replace"), base64.b64encode(request.body).decode()
    return TaskView(
        id=call.id,
        app_name=call.app_name,
        path=call.path,
        image=route.image,
        payload=payload,
        payload_base64=exact,
        priority=call.priority,
        env_vars=_env_vars(app, route, request),
        timeout=route.timeout_s,
        idle_timeout=route.idle_timeout_s,
        status=call.status,
        created_at=call.created_at,
        started_at=call.started_at,
    )


def _env_vars(app: App, route: Route, request: CallRequest) -> dict[str, str]:
    """What a container of IronFunctions' `default` format finds in its environment."""
    return call_variables(
        method=request.method,
        route=route.path,
        url=request.url,
        config={**app.config, **route.config},
        headers=request.headers,
    )
