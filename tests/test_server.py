"""What `faas serve` carries for as long as it runs."""

from __future__ import annotations

import subprocess
import sys

USED_BY_OTHERS = (
    "alembic",  # by a node whose database is older than it
    "asyncpg",  # by a node on PostgreSQL
    "faas.cli.client",
    "faas.cli.routes",
    "httpx",  # by the command line
    "mako",
    "pygments",
    "redis",  # by a node with its queue in Redis
    "rich",
    "sqlalchemy.dialects.postgresql",
    "sqlalchemy.orm",  # by nobody
)
"""33 MiB in all."""


def test_a_node_imports_nothing_that_only_others_use() -> None:
    script = "import sys; import faas.cli.main, faas.cli.serve; print(*sys.modules)"
    listed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    imported = set(listed.stdout.split())
    assert "faas.wiring" in imported
    assert imported & set(USED_BY_OTHERS) == set()
