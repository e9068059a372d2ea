"""What the whole suite shares: each real service's fixtures are a plugin in `tests/support`, so are the event loops."""

from __future__ import annotations

pytest_plugins = [
    "tests.support.docker",
    "tests.support.loops",
    "tests.support.services",
]
