"""`/v1/calls/{id}/retry` and `/v1/apps/{app}/dead-letters`: running ended calls again."""

from fastapi import APIRouter

from faas.api.call_filters import DEFAULT_BULK, BulkLimit, Cursor, DeadLetterFilter, PerPage
from faas.api.openapi import errors
from faas.api.schemas import BulkAnswer, CallsAnswer, CallView, RetryAnswer
from faas.api.services import CatalogDep, DeadLettersDep
from faas.errors import (
    AppNotFoundError,
    CallExpiredError,
    CallNotEndedError,
    CallNotFoundError,
    CallRetriedError,
    InvalidRequestError,
    RequestNotKeptError,
    RouteNotFoundError,
)
from faas.models import Bulk

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["calls"])


@router.post(
    "/calls/{call_id}/retry",
    summary="Run a call again",
    status_code=202,
    responses=errors(
        AppNotFoundError,
        RouteNotFoundError,
        CallNotFoundError,
        CallExpiredError,
        CallNotEndedError,
        CallRetriedError,
        RequestNotKeptError,
    ),
)
async def retry_call(dead_letters: DeadLettersDep, call_id: str) -> RetryAnswer:
    """A new async call with the request of one that has ended, however it ended; each call can be retried once."""
    retry = await dead_letters.retry(call_id)
    return RetryAnswer(message="Call accepted", call_id=retry.id, call=CallView.of(retry))


@router.get(
    "/apps/{app_name}/dead-letters",
    summary="List an app's dead letters",
    responses=errors(InvalidRequestError, AppNotFoundError),
)
async def list_dead_letters(
    *,
    dead_letters: DeadLettersDep,
    catalog: CatalogDep,
    meant: DeadLetterFilter,
    cursor: Cursor = None,
    per_page: PerPage = 30,
) -> CallsAnswer:
    """Calls whose retries are exhausted, newest first, until they are retried or purged."""
    await catalog.get_app(meant.app_name)
    found, next_cursor = await dead_letters.list_calls(meant, limit=per_page, cursor=cursor or None)
    return CallsAnswer(
        message="Successfully listed dead letters",
        calls=[CallView.of(call) for call in found],
        next_cursor=next_cursor,
    )


@router.post(
    "/apps/{app_name}/dead-letters/redrive",
    summary="Retry dead letters",
    responses=errors(InvalidRequestError, AppNotFoundError),
)
async def redrive_dead_letters(
    *,
    dead_letters: DeadLettersDep,
    catalog: CatalogDep,
    meant: DeadLetterFilter,
    cursor: Cursor = None,
    limit: BulkLimit = DEFAULT_BULK,
) -> BulkAnswer:
    """Each becomes a new call, newest first; those whose route is gone are skipped and stay."""
    await catalog.get_app(meant.app_name)
    return _done("Dead letters retried", await dead_letters.redrive(meant, limit=limit, cursor=cursor or None))


@router.post(
    "/apps/{app_name}/dead-letters/purge",
    summary="Delete dead letters",
    responses=errors(InvalidRequestError, AppNotFoundError),
)
async def purge_dead_letters(
    *,
    dead_letters: DeadLettersDep,
    catalog: CatalogDep,
    meant: DeadLetterFilter,
    cursor: Cursor = None,
    limit: BulkLimit = DEFAULT_BULK,
) -> BulkAnswer:
    """Their records, results and logs are gone when this answers."""
    await catalog.get_app(meant.app_name)
    return _done("Dead letters deleted", await dead_letters.purge(meant, limit=limit, cursor=cursor or None))


def _done(message: str, bulk: Bulk) -> BulkAnswer:
    return BulkAnswer(message=message, count=bulk.count, skipped=bulk.skipped, next_cursor=bulk.next_cursor)
