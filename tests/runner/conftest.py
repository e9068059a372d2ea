"""A runner on the in-process executor."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.support.rig import Rig, running_rig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.inprocess import Program


class MakeRig(Protocol):
    """Makes a runner with these programs under their names as images; other keywords are the limits."""

    async def __call__(
        self, *, memory_mib: int = 1024, limits: dict[str, Any] | None = None, **programs: Program
    ) -> Rig: ...


@pytest.fixture
async def make_rig(tmp_path: Path) -> AsyncIterator[MakeRig]:
    """Runners that are closed in the end, each with nothing left of it."""
    async with AsyncExitStack() as stack:

        async def make(*, memory_mib: int = 1024, limits: dict[str, Any] | None = None, **programs: Program) -> Rig:
            root = tmp_path / "sockets"
            root.mkdir()
            return await stack.enter_async_context(running_rig(root, programs, memory_mib=memory_mib, **(limits or {})))

        yield make
