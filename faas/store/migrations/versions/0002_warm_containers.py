"""Routes say how their warm containers are kept.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

DEFAULTS = {"concurrency": "1", "min_warm": "0", "freeze_ms": "0", "stream_idle_s": "0"}
"""What routes of before had without saying so."""


def upgrade() -> None:
    for name, default in DEFAULTS.items():
        op.add_column("routes", sa.Column(name, sa.BigInteger(), nullable=False, server_default=default))
