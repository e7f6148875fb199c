"""Refusing what cannot be decoded in a row, as a fault of the database and not of the program."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from domain.errors import ProjectionInconsistent


@contextmanager
def readable(table: str) -> Iterator[None]:
    """Decode values of a row in this block.

    Args:
        table: that the row is of.

    Raises:
        ProjectionInconsistent: a value has another type or form than the ledger writes.
    """
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        message = f"a row of {table} cannot be read; run: keyledger audit verify"
        raise ProjectionInconsistent(message) from error


def check_types(row: Any, kind: type, *names: str, or_none: bool = False) -> None:  # noqa: ANN401 - a row, or its like
    """Check that columns of a row have values of a type; SQLite stores any type in any column.

    Args:
        row: has the columns as attributes.
        kind: the type that the program writes.
        names: of the columns.
        or_none: whether a value may be NULL.

    Raises:
        TypeError: a value is of another type.
    """
    for name in names:
        value = getattr(row, name)
        if type(value) is not kind and not (or_none and value is None):
            message = f"{name} is a {type(value).__name__} and not a {kind.__name__}"
            raise TypeError(message)
