"""`make soak` in short: what a node holds after many calls, good and bad, is what it held after some."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.soak.run import soak
from tests.support.node import App

if TYPE_CHECKING:
    from tests.e2e.conftest import StartNode

REMEMBERED_CALLS = 1000
"""Fewer than the calls of the warm-up, so that the memory for them is in use when the node is looked at first."""


@pytest.mark.timeout(600)
def test_twenty_thousand_calls_leak_nothing(start_node: StartNode) -> None:
    table: list[str] = []
    app = App(start_node(recent_calls=REMEMBERED_CALLS))
    leaks = soak(app, calls=20_000, report=table.append)
    assert not leaks, "\n".join([*leaks, *table])
