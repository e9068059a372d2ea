"""Column types that mean the same on SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import JSON, DateTime, Text
from sqlalchemy.types import TypeDecorator

if TYPE_CHECKING:
    from sqlalchemy import Dialect

__all__ = ["HeaderPairs", "PlainText", "UtcDateTime"]

_REPLACEMENT = "\ufffd"


class UtcDateTime(TypeDecorator[datetime]):
    """An instant: aware in, aware and in UTC out, to the microsecond.

    SQLite has no type for it; SQLAlchemy keeps it there as ISO text, which sorts by age because all of it is UTC.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a naive datetime is no instant: {value!r}")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class PlainText(TypeDecorator[str]):
    """Text that both databases take: NUL and lone surrogates, which functions may well print, are replaced."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None or (value.isascii() and "\0" not in value):
            return value
        return value.replace("\0", _REPLACEMENT).encode("utf-8", "replace").decode()


class HeaderPairs(TypeDecorator[tuple[tuple[bytes, bytes], ...]]):
    """Header lines in their order; bytes kept exactly, as JSON of latin-1 text."""

    impl = JSON
    cache_ok = True

    def process_bind_param(
        self, value: tuple[tuple[bytes, bytes], ...] | None, dialect: Dialect
    ) -> list[tuple[str, str]] | None:
        if value is None:
            return None
        return [(name.decode("latin-1"), text.decode("latin-1")) for name, text in value]

    def process_result_value(
        self, value: list[tuple[str, str]] | None, dialect: Dialect
    ) -> tuple[tuple[bytes, bytes], ...] | None:
        if value is None:
            return None
        return tuple((name.encode("latin-1"), text.encode("latin-1")) for name, text in value)
