"""Expired keys that have no `Expired` event yet, because the expirer has not run since."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, select, tuple_

from domain.times import to_text
from projections.views.key_list import table, will_expire

_AT_ONCE = 1_000


class DueKey(NamedTuple):
    """A key whose end has passed."""

    key_id: str
    expires_at: str
    position: int


def keys_due(
    connection: Connection, *, now: datetime, after: tuple[str, int] | None = None, limit: int
) -> list[DueKey]:
    """Return expired keys without an `Expired` event, the longest expired first.

    Args:
        after: end and position of the last key of the previous call.
        limit: maximum number of keys.
    """
    query = select(table.c.key_id, table.c.expires_at, table.c.position).where(
        will_expire, table.c.expires_at <= to_text(now)
    )
    if after is not None:
        query = query.where(tuple_(table.c.expires_at, table.c.position) > after)
    query = query.order_by(table.c.expires_at, table.c.position).limit(limit)
    return [DueKey(*row) for row in connection.execute(query)]


def due_positions(connection: Connection, now: datetime, before: int | None = None) -> list[int]:
    """Return the positions of all expired keys without an `Expired` event, newest first.

    There are few, unless the expirer was not running, and they are found by their end. A database
    asked for one page of them might search all active keys.

    Args:
        before: return only positions before this one.
    """
    due = keys_due(connection, now=now, limit=_AT_ONCE)
    found = due
    while len(due) == _AT_ONCE:
        after = due[-1].expires_at, due[-1].position
        due = keys_due(connection, now=now, after=after, limit=_AT_ONCE)
        found += due
    return sorted(
        (key.position for key in found if before is None or key.position < before), reverse=True
    )


def read_due(
    connection: Connection,
    query: Select[Any],
    due: Sequence[int],
    *,
    limit: int,
    asked: Mapping[str, object] = MappingProxyType({}),
) -> list[Row[Any]]:
    """Read as many of the due keys as a page needs.

    Args:
        query: query for their rows, including the position; at most ``limit`` rows.
        due: their positions, in page order.
        asked: values of the query's parameters.
    """
    position = query.selected_columns.position
    rows: list[Row[Any]] = []
    for start in range(0, len(due), _AT_ONCE):
        some = due[start : start + _AT_ONCE]
        rows += connection.execute(query.where(position.in_(some)), asked)
        if len(rows) >= limit:
            break
    return rows
