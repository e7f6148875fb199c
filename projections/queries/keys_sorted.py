"""The key list in other orders than newest first.

A page begins after the last key of the previous page, wherever that key is now; nothing is counted
(OFFSET). There is no index for these orders, so each page reads all matching keys of the workspace.
"""

from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select, tuple_

from domain.times import to_text
from projections.queries.filters import Filters, conditions, in_workspace
from projections.queries.key_summary import listed
from projections.store.schema import last_uses
from projections.views.key_fields import ListedKey
from projections.views.key_list import table

Order = Literal["name", "created", "used", "expires"]

_LAST = "~"  # sorts after every time, as "" sorts before
_COLUMNS: dict[Order, ColumnElement[Any]] = {
    "name": func.lower(table.c.name),
    "created": table.c.created_at,
    "used": func.coalesce(last_uses.c.used_at, ""),
    "expires": func.coalesce(table.c.expires_at, _LAST),
}
_JOINED = table.outerjoin(last_uses, last_uses.c.position == table.c.position)


def list_keys_by(
    connection: Connection,
    workspace: str | None,
    filters: Filters,
    order: Order,
    *,
    descending: bool,
    now: datetime,
    after: int | None = None,
    limit: int,
) -> list[ListedKey]:
    """Return a page of a workspace's keys in an order; ties are ordered by age.

    Args:
        workspace: ``None`` returns the keys of all workspaces.
        order: the column to sort by. A key that was never used comes first, one that never expires
            comes last.
        descending: whether to reverse the order.
        after: position of the last key of the previous page.
        limit: maximum number of keys.
    """
    column = _COLUMNS[order]
    keys = (column, table.c.position)
    query = (
        select(table, last_uses.c.used_at.label("last_used_at"))
        .select_from(_JOINED)
        .where(
            *in_workspace(table, workspace),
            *conditions(filters, table, last_uses),
            *status_now(filters, to_text(now)),
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


def status_now(filters: Filters, now: str) -> list[ColumnElement[bool]]:
    """Return a condition on the current status; the stored status may lag behind the clock."""
    if filters.status is None:
        return []
    ended = and_(table.c.expires_at.is_not(None), table.c.expires_at <= now)
    if filters.status == "active":
        return [table.c.status == "active", ~ended]
    if filters.status == "expired":
        return [or_(table.c.status == "expired", and_(table.c.status == "active", ended))]
    return [table.c.status == filters.status]
