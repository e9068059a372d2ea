"""Apps, routes, calls and the embedded queue.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

CALL_ID = sa.String(36)
INSTANT = sa.DateTime(timezone=True)
UNFINISHED = sa.text("status IN ('delayed', 'queued', 'running')")
FINAL = sa.text("status IN ('success', 'error', 'cancelled')")


def upgrade() -> None:
    op.create_table(
        "apps",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_apps"),
    )
    op.create_table(
        "routes",
        sa.Column("app_name", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("image", sa.Text(), nullable=False),
        sa.Column("image_digest", sa.Text(), nullable=False),
        sa.Column("memory_mib", sa.BigInteger(), nullable=False),
        sa.Column("cpus", sa.Double(), nullable=False),
        sa.Column("type", sa.String(16), nullable=False),
        sa.Column("format", sa.String(32), nullable=False),
        sa.Column("max_concurrency", sa.BigInteger(), nullable=False),
        sa.Column("timeout_s", sa.BigInteger(), nullable=False),
        sa.Column("idle_timeout_s", sa.BigInteger(), nullable=False),
        sa.Column("pull", sa.String(16), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("headers", sa.JSON(), nullable=False),
        sa.Column("jwt_key", sa.Text(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("app_name", "path", name="pk_routes"),
        sa.ForeignKeyConstraint(["app_name"], ["apps.name"], name="fk_routes_apps"),
    )
    _create_calls()
    op.create_table(
        "queued_calls",
        sa.Column(
            "place", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), sa.Identity(always=True), nullable=False
        ),
        sa.Column("call_id", CALL_ID, nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("fairness_key", sa.Text(), nullable=False),
        sa.Column("available_at", sa.Double(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("place", name="pk_queued_calls"),
        sa.UniqueConstraint("call_id", name="uq_queued_calls_call_id"),
    )
    op.create_index("ix_queued_calls_rank_place", "queued_calls", ["rank", "place"])


def _create_calls() -> None:
    op.create_table(
        "calls",
        sa.Column("id", CALL_ID, nullable=False),
        sa.Column("app_name", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("type", sa.String(16), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("started_at", INSTANT),
        sa.Column("completed_at", INSTANT),
        sa.Column("reason", sa.String(32)),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("not_before", INSTANT),
        sa.Column("retry_of", CALL_ID),
        sa.Column("retried_by", CALL_ID),
        sa.Column("result_status_code", sa.Integer()),
        sa.Column("result_content_type", sa.Text()),
        sa.Column("result_size_bytes", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_calls"),
    )
    op.create_index("ix_calls_app_name_id", "calls", ["app_name", "id"])
    op.create_index("ix_calls_status_app_name_id", "calls", ["status", "app_name", "id"])
    op.create_index("ix_calls_unfinished", "calls", ["id"], sqlite_where=UNFINISHED, postgresql_where=UNFINISHED)
    op.create_index("ix_calls_final", "calls", ["created_at"], sqlite_where=FINAL, postgresql_where=FINAL)
    _create_part(
        "call_attempts",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("started_at", INSTANT, nullable=False),
        sa.Column("completed_at", INSTANT),
        sa.Column("container_id", sa.Text(), nullable=False),
        sa.Column("image_digest", sa.Text(), nullable=False),
        sa.Column("exit_code", sa.Integer()),
        sa.Column("reason", sa.String(32)),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("is_cold", sa.Boolean()),
        sa.Column("queue_ms", sa.Double()),
        sa.Column("start_ms", sa.Double()),
        sa.Column("exec_ms", sa.Double()),
        sa.Column("memory_peak_bytes", sa.BigInteger()),
        sa.Column("cpu_s", sa.Double()),
        key=("call_id", "number"),
    )
    _create_part(
        "call_requests",
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("headers", sa.JSON(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
    )
    _create_part(
        "call_results",
        sa.Column("status_code", sa.Integer(), nullable=False),
        sa.Column("headers", sa.JSON(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("is_truncated", sa.Boolean(), nullable=False),
    )
    _create_part(
        "call_logs",
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("is_truncated", sa.Boolean(), nullable=False),
    )


def _create_part(name: str, *columns: sa.Column[object], key: tuple[str, ...] = ("call_id",)) -> None:
    op.create_table(
        name,
        sa.Column("call_id", CALL_ID, nullable=False),
        *columns,
        sa.PrimaryKeyConstraint(*key, name=f"pk_{name}"),
        sa.ForeignKeyConstraint(["call_id"], ["calls.id"], name=f"fk_{name}_calls", ondelete="CASCADE"),
    )
