"""The control API as one ASGI application: `/v1`, `/tasks` and the operator's side. `/r/...` never comes here."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from fastapi import FastAPI, Security
from fastapi.security import HTTPBearer
from starlette.responses import Response
from starlette.routing import Match

from faas import __version__
from faas.api import errors as api_errors
from faas.api.apps import router as apps_router
from faas.api.calls import router as calls_router
from faas.api.dead_letters import router as dead_letters_router
from faas.api.deliveries import router as deliveries_router
from faas.api.encoding import GoJSONResponse
from faas.api.following import router as following_router
from faas.api.limits import ControlRequests
from faas.api.openapi import TAGS, describe_data_plane, errors
from faas.api.routes import router as routes_router
from faas.api.schedules import router as schedules_router
from faas.api.services import Services
from faas.api.system import router as system_router
from faas.api.tasks import router as tasks_router
from faas.auth.service import ServiceAuth
from faas.errors import UnauthorizedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.requests import Request

    from faas.api.services import (
        Control,
        DeadLetterBox,
        Deliveries,
        Following,
        Lookup,
        OutsideWorkers,
        ReadinessCheck,
    )
    from faas.catalog import Catalog
    from faas.schedules.schedules import Schedules

__all__ = ["build_app"]


def build_app(
    *,
    catalog: Catalog,
    lookup: Lookup,
    control: Control,
    following: Following,
    dead_letters: DeadLetterBox,
    schedules: Schedules,
    outside: OutsideWorkers,
    deliveries: Deliveries,
    render_metrics: Callable[[], Awaitable[bytes]],
    readiness: Mapping[str, ReadinessCheck],
    jwt_auth_key: str = "",
) -> FastAPI:
    """The application; with a `jwt_auth_key`, `/v1` and `/tasks` want a token signed by it.

    `readiness` names what must work for the node to take calls, each with a check that raises when it does not.
    """
    app = FastAPI(
        title="faas",
        summary="Container images as functions on plain Docker.",
        version=__version__,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        openapi_tags=TAGS,
        redoc_url=None,
        redirect_slashes=False,
        default_response_class=GoJSONResponse,
        separate_input_output_schemas=False,
    )
    app.state.services = Services(
        catalog=catalog,
        lookup=lookup,
        control=control,
        following=following,
        dead_letters=dead_letters,
        schedules=schedules,
        outside=outside,
        deliveries=deliveries,
        render_metrics=render_metrics,
        readiness=readiness,
    )
    guard = [Security(HTTPBearer(auto_error=False, description="A JWT signed by `JWT_AUTH_KEY`."))]
    for router in (
        apps_router,
        routes_router,
        calls_router,
        dead_letters_router,
        deliveries_router,
        following_router,
        schedules_router,
        tasks_router,
    ):
        if jwt_auth_key:
            app.include_router(router, dependencies=guard, responses=errors(UnauthorizedError))
        else:
            app.include_router(router)
    app.include_router(system_router)
    api_errors.install(app)
    for status in (404, 405):
        app.add_exception_handler(status, _unmatched)
    describe_data_plane(app)
    # The last one added is the first to see a request: a body is read only for those who may send one.
    app.add_middleware(ControlRequests)
    if jwt_auth_key:
        app.add_middleware(ServiceAuth, key=jwt_auth_key)
    return app


async def _unmatched(request: Request, _error: Exception) -> Response:
    """What no handler matches: redirected when only a slash at the end is amiss, as gin does it, or 404."""
    scope = request.scope
    path: str = scope["path"]
    other = path[:-1] if path.endswith("/") else path + "/"
    candidate = {**scope, "path": other}
    if not any(route.matches(candidate)[0] is Match.FULL for route in scope["router"].routes):
        return api_errors.not_found_response()
    query = scope["query_string"].decode("latin-1")
    location = quote(other) + (f"?{query}" if query else "")
    return Response(status_code=301 if request.method == "GET" else 307, headers={"location": location})
