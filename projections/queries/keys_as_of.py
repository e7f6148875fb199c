"""The key list at a time in the past, from the versions of keys that were valid then.

The keys are visited in page order, in batches, and an index finds the version of each key that was
valid. Keys created after the time are not visited: the first key is found by searching whole
buckets of positions. Revoked and expired keys are found by buckets as well, without visiting keys
that ended after the time. With any other filter that matches few keys, a page reads more keys than
it shows.
"""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Row,
    ScalarSelect,
    Select,
    String,
    and_,
    bindparam,
    func,
    literal,
    literal_column,
    null,
    or_,
    select,
)

from domain.api_key import Status
from domain.errors import KeyNotFound
from domain.times import to_text
from projections.queries.filters import Filters, conditions
from projections.queries.key_summary import listed
from projections.queries.overdue_keys import due_positions, read_due
from projections.store.column_types import big_integer
from projections.store.events import first_position
from projections.views import key_list
from projections.views.key_fields import ListedKey
from projections.views.key_versions import (
    CREATED_BUCKET,
    ENDED_BUCKET,
    bucket,
    ended_at,
    has_ended,
    is_first,
    is_revoked,
    table,
)

# Only the last use is known, and it may have been after the time.
_LAST_USED_AT: ColumnElement[Any] = null()
_SELECTED = select(table, _LAST_USED_AT.label("last_used_at"))
_WORKSPACE = bindparam("workspace", type_=String())
_TIME = bindparam("time", type_=String())
_LAST = bindparam("last", type_=big_integer)
_LIMIT = bindparam("limit", type_=Integer())
_BY_AGE = (
    select(key_list.table.c.position)
    .where(key_list.table.c.workspace == _WORKSPACE, key_list.age(key_list.table) >= -_LAST)
    .order_by(key_list.age(key_list.table))
)
_BY_AGE_IN_ALL = (
    select(key_list.table.c.position)
    .where(key_list.table.c.position <= _LAST)
    .order_by(key_list.table.c.position.desc())
)
_MOST_AT_ONCE = 2_000

Condition = ColumnElement[bool]


def show_key_at(connection: Connection, workspace: str, key_id: str, *, at: datetime) -> ListedKey:
    """Return a key as it was at a time.

    Raises:
        KeyNotFound: the workspace had no such key then.
    """
    row = connection.execute(
        _SELECTED.where(
            table.c.position == first_position(key_id),
            table.c.held_from <= to_text(at),
            table.c.workspace == workspace,
        )
        .order_by(table.c.held_from.desc(), table.c.version.desc())
        .limit(1)
    ).one_or_none()
    if row is None:
        raise KeyNotFound(
            f"at {to_text(at)} there was no key {key_id[:60]} in the workspace {workspace}"
        )
    return listed(row, at)


def list_keys_at(
    connection: Connection,
    workspace: str | None,
    filters: Filters,
    *,
    at: datetime,
    before: int | None = None,
    limit: int,
) -> list[ListedKey]:
    """Return a page of the keys that existed at a time, newest first.

    Args:
        workspace: ``None`` returns the keys of all workspaces.
        filters: filters on the keys as they were at the time, including the status.
        at: the time.
        before: position of the last key of the previous page.
        limit: maximum number of keys.
    """
    if workspace is None:
        return _in_all_workspaces(connection, filters, at=at, before=before, limit=limit)
    asked = {"workspace": workspace, "time": to_text(at), "limit": limit}
    newest = _newest(CREATED_BUCKET)
    last = connection.scalar(newest, asked) if before is None else before - 1
    if last is None:
        return []
    asked["last"] = last
    wanted = and_(
        table.c.workspace == _WORKSPACE,
        table.c.position <= _LAST,
        table.c.held_from <= _TIME,
        *conditions(filters, table),
    )
    match filters.status:
        case None:
            rows = _walk(connection, wanted, asked, limit)
        case "active":
            rows = _walk(connection, and_(wanted, _has_status("active")), asked, limit)
        case "revoked":
            query = _ended_then(wanted, ENDED_BUCKET, revoked=True)
            rows = connection.execute(query.limit(_LIMIT), asked).all()
        case "expired":
            query = _ended_then(wanted, ENDED_BUCKET, revoked=False)
            due = due_positions(connection, at, last + 1)
            rows = [
                *connection.execute(query.limit(_LIMIT), asked),
                *read_due(
                    connection, _due_then(wanted).limit(_LIMIT), due, limit=limit, asked=asked
                ),
            ]
    rows = sorted(rows, key=lambda row: row.position, reverse=True)
    return [listed(row, at) for row in rows[:limit]]


def _in_all_workspaces(
    connection: Connection, filters: Filters, *, at: datetime, before: int | None, limit: int
) -> list[ListedKey]:
    """Return a page of the keys of all workspaces; the indexes by status are per workspace."""
    newest = select(func.max(key_list.table.c.position))
    last = connection.scalar(newest) if before is None else before - 1
    wanted = and_(table.c.held_from <= _TIME, *conditions(filters, table))
    if filters.status is not None:
        wanted = and_(wanted, _has_status(filters.status))
    asked = {"time": to_text(at), "last": last}
    rows = [] if last is None else _walk(connection, wanted, asked, limit, _BY_AGE_IN_ALL)
    rows = sorted(rows, key=lambda row: row.position, reverse=True)
    return [listed(row, at) for row in rows[:limit]]


def _has_status(status: Status) -> Condition:
    """Return the condition for versions with a status at the time; the clock decides expiry."""
    if status == "revoked":
        return table.c.status == status
    has_expired = and_(table.c.expires_at.is_not(None), table.c.expires_at <= _TIME)
    if status == "active":
        return and_(table.c.status == status, ~has_expired)
    return or_(table.c.status == status, and_(table.c.status == "active", has_expired))


@cache
def _newest(size: int) -> Select[tuple[int]]:
    """Return the position of the newest key that existed in a workspace at a time.

    If a clock was set back, this need not be the key that was created last.

    Args:
        size: size of the buckets of positions, which are searched from the newest down.
    """
    first = and_(table.c.workspace == _WORKSPACE, is_first(table))
    by_then = and_(first, table.c.held_from <= _TIME)
    searched = select(_highest(first, size).label("bucket")).cte("searched", recursive=True)
    has_one = select(table.c.position).where(by_then, bucket(table, size) == searched.c.bucket)
    searched = searched.union_all(
        select(_highest(and_(first, bucket(table, size) < searched.c.bucket), size)).where(
            searched.c.bucket.is_not(None), ~has_one.correlate(searched).exists()
        )
    )
    lowest = select(func.min(searched.c.bucket)).scalar_subquery()
    return select(func.max(table.c.position)).where(by_then, bucket(table, size) == lowest)


def _walk(
    connection: Connection,
    wanted: Condition,
    asked: dict[str, Any],
    limit: int,
    by_age: Select[tuple[int]] = _BY_AGE,
) -> Sequence[Row[Any]]:
    """Read the versions valid at a time, key by key from a position down.

    The keys are read in batches, by position: a join of both tables might be executed for all keys
    before the limit applies.
    """
    query = _valid_then(wanted)
    rows: list[Row[Any]] = []
    size = limit
    while len(rows) < limit:
        positions = connection.scalars(by_age.limit(size), asked).all()
        if positions:
            rows += connection.execute(query.where(key_list.table.c.position.in_(positions)), asked)
        if len(positions) < size:
            break
        asked = asked | {"last": positions[-1] - 1}
        size = min(2 * size, _MOST_AT_ONCE)
    return rows


def _valid_then(wanted: Condition) -> Select[Any]:
    """Return the versions of keys that were valid at a time."""
    keys, versions = key_list.table, table.alias()
    held = (
        select(versions.c.version)
        .where(versions.c.position == keys.c.position, versions.c.held_from <= _TIME)
        .order_by(versions.c.held_from.desc(), versions.c.version.desc())
        .limit(1)
        .correlate(keys)
        .scalar_subquery()
    )
    return (
        _SELECTED.select_from(keys)
        .join(table, and_(table.c.position == keys.c.position, table.c.version == held))
        .where(wanted)
    )


def _ended_then(wanted: Condition, size: int, *, revoked: bool) -> Select[Any]:
    """Return the versions valid at a time of keys that were revoked, or had expired.

    Args:
        size: size of the buckets of positions, which are searched from one position down until a
            page is full.
        revoked: whether to return revoked keys, or expired ones.
    """
    here = bucket(table, size)
    kind = and_(
        table.c.workspace == _WORKSPACE,
        has_ended(table),
        is_revoked(table) == literal_column(str(int(revoked))),
    )
    held = and_(
        kind,
        ended_at(table) <= _TIME,
        or_(table.c.held_until.is_(None), table.c.held_until > _TIME),
        wanted,
    )
    highest = _highest(and_(kind, here <= _LAST.op("/")(literal_column(str(size)))), size)
    searched = select(highest.label("bucket"), literal(0, big_integer).label("found")).cte(
        "searched", recursive=True
    )
    found_here = select(func.count()).where(held, here == searched.c.bucket)
    searched = searched.union_all(
        select(
            _highest(and_(kind, here < searched.c.bucket), size),
            searched.c.found + found_here.correlate(searched).scalar_subquery(),
        ).where(searched.c.bucket.is_not(None), searched.c.found < _LIMIT)
    )
    # Include the bucket that filled the page: before it, too few keys had been found.
    needed = select(searched.c.bucket).where(searched.c.found < _LIMIT)
    return _SELECTED.where(held, here.in_(needed)).order_by(table.c.position.desc())


def _due_then(wanted: Condition) -> Select[Any]:
    """Return the versions valid at a time of keys that had expired without an `Expired` event."""
    return _SELECTED.where(wanted, table.c.held_until.is_(None)).order_by(table.c.position.desc())


def _highest(among: Condition, size: int) -> ScalarSelect[int]:
    """Return the highest bucket of positions that contains matching versions."""
    here = bucket(table, size)
    return select(here).where(among).order_by(here.desc()).limit(1).scalar_subquery()
