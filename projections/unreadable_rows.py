"""Refusing what cannot be decoded in a row, as a fault of the database and not of the program."""

from collections.abc import Iterator
from contextlib import contextmanager

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
