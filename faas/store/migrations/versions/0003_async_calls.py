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


IN_LINE = sa.text("turn IS NOT NULL")
NOT_IN_LINE = sa.text("turn IS NULL")


def upgrade() -> None:
    _add_turns()
    _add_retries()
    _add_expiry()
    _add_idempotency_keys()
    _add_schedules()
    _add_webhooks()


def _add_retries() -> None:
    """Retries as policy, dead letters, the log of each attempt, and calls that are cancelled from another node."""
    op.add_column("routes", sa.Column("retries", sa.JSON()))
    op.add_column("calls", sa.Column("retries", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("calls", sa.Column("is_dead_letter", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("calls", sa.Column("cancel_requested_at", sa.DateTime(timezone=True)))
    for name, columns, predicate in (
        ("ix_calls_dead_letters", ["app_name", "id"], "is_dead_letter"),
        ("ix_calls_to_cancel", ["id"], "cancel_requested_at IS NOT NULL AND completed_at IS NULL"),
    ):
        where = sa.text(predicate)
        op.create_index(name, "calls", columns, sqlite_where=where, postgresql_where=where)
    op.create_table(
        "attempt_logs",
        sa.Column("call_id", sa.String(36), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("is_truncated", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("call_id", "number", name="pk_attempt_logs"),
        sa.ForeignKeyConstraint(["call_id"], ["calls.id"], name="fk_attempt_logs_calls", ondelete="CASCADE"),
    )
    # Of calls before, the log of the attempt that ended them was kept.
    op.execute(
        "INSERT INTO attempt_logs (call_id, number, data, is_truncated)"
        " SELECT call_id, attempt, data, is_truncated FROM call_logs JOIN calls ON calls.id = call_logs.call_id"
    )
    op.drop_table("call_logs")


def _add_expiry() -> None:
    """What a caller said of when a call may begin."""
    op.add_column("calls", sa.Column("expires_at", sa.DateTime(timezone=True)))
    expiring = sa.text("attempt = 0 AND completed_at IS NULL AND expires_at IS NOT NULL")
    op.create_index("ix_calls_expiring", "calls", ["expires_at"], sqlite_where=expiring, postgresql_where=expiring)


def _add_turns() -> None:
    """Apps take turns in the embedded queue. Calls of before get theirs as if they became due now."""
    op.add_column("queued_calls", sa.Column("turn", sa.BigInteger()))
    op.drop_index("ix_queued_calls_rank_place", "queued_calls")
    for name, columns, where in (
        ("ix_queued_calls_line", ["rank", "turn", "place"], IN_LINE),
        ("ix_queued_calls_turns", ["rank", "fairness_key", "turn"], IN_LINE),
        ("ix_queued_calls_not_in_line", ["available_at", "place"], NOT_IN_LINE),
    ):
        op.create_index(name, "queued_calls", columns, sqlite_where=where, postgresql_where=where)


def _add_idempotency_keys() -> None:
    """Which call a request's key stands for."""
    op.create_table(
        "idempotency_keys",
        sa.Column("app_name", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("call_id", sa.String(36), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("held_until", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("app_name", "path", "key", name="pk_idempotency_keys"),
        sa.UniqueConstraint("call_id", name="uq_idempotency_keys_call_id"),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])


def _add_schedules() -> None:
    """Routes that are called by the clock."""
    op.add_column("calls", sa.Column("schedule", sa.Text()))
    op.create_table(
        "schedules",
        sa.Column("app_name", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("cron", sa.Text(), nullable=False),
        sa.Column("interval_s", sa.BigInteger(), nullable=False),
        sa.Column("timezone", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("headers", sa.JSON(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("is_enabled", sa.Boolean(), nullable=False),
        sa.Column("missed", sa.String(16), nullable=False),
        sa.Column("overlap", sa.String(16), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True)),
        sa.Column("last_at", sa.DateTime(timezone=True)),
        sa.Column("last_call_id", sa.String(36)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("app_name", "name", name="pk_schedules"),
        sa.ForeignKeyConstraint(["app_name", "path"], ["routes.app_name", "routes.path"], name="fk_schedules_routes"),
    )
    op.create_index("ix_schedules_next_at", "schedules", ["next_at"])
    op.create_index("ix_schedules_app_name_path", "schedules", ["app_name", "path"])


def _add_webhooks() -> None:
    """Who is told of the ends of calls, and what became of the messages; a route's calls listed by an index."""
    op.add_column("routes", sa.Column("webhooks", sa.JSON()))
    op.add_column("calls", sa.Column("webhooks", sa.JSON()))
    op.add_column("calls", sa.Column("is_untold", sa.Boolean(), nullable=False, server_default=sa.false()))
    untold = sa.text("is_untold AND completed_at IS NOT NULL")
    op.create_index("ix_calls_untold", "calls", ["id"], sqlite_where=untold, postgresql_where=untold)
    op.create_index("ix_calls_app_name_path_id", "calls", ["app_name", "path", "id"])
    op.create_table(
        "webhook_deliveries",
        sa.Column("call_id", sa.String(36), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("last_try", sa.Integer(), nullable=False),
        sa.Column("next_try_at", sa.DateTime(timezone=True)),
        sa.Column("completed_at", sa.DateTime(timezone=True)),
        sa.Column("status_code", sa.Integer()),
        sa.Column("error", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("call_id", "number", name="pk_webhook_deliveries"),
        sa.ForeignKeyConstraint(["call_id"], ["calls.id"], name="fk_webhook_deliveries_calls", ondelete="CASCADE"),
    )
    due = sa.text("status = 'pending'")
    op.create_index(
        "ix_webhook_deliveries_due", "webhook_deliveries", ["next_try_at"], sqlite_where=due, postgresql_where=due
    )
