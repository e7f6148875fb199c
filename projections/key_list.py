"""The key list: what people and programs see of the keys, in lists and one by one."""

from datetime import datetime
from typing import Any, NamedTuple

import orjson
from sqlalchemy import (
    BindParameter,
    Column,
    Connection,
    Index,
    Integer,
    MetaData,
    Row,
    Select,
    Table,
    or_,
    select,
    tuple_,
)

from domain.api_key import ApiKey, Status
from domain.audit_log import Forked
from domain.errors import KeyNotFound
from domain.times import to_text
from domain.tokens import display_prefix
from projections.column_types import big_integer, text
from projections.key_filters import Filters, conditions, unused
from projections.listed_key import ListedKey, listed
from projections.schema import last_uses
from projections.stored_events import first_position
from projections.view import Handlers, Values, changes_nothing, view_of_keys

TIME = text(27)
_LOOKED_AT = 5_000

table = Table(
    "key_list",
    MetaData(),
    Column("position", big_integer, primary_key=True, autoincrement=False),
    Column("key_id", text(43), nullable=False),
    Column("workspace", text(63), nullable=False),
    Column("name", text(), nullable=False),
    Column("prefix", text(28), nullable=False),
    Column("scopes", text(), nullable=False),
    Column("role", text(20), nullable=False),
    Column("status", text(7), nullable=False),
    Column("expires_at", TIME),
    Column("created_at", TIME, nullable=False),
    Column("created_by_type", text(10), nullable=False),
    Column("created_by_id", text(), nullable=False),
    Column("revoked_at", TIME),
    Column("revoked_by_type", text(10)),
    Column("revoked_by_id", text()),
    Column("revoke_reason", text()),
    Column("rotated_from", text(43)),
    Column("rotated_to", text(43)),
    Column("version", Integer, nullable=False),
)
Index("by_age", table.c.workspace, table.c.position)
Index("by_status", table.c.workspace, table.c.status, table.c.position)
_due = table.c.status == "active", table.c.expires_at.is_not(None)
Index(
    "by_end",
    table.c.expires_at,
    sqlite_where=_due[0] & _due[1],
    postgresql_where=_due[0] & _due[1],
)


def _created(event: ApiKey.Created) -> Values:
    return {
        "workspace": event.workspace,
        "name": event.name,
        "prefix": display_prefix(event.token_prefix, event.lookup_id),
        "scopes": orjson.dumps(event.scopes).decode(),
        "role": event.role,
        "status": "active",
        "expires_at": _text_or_none(event.expires_at),
        "created_at": to_text(event.timestamp),
        "created_by_type": event.actor["type"],
        "created_by_id": event.actor["id"],
        "revoked_at": None,
        "revoked_by_type": None,
        "revoked_by_id": None,
        "revoke_reason": None,
        "rotated_from": event.rotated_from,
        "rotated_to": None,
        "version": event.originator_version,
    }


def _revoked(event: ApiKey.Revoked) -> Values:
    return {
        "status": "revoked",
        "revoked_at": to_text(event.timestamp),
        "revoked_by_type": event.actor["type"],
        "revoked_by_id": event.actor["id"],
        "revoke_reason": event.reason,
        "version": event.originator_version,
    }


def _expired(event: ApiKey.Expired) -> Values:
    return {"status": "expired", "version": event.originator_version}


def _rotated(event: ApiKey.Rotated) -> Values:
    return {
        "rotated_to": event.successor_id,
        "expires_at": to_text(event.expires_at),
        "version": event.originator_version,
    }


def _expiration_changed(event: ApiKey.ExpirationChanged) -> Values:
    return {
        "expires_at": _text_or_none(event.expires_at),
        "version": event.originator_version,
    }


def _renamed(event: ApiKey.Renamed) -> Values:
    return {"name": event.name, "version": event.originator_version}


def _scopes_changed(event: ApiKey.ScopesChanged) -> Values:
    return {
        "scopes": orjson.dumps(event.scopes).decode(),
        "version": event.originator_version,
    }


HANDLERS: Handlers = {
    ApiKey.Created: _created,
    ApiKey.Revoked: _revoked,
    ApiKey.Expired: _expired,
    ApiKey.Rotated: _rotated,
    ApiKey.ExpirationChanged: _expiration_changed,
    ApiKey.Renamed: _renamed,
    ApiKey.ScopesChanged: _scopes_changed,
    Forked: changes_nothing,
}
VIEW = view_of_keys(version=2, table=table, handlers=HANDLERS)


_SHOWN = select(table, last_uses.c.used_at).outerjoin(
    last_uses, last_uses.c.position == table.c.position
)


def list_keys(
    connection: Connection,
    workspace: str,
    filters: Filters,
    *,
    now: datetime,
    before: int | None = None,
    limit: int,
) -> list[ListedKey]:
    """Return a page of a workspace's keys, the newest first.

    Args:
        before: the position of the last key of the page before this one.
        limit: how many at most.
    """
    query = (
        _SHOWN.where(
            table.c.workspace == workspace, *conditions(filters, table, last_uses.c.used_at)
        )
        .order_by(table.c.position.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(table.c.position < before)

    def read(query: Select[Any]) -> list[Row[Any]]:
        parts = _by_status(query, filters.status, to_text(now))
        rows = [row for part in parts for row in connection.execute(part)]
        return sorted(rows, key=lambda row: row.position, reverse=True)[:limit]

    among = unused(filters, workspace, table, last_uses)
    floor = None if among is None else connection.scalar(_floor(workspace, before))
    if among is None or floor is None:
        rows = read(query)
    else:
        rows = read(query.where(table.c.position >= floor))
        if len(rows) < limit:
            # Unused keys are rare here: no longer one by one.
            rows += read(query.where(table.c.position < floor, table.c.position.in_(among)))
    return [listed(row, now) for row in rows[:limit]]


def show_key(connection: Connection, workspace: str, key_id: str, *, now: datetime) -> ListedKey:
    """Return one key of a workspace.

    Raises:
        KeyNotFound: the workspace has no such key.
    """
    row = connection.execute(
        _SHOWN.where(table.c.position == first_position(key_id), table.c.workspace == workspace)
    ).one_or_none()
    if row is None:
        message = f"there is no key {key_id[:60]}"
        raise KeyNotFound(message)
    return listed(row, now)


class DueKey(NamedTuple):
    """A key whose end has come."""

    key_id: str
    expires_at: str
    position: int


def keys_due(
    connection: Connection, *, now: datetime, after: tuple[str, int] | None = None, limit: int
) -> list[DueKey]:
    """Return keys whose end has come and is not recorded yet, the longest due first.

    Args:
        after: the end and the position of the last key returned before.
        limit: how many at most.
    """
    query = select(table.c.key_id, table.c.expires_at, table.c.position).where(
        *_due, table.c.expires_at <= to_text(now)
    )
    if after is not None:
        query = query.where(tuple_(table.c.expires_at, table.c.position) > after)
    query = query.order_by(table.c.expires_at, table.c.position).limit(limit)
    return [DueKey(*row) for row in connection.execute(query)]


def due_positions(time: str | BindParameter[str]) -> Select[tuple[int]]:
    """Return the positions of the keys whose end has come by a time and is not recorded yet.

    They are found by their end: among all the active keys of a large workspace they are few.
    """
    due = table.alias()
    return select(due.c.position).where(
        due.c.status == "active", due.c.expires_at.is_not(None), due.c.expires_at <= time
    )


def _floor(workspace: str, before: int | None) -> Select[tuple[int]]:
    """Return how far down to look at each key, before looking for unused ones among all."""
    query = select(table.c.position).where(table.c.workspace == workspace)
    if before is not None:
        query = query.where(table.c.position < before)
    return query.order_by(table.c.position.desc()).offset(_LOOKED_AT).limit(1)


def _by_status(query: Select[Any], status: Status | None, now: str) -> list[Select[Any]]:
    """Narrow a query to a status; each part of the result can use an index in the page's order.

    The recorded status lags behind the clock until the expirer has passed, so that a key may be
    expired while its row still says active.
    """
    if status is None:
        return [query]
    recorded = query.where(table.c.status == status)
    if status == "active":
        return [recorded.where(or_(table.c.expires_at.is_(None), table.c.expires_at > now))]
    if status == "expired":
        return [recorded, query.where(table.c.position.in_(due_positions(now)))]
    return [recorded]


def _text_or_none(at: datetime | None) -> str | None:
    return None if at is None else to_text(at)
