"""The tables, drawn once for both databases. A new database is made from here, `migrations/` bring an older one to the
same; a test holds the two together.

apps 1--n routes 1--n schedules
calls 1--n call_attempts
      1--1 call_requests, call_results                 the big parts, so that listings read small rows
      1--n webhook_deliveries                          who was told of its end
      1--n attempt_logs                                what each attempt logged; one that logged nothing has none
queued_calls                                            the embedded queue; knows ids only, hence no foreign key
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    event,
    false,
    text,
)

from faas.store.columns import HeaderPairs, PlainText, UtcDateTime

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = [
    "IS_DEAD_LETTER",
    "IS_DUE_DELIVERY",
    "IS_EXPIRING",
    "IS_FINAL",
    "IS_TO_CANCEL",
    "IS_UNFINISHED",
    "IS_UNTOLD",
    "REVISION",
    "apps",
    "attempt_logs",
    "call_attempts",
    "call_requests",
    "call_results",
    "calls",
    "idempotency_keys",
    "metadata",
    "queued_calls",
    "routes",
    "schedules",
    "webhook_deliveries",
]

REVISION = "0003"
"""The migration that ends in this drawing."""

IS_UNFINISHED = "status IN ('delayed', 'queued', 'running')"
IS_FINAL = "status IN ('success', 'error', 'cancelled')"
IS_DEAD_LETTER = "is_dead_letter"
IS_TO_CANCEL = "cancel_requested_at IS NOT NULL AND completed_at IS NULL"
# Not by status: SQLite would rather look up a status in the other index, and sort.
IS_EXPIRING = "attempt = 0 AND completed_at IS NULL AND expires_at IS NOT NULL"
IS_UNTOLD = "is_untold AND completed_at IS NOT NULL"
IS_DUE_DELIVERY = "status = 'pending'"
"""The predicates of partial indexes; a query has to say them in these words for the index to be used."""

_WHERE = "where"

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)

CALL_ID = String(36)
# SQLite counts up by itself only in an INTEGER key; PostgreSQL's INTEGER would end at 2^31.
_SEQUENCE = BigInteger().with_variant(Integer, "sqlite")

apps = Table(
    "apps",
    metadata,
    Column("name", PlainText, primary_key=True),
    Column("config", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)

routes = Table(
    "routes",
    metadata,
    Column("app_name", PlainText, ForeignKey("apps.name"), primary_key=True),
    Column("path", PlainText, primary_key=True),
    Column("image", PlainText, nullable=False),
    Column("image_digest", PlainText, nullable=False),
    Column("memory_mib", BigInteger, nullable=False),
    Column("cpus", Double, nullable=False),
    Column("type", String(16), nullable=False),
    Column("format", String(32), nullable=False),
    Column("max_concurrency", BigInteger, nullable=False),
    Column("concurrency", BigInteger, nullable=False, server_default="1"),
    Column("min_warm", BigInteger, nullable=False, server_default="0"),
    Column("freeze_ms", BigInteger, nullable=False, server_default="0"),
    Column("stream_idle_s", BigInteger, nullable=False, server_default="0"),
    Column("timeout_s", BigInteger, nullable=False),
    Column("idle_timeout_s", BigInteger, nullable=False),
    # When failed async calls run again; null: never.
    Column("retries", JSON(none_as_null=True)),
    # Who is told of the ends of async calls; null: nobody.
    Column("webhooks", JSON(none_as_null=True)),
    Column("pull", String(16), nullable=False),
    Column("config", JSON, nullable=False),
    Column("headers", JSON, nullable=False),
    Column("jwt_key", PlainText, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)

calls = Table(
    "calls",
    metadata,
    Column("id", CALL_ID, primary_key=True),
    Column("app_name", PlainText, nullable=False),
    Column("path", PlainText, nullable=False),
    Column("type", String(16), nullable=False),
    Column("status", String(16), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime),
    Column("completed_at", UtcDateTime),
    Column("reason", String(32)),
    Column("error", PlainText, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("not_before", UtcDateTime),
    Column("retry_of", CALL_ID),
    Column("retried_by", CALL_ID),
    # The schedule whose firing it is; only a name, which outlives it.
    Column("schedule", PlainText),
    Column("result_status_code", Integer),
    Column("result_content_type", PlainText),
    Column("result_size_bytes", BigInteger),
    # Retries by the route's policy, and what is left when they are exhausted.
    Column("retries", Integer, nullable=False, server_default="0"),
    Column("is_dead_letter", Boolean, nullable=False, server_default=false()),
    # For the node that runs the call, when another one was asked to cancel it.
    Column("cancel_requested_at", UtcDateTime),
    # What a caller said of when it may begin.
    Column("expires_at", UtcDateTime),
    # Ids are ordered by time, so the pages of a listing are ranges of these.
    Index("ix_calls_app_name_id", "app_name", "id"),
    Index("ix_calls_status_app_name_id", "status", "app_name", "id"),
    Index("ix_calls_unfinished", "id", info={_WHERE: IS_UNFINISHED}),
    Index("ix_calls_final", "created_at", info={_WHERE: IS_FINAL}),
    # Who is told of its end, and whether that is still to be done.
    Column("webhooks", JSON(none_as_null=True)),
    Column("is_untold", Boolean, nullable=False, server_default=false()),
    Index("ix_calls_untold", "id", info={_WHERE: IS_UNTOLD}),
    # A route's calls are listed as fast as its app's.
    Index("ix_calls_app_name_path_id", "app_name", "path", "id"),
    Index("ix_calls_dead_letters", "app_name", "id", info={_WHERE: IS_DEAD_LETTER}),
    Index("ix_calls_to_cancel", "id", info={_WHERE: IS_TO_CANCEL}),
    Index("ix_calls_expiring", "expires_at", info={_WHERE: IS_EXPIRING}),
)


def _make_indexes_partial(table: Table, connection: Connection, **_: object) -> None:
    # Not by `postgresql_where=` up there: a dialect that is named is imported, and PostgreSQL's takes 2 MiB.
    for index in table.indexes:
        if _WHERE in index.info:
            index.dialect_kwargs[f"{connection.dialect.name}_where"] = text(index.info[_WHERE])


event.listen(calls, "before_create", _make_indexes_partial)


def _of_call() -> Column[str]:
    return Column("call_id", CALL_ID, ForeignKey("calls.id", ondelete="CASCADE"), primary_key=True)


call_attempts = Table(
    "call_attempts",
    metadata,
    _of_call(),
    Column("number", Integer, primary_key=True),
    Column("node", PlainText, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("completed_at", UtcDateTime),
    Column("container_id", PlainText, nullable=False),
    Column("image_digest", PlainText, nullable=False),
    Column("exit_code", Integer),
    Column("reason", String(32)),
    Column("error", PlainText, nullable=False),
    Column("is_cold", Boolean),
    Column("queue_ms", Double),
    Column("start_ms", Double),
    Column("exec_ms", Double),
    Column("memory_peak_bytes", BigInteger),
    Column("cpu_s", Double),
)

call_requests = Table(
    "call_requests",
    metadata,
    _of_call(),
    Column("method", PlainText, nullable=False),
    Column("url", PlainText, nullable=False),
    Column("headers", HeaderPairs, nullable=False),
    Column("body", LargeBinary, nullable=False),
)

call_results = Table(
    "call_results",
    metadata,
    _of_call(),
    Column("status_code", Integer, nullable=False),
    Column("headers", HeaderPairs, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("is_truncated", Boolean, nullable=False),
)

# Messages about the ends of calls, and what became of them.
webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    _of_call(),
    Column("number", Integer, primary_key=True),
    Column("url", PlainText, nullable=False),
    Column("status", String(16), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("last_try", Integer, nullable=False),
    # When it is tried next; while a node tries, when its claim runs out.
    Column("next_try_at", UtcDateTime),
    Column("completed_at", UtcDateTime),
    Column("status_code", Integer),
    Column("error", PlainText, nullable=False),
    Index("ix_webhook_deliveries_due", "next_try_at", info={_WHERE: IS_DUE_DELIVERY}),
)
event.listen(webhook_deliveries, "before_create", _make_indexes_partial)

attempt_logs = Table(
    "attempt_logs",
    metadata,
    _of_call(),
    Column("number", Integer, primary_key=True),
    Column("data", LargeBinary, nullable=False),
    Column("is_truncated", Boolean, nullable=False),
)

# Which call a request's `Idempotency-Key` stands for. No foreign key: it is claimed before its call has a record, and
# outlives that.
idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("app_name", PlainText, primary_key=True),
    Column("path", PlainText, primary_key=True),
    Column("key", PlainText, primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("call_id", CALL_ID, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    # Until when the claim stands without being renewed; empty once the call is accepted, or has ended.
    Column("held_until", UtcDateTime),
    UniqueConstraint("call_id"),
    Index("ix_idempotency_keys_created_at", "created_at"),
)

queued_calls = Table(
    "queued_calls",
    metadata,
    # The order of dispatch; a call that comes back keeps its place.
    Column("place", _SEQUENCE, Identity(always=True), primary_key=True),
    Column("call_id", CALL_ID, nullable=False),
    # The priority, turned round so that one index has both in the order of turns: 0 is first.
    Column("rank", Integer, nullable=False),
    # Whose turns it uses: its app.
    Column("fairness_key", PlainText, nullable=False),
    # From when on it can be leased, in seconds since the epoch: when it is due, or when its lease runs out. By the
    # clock of PostgreSQL, which all nodes share; by this machine's on SQLite.
    Column("available_at", Double, nullable=False),
    # Both empty while nobody holds it.
    Column("owner", PlainText, nullable=False),
    Column("token", PlainText, nullable=False),
    # Its place in the round of apps, while it is in line: faas/queue/sql_line.py.
    Column("turn", BigInteger),
    UniqueConstraint("call_id"),
    Index("ix_queued_calls_line", "rank", "turn", "place", info={_WHERE: "turn IS NOT NULL"}),
    Index("ix_queued_calls_turns", "rank", "fairness_key", "turn", info={_WHERE: "turn IS NOT NULL"}),
    Index("ix_queued_calls_not_in_line", "available_at", "place", info={_WHERE: "turn IS NULL"}),
)
event.listen(queued_calls, "before_create", _make_indexes_partial)

# Routes that are called by the clock.
schedules = Table(
    "schedules",
    metadata,
    Column("app_name", PlainText, primary_key=True),
    Column("name", PlainText, primary_key=True),
    Column("path", PlainText, nullable=False),
    # One of the two says when: an expression, or seconds; the other is empty or 0.
    Column("cron", PlainText, nullable=False),
    Column("interval_s", BigInteger, nullable=False),
    Column("timezone", PlainText, nullable=False),
    Column("method", PlainText, nullable=False),
    Column("headers", HeaderPairs, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("is_enabled", Boolean, nullable=False),
    Column("missed", String(16), nullable=False),
    Column("overlap", String(16), nullable=False),
    # Who moves it on makes the firing: the claim, for which all nodes compete.
    Column("next_at", UtcDateTime),
    Column("last_at", UtcDateTime),
    # A call's record goes before its schedule does, hence no foreign key.
    Column("last_call_id", CALL_ID),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    ForeignKeyConstraint(["app_name", "path"], ["routes.app_name", "routes.path"]),
    Index("ix_schedules_next_at", "next_at"),
    Index("ix_schedules_app_name_path", "app_name", "path"),
)
