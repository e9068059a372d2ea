"""`/v1/apps`: groups of routes."""

from fastapi import APIRouter

from faas.api.openapi import errors
from faas.api.schemas import AppAnswer, AppEnvelope, AppRequest, AppsAnswer, AppView, MessageAnswer
from faas.api.services import CatalogDep
from faas.errors import (
    AppExistsError,
    AppHasRoutesError,
    AppNotFoundError,
    BodyTooLargeError,
    ChangeNotStartedError,
    ImmutableFieldError,
    InvalidJSONError,
    InvalidRequestError,
    ValidationError,
)

__all__ = ["router"]

router = APIRouter(prefix="/v1/apps", tags=["apps"])


@router.get("", summary="List apps", responses=errors())
async def list_apps(catalog: CatalogDep) -> AppsAnswer:
    """All apps by name."""
    apps = await catalog.list_apps()
    return AppsAnswer(message="Successfully listed applications", apps=[AppView.of(app) for app in apps])


@router.post(
    "",
    summary="Create an app",
    responses=errors(InvalidJSONError, ValidationError, AppExistsError, BodyTooLargeError),
)
async def create_app(catalog: CatalogDep, body: AppEnvelope) -> AppAnswer:
    """A new app, without routes."""
    wanted = _app_of(body)
    app = await catalog.create_app(wanted.name or "", wanted.config or {})
    return AppAnswer(message="App successfully created", app=AppView.of(app))


@router.get("/{app_name}", summary="Show an app", responses=errors(AppNotFoundError))
async def get_app(catalog: CatalogDep, app_name: str) -> AppAnswer:
    """One app."""
    return AppAnswer(message="Successfully loaded app", app=AppView.of(await catalog.get_app(app_name)))


@router.patch(
    "/{app_name}",
    summary="Change an app's configuration",
    responses=errors(
        InvalidJSONError,
        ValidationError,
        ImmutableFieldError,
        ChangeNotStartedError,
        AppNotFoundError,
        BodyTooLargeError,
    ),
)
async def update_app(catalog: CatalogDep, app_name: str, body: AppEnvelope) -> AppAnswer:
    """Keys are added or replaced, an empty value deletes its key, the others stay.

    Routes in use are started with the new configuration before the change is made.
    """
    wanted = _app_of(body)
    if wanted.name:
        raise ImmutableFieldError("Could not update app - name is immutable")
    app = await catalog.update_app(app_name, wanted.config or {})
    return AppAnswer(message="App successfully updated", app=AppView.of(app))


@router.delete("/{app_name}", summary="Delete an app", responses=errors(AppHasRoutesError, AppNotFoundError))
async def delete_app(catalog: CatalogDep, app_name: str) -> MessageAnswer:
    """Only an app without routes can be deleted."""
    await catalog.delete_app(app_name)
    return MessageAnswer(message="App deleted")


def _app_of(body: AppEnvelope) -> AppRequest:
    if body.app is None:
        raise InvalidRequestError("Missing new application")
    return body.app
