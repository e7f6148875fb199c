"""The current keys: in pages, newest first, and one by one."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, or_, select

from domain.api_key import Status
from domain.errors import KeyNotFound
from domain.times import to_text
from projections.queries.filters import Filters, conditions, in_workspace, unused
from projections.queries.key_summary import listed
from projections.queries.overdue_keys import due_positions, read_due
from projections.store.events import first_position
from projections.store.schema import last_uses
from projections.views.key_fields import ListedKey
from projections.views.key_list import age, table

_TESTED_ONE_BY_ONE = 5_000

_SHOWN = select(table, last_uses.c.used_at.label("last_used_at")).outerjoin(
    last_uses, last_uses.c.position == table.c.position
)


def list_keys(
    connection: Connection,
    workspace: str | None,
    filters: Filters,
    *,
    now: datetime,
    before: int | None = None,
    limit: int,
) -> list[ListedKey]:
    """Return a page of a workspace's keys, newest first.

    Args:
        workspace: ``None`` returns the keys of all workspaces.
        before: position of the last key of the previous page.
        limit: maximum number of keys.
    """
    order = _order(workspace)
    query = (
        _SHOWN.where(*in_workspace(table, workspace), *conditions(filters, table, last_uses))
        .order_by(order)
        .limit(limit)
    )
    due = due_positions(connection, now, before) if filters.status == "expired" else []
    if before is not None:
        query = query.where(_older_than(workspace, before))

    def read(*among: ColumnElement[bool]) -> list[Row[Any]]:
        narrowed = query.where(*among)
        rows = [*connection.execute(narrowed.where(*_recorded(filters.status, to_text(now))))]
        rows += read_due(connection, narrowed, due, limit=limit)
        return sorted(rows, key=lambda row: row.position, reverse=True)[:limit]

    among = unused(filters, workspace, table, last_uses)
    floor = None if among is None else connection.scalar(_floor(workspace, before))
    if among is None or floor is None:
        rows = read()
    else:
        rows = read(~_older_than(workspace, floor))
        if len(rows) < limit:
            # Unused keys are rare in this range, so stop testing keys one by one.
            rows += read(_older_than(workspace, floor), table.c.position.in_(among))
    return [listed(row, now) for row in rows[:limit]]


def show_key(connection: Connection, workspace: str, key_id: str, *, now: datetime) -> ListedKey:
    """Return a key of a workspace.

    Raises:
        KeyNotFound: the workspace has no such key.
    """
    row = connection.execute(
        _SHOWN.where(table.c.position == first_position(key_id), table.c.workspace == workspace)
    ).one_or_none()
    if row is None:
        raise KeyNotFound(f"there is no key {key_id[:60]} in the workspace {workspace}")
    return listed(row, now)


def _recorded(status: Status | None, now: str) -> list[ColumnElement[bool]]:
    """Return a condition on the stored status, which may lag behind the clock.

    A key may have expired while its row still says active, until the expirer has run.
    """
    if status is None:
        return []
    recorded = table.c.status == status
    if status == "active":
        return [recorded, or_(table.c.expires_at.is_(None), table.c.expires_at > now)]
    return [recorded]


def _order(workspace: str | None) -> ColumnElement[int]:
    """Return the order newest first, in the form that an index has: one per workspace, or all."""
    return table.c.position.desc() if workspace is None else age(table)


def _older_than(workspace: str | None, position: int) -> ColumnElement[bool]:
    """Return the condition for keys after a position in `_order`, for the same index."""
    if workspace is None:
        return table.c.position < position
    return age(table) > -position


def _floor(workspace: str | None, before: int | None) -> Select[tuple[int]]:
    """Return the position down to which keys are tested one by one for being unused."""
    query = select(table.c.position).where(*in_workspace(table, workspace))
    if before is not None:
        query = query.where(_older_than(workspace, before))
    return query.order_by(_order(workspace)).offset(_TESTED_ONE_BY_ONE).limit(1)
