"""Column types that behave the same on SQLite and PostgreSQL.

Text is compared and sorted by its bytes, as on SQLite, and not by the locale of a PostgreSQL
database: only then are times stored as text in chronological order.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import BINARY, BigInteger, Dialect, Integer, String, Text, TypeDecorator
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import NullType


class _AggregateId(TypeDecorator[bytes]):
    """PostgreSQL's UUID type, read and written as bytes as on SQLite."""

    impl = postgresql.UUID(as_uuid=True)
    cache_ok = True

    def process_bind_param(self, value: bytes | None, _dialect: Dialect) -> UUID | None:
        return None if value is None else UUID(bytes=value)

    def process_result_value(self, value: Any, _dialect: Dialect) -> bytes | None:  # noqa: ANN401 - theirs
        return None if value is None else bytes(value.bytes)


big_integer = BigInteger().with_variant(Integer(), "sqlite")
aggregate_id = BINARY(16).with_variant(_AggregateId(), "postgresql")
any_aggregate_id = NullType().with_variant(_AggregateId(), "postgresql")
"""Accepts a value of any type on SQLite, which stores text where bytes are expected."""


def text(length: int | None = None) -> String:
    """Return the text type, limited to ``length`` characters if given."""
    if length is None:
        return Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
    return String(length).with_variant(postgresql.VARCHAR(length, collation="C"), "postgresql")
