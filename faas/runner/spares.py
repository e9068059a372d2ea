"""Containers that were created ahead for functions in use, and are not started: the next start of one is that shorter.

A spare runs nothing and holds no memory but its network holder's. There is one for each function at most, and `limit`
in all; those that were not wanted for the longest time make room for others.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from faas.errors import FaasError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from faas.runner.executors.base import Container
    from faas.runner.functions import Function

__all__ = ["Created", "Spares"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Created:
    """A container that waits for its start, and the folder for its socket where its format has one."""

    engine: Container
    socket_dir: Path | None


class Spares:
    """The spares of one node."""

    def __init__(
        self,
        create: Callable[[Function], Awaitable[Created]],
        remove: Callable[[Created], Awaitable[None]],
        *,
        limit: int,
    ) -> None:
        self._create = create
        self._remove = remove
        self._limit = limit
        self._spares: dict[str, Created] = {}
        """By function key, the one wanted last at the end."""
        self._is_making: set[str] = set()
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Spares {len(self._spares)} of {self._limit}>"

    def take(self, key: str) -> Created | None:
        """The function's spare, which is the caller's from now on."""
        return self._spares.pop(key, None)

    async def refill(self, function: Function) -> None:
        """Make a spare for a function that was started just now, if it has none."""
        key = function.key
        if not self._limit or self._is_closed or key in self._spares or key in self._is_making:
            return
        self._is_making.add(key)
        try:
            made = await self._create(function)
        except FaasError as error:
            # The next start finds out for itself, and says so to its caller.
            logger.info("spare_not_created", extra={"function": str(function), "error": error.message})
            return
        finally:
            # Who retires the function meanwhile takes the key out.
            is_wanted = key in self._is_making and not self._is_closed
            self._is_making.discard(key)
        if not is_wanted:
            await self._remove(made)
            return
        self._spares[key] = made
        if len(self._spares) > self._limit:
            await self._remove(self._spares.pop(next(iter(self._spares))))

    async def discard(self, key: str) -> None:
        """The function is no more."""
        self._is_making.discard(key)
        made = self._spares.pop(key, None)
        if made is not None:
            await self._remove(made)

    async def close(self) -> None:
        """Remove all; none are made any more."""
        self._is_closed = True
        while self._spares:
            await self._remove(self._spares.popitem()[1])
