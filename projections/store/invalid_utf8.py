"""Read TEXT that is not valid UTF-8, so that it can be reported.

SQLite stores any bytes as TEXT, and its driver then fails to read the row. PostgreSQL accepts only
valid text.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from sqlalchemy import Connection

from projections.store.sqlite_driver import driver


class InvalidUtf8(bytes):
    """TEXT that is not valid UTF-8; it equals no `str`, and its type is not `bytes`.

    As a string, it has escapes in place of the invalid bytes.
    """

    __slots__ = ()

    def __str__(self) -> str:
        return self.decode(errors="backslashreplace")


@contextmanager
def tolerate_invalid_utf8(connection: Connection) -> Iterator[None]:
    """Return invalid UTF-8 as `InvalidUtf8` in this block, instead of failing to read."""
    if connection.dialect.name != "sqlite":
        yield
        return
    connected = cast("driver.Connection", connection.connection.dbapi_connection)
    before = connected.text_factory
    connected.text_factory = _text
    try:
        yield
    finally:
        connected.text_factory = before


def _text(stored: bytes) -> str | InvalidUtf8:
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return InvalidUtf8(stored)
