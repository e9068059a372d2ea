"""`/v1/apps/{app}/routes` and `/v1/routes`: functions and where they answer."""

from typing import Annotated

from fastapi import APIRouter, Query

from faas.api.openapi import errors
from faas.api.schemas import MessageAnswer, RouteAnswer, RouteEnvelope, RouteRequest, RoutesAnswer, RouteView
from faas.api.services import CatalogDep
from faas.errors import (
    AppNotFoundError,
    BodyTooLargeError,
    ChangeNotStartedError,
    EngineUnavailableError,
    ImageNotAvailableError,
    ImageUnusableError,
    ImmutableFieldError,
    InvalidJSONError,
    InvalidRequestError,
    RouteExistsError,
    RouteHasSchedulesError,
    RouteNotFoundError,
    ValidationError,
)

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["routes"])

ImageFilter = Annotated[str, Query(description="Only routes of exactly this image.")]

BODY_ERRORS = (
    InvalidJSONError,
    ValidationError,
    ImageNotAvailableError,
    ImageUnusableError,
    BodyTooLargeError,
    EngineUnavailableError,
)


@router.get("/routes", summary="List the routes of all apps", responses=errors())
async def list_all_routes(catalog: CatalogDep, image: ImageFilter = "") -> RoutesAnswer:
    """Routes by app and path."""
    return _listed([RouteView.of(route) for route in await catalog.list_routes(image=image or None)])


@router.get("/apps/{app_name}/routes", summary="List an app's routes", responses=errors())
async def list_routes(catalog: CatalogDep, app_name: str, image: ImageFilter = "") -> RoutesAnswer:
    """Routes by path; none for an app that does not exist."""
    routes = await catalog.list_routes(app_name=app_name, image=image or None)
    return _listed([RouteView.of(route) for route in routes])


@router.post(
    "/apps/{app_name}/routes",
    summary="Create a route",
    responses=errors(*BODY_ERRORS, RouteExistsError),
)
async def create_route(catalog: CatalogDep, app_name: str, body: RouteEnvelope) -> RouteAnswer:
    """A new route, and its app when there is none.

    The image is looked for at once, and pulled where `pull` says so.
    """
    wanted = _route_of(body)
    route = await catalog.create_route(app_name, wanted.path or "", wanted.patch())
    return RouteAnswer(message="Route successfully created", route=RouteView.of(route))


@router.get(
    "/apps/{app_name}/routes/{path:path}",
    summary="Show a route",
    responses=errors(AppNotFoundError, RouteNotFoundError),
)
async def get_route(catalog: CatalogDep, app_name: str, path: str) -> RouteAnswer:
    """One route."""
    route = await catalog.get_route(app_name, path)
    return RouteAnswer(message="Successfully loaded route", route=RouteView.of(route))


@router.patch(
    "/apps/{app_name}/routes/{path:path}",
    summary="Change a route",
    responses=errors(*BODY_ERRORS, ImmutableFieldError, ChangeNotStartedError, AppNotFoundError, RouteNotFoundError),
)
async def update_route(catalog: CatalogDep, app_name: str, path: str, body: RouteEnvelope) -> RouteAnswer:
    """What is given replaces, what is not (or is zero or empty) stays, an explicit `null` goes back to the default.

    Giving `image` or `pull` has the image looked for again, also when the name is the same. When the route's
    containers are in use, new ones are started before the change is made; the old ones serve until then.
    """
    wanted = _route_of(body)
    if wanted.path:
        raise ImmutableFieldError("Could not update route - path is immutable")
    route = await catalog.update_route(app_name, path, wanted.patch())
    return RouteAnswer(message="Route successfully updated", route=RouteView.of(route))


@router.delete(
    "/apps/{app_name}/routes/{path:path}",
    summary="Delete a route",
    responses=errors(RouteHasSchedulesError, AppNotFoundError, RouteNotFoundError),
)
async def delete_route(catalog: CatalogDep, app_name: str, path: str) -> MessageAnswer:
    """Only a route without schedules can be deleted. Its containers end after the calls that they run."""
    await catalog.delete_route(app_name, path)
    return MessageAnswer(message="Route deleted")


def _listed(routes: list[RouteView]) -> RoutesAnswer:
    return RoutesAnswer(message="Sucessfully listed routes", routes=routes)  # IronFunctions' spelling


def _route_of(body: RouteEnvelope) -> RouteRequest:
    if body.route is None:
        raise InvalidRequestError("Missing new route")
    return body.route
