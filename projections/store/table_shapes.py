"""The shape of a table: its catalog description as text, so that two can be compared."""

from collections.abc import Mapping
from dataclasses import dataclass

TABLE = "table"
"""The kind of an ordinary table."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of one table.

    Args:
        kind: `TABLE`, or the kind of the object that has the table's name.
        columns: type and constraints by column name.
        indexes: name of each index by its definition, so that indexes that differ only in name
            are equal.
        additions: triggers, rules, policies and everything else that changes the effect of a
            statement, each with the statement that removes it.
    """

    kind: str
    columns: Mapping[str, str]
    indexes: Mapping[str, str]
    additions: Mapping[str, str]


Shapes = Mapping[str, Shape]


def index_kind(*, is_unique: object, is_primary: object) -> str:
    """Return the kind of an index, for display."""
    if is_primary:
        return "primary key"
    return "unique index" if is_unique else "index"
