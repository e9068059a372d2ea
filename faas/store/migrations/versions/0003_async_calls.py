"""Async calls: what a caller and a route may say of them, and what is kept beside them.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _add_retries()


def _add_retries() -> None:
    """Retries as policy, and dead letters."""
    op.add_column("routes", sa.Column("retries", sa.JSON()))
