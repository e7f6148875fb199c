"""The key list in other orders than the newest first.

A page begins after the place of a key, wherever that key stands now: nothing is skipped by counting
(OFFSET). There is no index for these orders, so each page looks at all the keys of the workspace
that fit the filters.
"""

from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select, tuple_

from domain.times import to_text
from projections.queries.filters import Filters, conditions
from projections.queries.key_summary import ListedKey, listed
from projections.store.schema import last_uses
from projections.views.key_list import table

Order = Literal["name", "created", "used", "expires"]

_LAST = "~"  # after every time, as "" is before every time
_COLUMNS: dict[Order, ColumnElement[Any]] = {
    "name": func.lower(table.c.name),
    "created": table.c.created_at,
    "used": func.coalesce(last_uses.c.used_at, ""),
    "expires": func.coalesce(table.c.expires_at, _LAST),
}
_JOINED = table.outerjoin(last_uses, last_uses.c.position == table.c.position)


def list_keys_by(
    connection: Connection,
    workspace: str,
    filters: Filters,
    order: Order,
    *,
    descending: bool,
    now: datetime,
    after: int | None = None,
    limit: int,
) -> list[ListedKey]:
    """Return a page of a workspace's keys in an order; keys that are equal in it by their age.

    Args:
        order: by what. A key that was never used comes before all others, one that never expires
            after them.
        descending: the order the other way round.
        after: the position of the last key of the page before this one.
        limit: how many at most.
    """
    column = _COLUMNS[order]
    keys = (column, table.c.position)
    query = (
        select(table, last_uses.c.used_at)
        .select_from(_JOINED)
        .where(
            table.c.workspace == workspace,
            *conditions(filters, table, last_uses),
            *_status(filters, to_text(now)),
        )
        .order_by(*(each.desc() if descending else each.asc() for each in keys))
        .limit(limit)
    )
    if after is not None:
        place = connection.execute(
            select(*keys).select_from(_JOINED).where(table.c.position == after)
        ).one_or_none()
        if place is None:
            return []
        here = tuple_(*keys)
        query = query.where(here < tuple(place) if descending else here > tuple(place))
    return [listed(row, now) for row in connection.execute(query)]


def _status(filters: Filters, now: str) -> list[ColumnElement[bool]]:
    """Return the status as it is now, which the recorded one lags behind."""
    if filters.status is None:
        return []
    ended = and_(table.c.expires_at.is_not(None), table.c.expires_at <= now)
    if filters.status == "active":
        return [table.c.status == "active", ~ended]
    if filters.status == "expired":
        return [or_(table.c.status == "expired", and_(table.c.status == "active", ended))]
    return [table.c.status == filters.status]
