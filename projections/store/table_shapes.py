"""The shape of tables, as the catalog of a database describes it, in words that can be compared."""

from collections.abc import Mapping
from dataclasses import dataclass

TABLE = "table"
"""The kind of an ordinary table."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of one table.

    Args:
        kind: `TABLE`, or what has the name of the table instead.
        columns: for each column its type and its constraints.
        indexes: for each index what it is over; the value is its name. Indexes of the same shape
            under other names are the same.
        additions: triggers, rules, policies and whatever else changes what a statement does, each
            with the statement that removes it.
    """

    kind: str
    columns: Mapping[str, str]
    indexes: Mapping[str, str]
    additions: Mapping[str, str]


Shapes = Mapping[str, Shape]


def index_kind(*, is_unique: object, is_primary: object) -> str:
    """Say what kind of index it is."""
    if is_primary:
        return "primary key"
    return "unique index" if is_unique else "index"
