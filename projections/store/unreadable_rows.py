"""Report rows that cannot be decoded as damage of the database, not as a bug."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from domain.errors import ProjectionInconsistent


@contextmanager
def readable(table: str) -> Iterator[None]:
    """Decode the values of a row in this block.

    Args:
        table: the table of the row.

    Raises:
        ProjectionInconsistent: a value has a type or format that the ledger does not write.
    """
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        message = f"a row of {table} cannot be read: run keyledger audit verify"
        raise ProjectionInconsistent(message) from error


def check_types(row: Any, kind: type, *names: str, or_none: bool = False) -> None:  # noqa: ANN401 - a row, or its like
    """Check the types of some columns; SQLite stores values of any type in any column.

    Args:
        row: has the columns as attributes.
        kind: the type that the program writes.
        names: the columns.
        or_none: whether a value may be NULL.

    Raises:
        TypeError: a value has another type.
    """
    for name in names:
        value = getattr(row, name)
        if type(value) is not kind and not (or_none and value is None):
            message = f"{name} is a {type(value).__name__} and not a {kind.__name__}"
            raise TypeError(message)
