"""Types of columns that mean the same in every kind of database.

Text is compared and ordered by its bytes, as SQLite does it, whatever language a PostgreSQL
database was made for: times as text are in order only then.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import BINARY, BigInteger, Dialect, Integer, String, Text, TypeDecorator
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import NullType


class _AggregateId(TypeDecorator[bytes]):
    """PostgreSQL's own type of UUIDs, given and taken as bytes as in every other database."""

    impl = postgresql.UUID(as_uuid=True)
    cache_ok = True

    def process_bind_param(self, value: bytes | None, _dialect: Dialect) -> UUID | None:
        return None if value is None else UUID(bytes=value)

    def process_result_value(self, value: Any, _dialect: Dialect) -> bytes | None:  # noqa: ANN401 - theirs
        return None if value is None else bytes(value.bytes)


big_integer = BigInteger().with_variant(Integer(), "sqlite")
aggregate_id = BINARY(16).with_variant(_AggregateId(), "postgresql")
any_aggregate_id = NullType().with_variant(_AggregateId(), "postgresql")
"""As whatever it is there: SQLite keeps a text in the place of bytes, if it is given one."""


def text(length: int | None = None) -> String:
    """Return the type of text; of at most so many characters, if told."""
    if length is None:
        return Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
    return String(length).with_variant(postgresql.VARCHAR(length, collation="C"), "postgresql")
