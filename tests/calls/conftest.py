"""One node's calls, with all that they stand on."""

from __future__ import annotations

from tests.test_calls import desk, empty_database

__all__ = ["desk", "empty_database"]
