"""Compare a view's live table with one that was rebuilt from the events."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, Table, and_, or_, select

from projections.store.invalid_utf8 import tolerate_invalid_utf8

_NEVER_SHOWN = frozenset({"verifier", "seal"})
_NOTHING: frozenset[str] = frozenset()
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Difference:
    """A row of a live table that differs from what the events give.

    Args:
        key_id: key of the row.
        problem: the row is missing, is unexpected, or has other values.
        columns: the live value and the right one of each column that differs; values of verifiers
            and seals are not shown.
    """

    key_id: str
    problem: Literal["missing", "unexpected", "different"]
    columns: dict[str, tuple[object, object]]


def differing_positions(
    connection: Connection, live: Table, right: Table, *, leave_out: frozenset[str] = _NOTHING
) -> set[int]:
    """Return the positions of all rows that differ between two tables.

    The database merges both tables in primary key order: a million rows take about a second, and no
    memory here.

    Args:
        leave_out: names of columns that are not compared.
    """
    changed = (
        select(live.c.position, right.c.position)
        .join(right, _same_row(live, right))
        .where(or_(*_distinct_columns(live, right, leave_out)))
    )
    return {
        *chain.from_iterable(connection.execute(changed)),
        *connection.scalars(_absent_from(right, live)),
        *connection.scalars(_absent_from(live, right)),
    }


def compare_rows(
    connection: Connection,
    live: Table,
    right: Table,
    positions: Collection[int],
    *,
    leave_out: frozenset[str] = _NOTHING,
) -> Iterator[Difference]:
    """Compare the rows at some positions, and yield their differences.

    Args:
        leave_out: names of columns that are not compared.
    """
    for some in _in_batches(sorted(positions)):
        live_rows = _rows_at(connection, live, some)
        right_rows = _rows_at(connection, right, some)
        for named in sorted(live_rows.keys() | right_rows.keys()):
            difference = _compare(live_rows.get(named), right_rows.get(named), leave_out)
            if difference is not None:
                yield difference


def _compare(
    live: Row[Any] | None, right: Row[Any] | None, leave_out: frozenset[str]
) -> Difference | None:
    if live is None:
        return None if right is None else Difference(right.key_id, "missing", {})
    key_id = str(live.key_id)
    if right is None:
        return Difference(key_id, "unexpected", {})
    columns = {
        name: ("(not shown)", "(not shown)") if name in _NEVER_SHOWN else tuple(values)
        for name, *values in zip(live._fields, live, right, strict=True)
        if values[0] != values[1] and name not in leave_out
    }
    return Difference(key_id, "different", columns) if columns else None


def _same_row(one: Table, other: Table) -> ColumnElement[bool]:
    return and_(*(column == other.c[column.name] for column in one.primary_key))


def _distinct_columns(
    live: Table, right: Table, leave_out: frozenset[str]
) -> list[ColumnElement[bool]]:
    return [
        column.is_distinct_from(right.c[column.name])
        for column in live.c
        if column.name not in leave_out
    ]


def _absent_from(absent: Table, present: Table) -> Any:  # noqa: ANN401 - Select is invariant
    return (
        select(present.c.position)
        .outerjoin(absent, _same_row(absent, present))
        .where(next(iter(absent.primary_key)).is_(None))
    )


def _rows_at(
    connection: Connection, table: Table, positions: list[Any]
) -> dict[tuple[Any, ...], Row[Any]]:
    named_by = [column.name for column in table.primary_key]
    with tolerate_invalid_utf8(connection):
        rows = connection.execute(select(table).where(table.c.position.in_(positions))).all()
    return {tuple(row._mapping[name] for name in named_by): row for row in rows}  # noqa: SLF001


def _in_batches(values: Collection[Any]) -> Iterator[list[Any]]:
    ordered = list(values)
    for start in range(0, len(ordered), _AT_ONCE):
        yield ordered[start : start + _AT_ONCE]
