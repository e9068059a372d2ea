"""The database's exceptions in our words: one visible table, nothing above this room sees the originals."""

from __future__ import annotations

import logging
import sys
from typing import TypeAlias

from sqlalchemy import exc

from faas.errors import FaasError, InternalError, StoreUnavailableError

__all__ = ["foreign", "is_locked", "translated"]

logger = logging.getLogger(__name__)

_Table: TypeAlias = tuple[tuple[type[Exception], type[FaasError]], ...]

# The first row that fits counts. Below a statement's own faults (ours, always) only a database remains that is gone,
# full, locked, shutting down, or refuses us.
_TABLE: _Table = (
    (exc.IntegrityError, InternalError),
    (exc.ProgrammingError, InternalError),
    (exc.DataError, InternalError),
    (exc.DBAPIError, StoreUnavailableError),
    (exc.TimeoutError, StoreUnavailableError),  # no free connection in time
    (exc.SQLAlchemyError, InternalError),
    (OSError, StoreUnavailableError),
)


def foreign() -> tuple[type[Exception], ...]:
    """All that the database and its driver are known to raise; for an `except` clause."""
    return tuple(theirs for theirs, _ in _table())


def translated(error: Exception) -> FaasError:
    """The error of ours for one of `foreign()`; its message never has a statement's parameters: they may be secrets."""
    ours = next(ours for theirs, ours in _table() if isinstance(error, theirs))
    if ours is StoreUnavailableError:
        cause = error.orig if isinstance(error, exc.DBAPIError) and error.orig is not None else error
        return StoreUnavailableError(f"The database does not answer: {cause}")
    logger.error("database_failed", exc_info=error)
    return InternalError()


def is_locked(error: StoreUnavailableError) -> bool:
    """Whether another process had SQLite's file for itself."""
    cause: BaseException | None = error
    while cause is not None:
        if getattr(cause, "sqlite_errorname", "").startswith("SQLITE_BUSY"):
            return True
        cause = cause.__cause__
    return False


def _table() -> _Table:
    # Not imported for the names of its errors: who has met one has asyncpg already, a node on SQLite saves its 3 MiB.
    asyncpg = sys.modules.get("asyncpg")
    if asyncpg is None:
        return _TABLE
    # What SQLAlchemy lets through while it connects.
    return (*_TABLE, (asyncpg.PostgresError, StoreUnavailableError), (asyncpg.InterfaceError, StoreUnavailableError))
