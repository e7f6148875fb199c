"""Reading text that somebody planted and that is none, so that it can be named.

SQLite keeps whatever bytes it is given as a text, and its driver then refuses to read the row;
PostgreSQL takes nothing but valid text.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from sqlalchemy import Connection

from projections.store.sqlite_driver import driver


class IllegibleText(bytes):
    """What is stored as a text and is not UTF-8; equal to no text, nor is its type that of bytes.

    As a string, it has escapes in the place of what cannot be read.
    """

    __slots__ = ()

    def __str__(self) -> str:
        return self.decode(errors="backslashreplace")


@contextmanager
def illegible_text(connection: Connection) -> Iterator[None]:
    """Let text that is not UTF-8 be read as `IllegibleText`, instead of nothing being read."""
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


def _text(stored: bytes) -> str | IllegibleText:
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return IllegibleText(stored)
