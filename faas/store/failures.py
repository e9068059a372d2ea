"""The database's exceptions in our words: one visible table, nothing above this room sees the originals."""

from __future__ import annotations

import logging

import asyncpg
from sqlalchemy import exc

from faas.errors import FaasError, InternalError, StoreUnavailableError

__all__ = ["FOREIGN", "translated"]

logger = logging.getLogger(__name__)

# The first row that fits counts. Below a statement's own faults (ours, always) only a database remains that is gone,
# full, locked, shutting down, or refuses us.
_TABLE: tuple[tuple[type[Exception], type[FaasError]], ...] = (
    (exc.IntegrityError, InternalError),
    (exc.ProgrammingError, InternalError),
    (exc.DataError, InternalError),
    (exc.DBAPIError, StoreUnavailableError),
    (exc.TimeoutError, StoreUnavailableError),  # no free connection in time
    (exc.SQLAlchemyError, InternalError),
    (asyncpg.PostgresError, StoreUnavailableError),  # while connecting SQLAlchemy lets these through
    (asyncpg.InterfaceError, StoreUnavailableError),
    (OSError, StoreUnavailableError),
)

FOREIGN = tuple(foreign for foreign, _ in _TABLE)


def translated(error: Exception) -> FaasError:
    """The error of ours for one of `FOREIGN`; its message never has a statement's parameters, which may be secrets."""
    ours = next(ours for foreign, ours in _TABLE if isinstance(error, foreign))
    if ours is StoreUnavailableError:
        cause = error.orig if isinstance(error, exc.DBAPIError) and error.orig is not None else error
        return StoreUnavailableError(f"The database does not answer: {cause}")
    logger.error("database_failed", exc_info=error)
    return InternalError()
