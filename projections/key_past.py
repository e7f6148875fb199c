"""The key list as it was at a time: folded anew from the events of the keys asked for.

Only the keys of the page are folded, and each key's events are found by an index. A filter that
fits few keys makes a page fold more of them than it shows.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from types import SimpleNamespace

from sqlalchemy import Connection, select

from domain.api_key import ApiKey
from domain.errors import KeyNotFound
from domain.key_ids import to_key_id, to_uuid
from domain.times import to_text
from projections.key_filters import Filters, predicate
from projections.key_list import HANDLERS, table
from projections.listed_key import ListedKey, listed
from projections.schema import events
from projections.stored_events import Recorded, decode_rows
from projections.view import Values

_FOLDED_AT_ONCE = 200


def show_key_at(connection: Connection, workspace: str, key_id: str, *, at: datetime) -> ListedKey:
    """Return one key as it was at a time.

    Raises:
        KeyNotFound: the workspace had no such key then.
        PoisonEvent: an event of the key cannot be decoded.
    """
    key = next(_folded(connection, [key_id], at), None)
    if key is None or key.workspace != workspace:
        raise KeyNotFound(f"there was no key {key_id[:60]} at {to_text(at)}")
    return key


def list_keys_at(
    connection: Connection,
    workspace: str,
    filters: Filters,
    *,
    at: datetime,
    before: int | None = None,
    limit: int,
) -> list[ListedKey]:
    """Return a page of the keys that there were at a time, the newest first.

    Args:
        filters: what must have held then; so must the status.
        at: the time.
        before: the position of the last key of the page before this one.
        limit: how many at most.
    """
    fits = predicate(filters)
    keys = (
        key
        for key_ids in _made_until(connection, workspace, at, before)
        for key in _folded(connection, key_ids, at)
        if fits(key)
    )
    return list(islice(keys, limit))


def _made_until(
    connection: Connection, workspace: str, at: datetime, before: int | None
) -> Iterator[Sequence[str]]:
    """Yield the ids of the keys that a workspace had at a time, the newest first, in portions."""
    query = (
        select(table.c.key_id, table.c.position)
        .where(table.c.workspace == workspace, table.c.created_at <= to_text(at))
        .order_by(table.c.position.desc())
        .limit(_FOLDED_AT_ONCE)
    )
    while True:
        page = query if before is None else query.where(table.c.position < before)
        rows = connection.execute(page).all()
        yield [row.key_id for row in rows]
        if len(rows) < _FOLDED_AT_ONCE:
            return
        before = rows[-1].position


def _folded(connection: Connection, key_ids: Iterable[str], at: datetime) -> Iterator[ListedKey]:
    """Yield the keys as they were at a time, in the order asked for."""
    uuids = {key_id: to_uuid(key_id).bytes for key_id in key_ids}
    rows = connection.execute(
        select(events).where(events.c.originator_id.in_(uuids.values())).order_by(events.c.id)
    )
    histories: dict[str, list[Recorded]] = {key_id: [] for key_id in uuids}
    for recorded in decode_rows(rows):
        histories[to_key_id(recorded.event.originator_id)].append(recorded)
    for history in histories.values():
        row = _row_at(history, at)
        if row is not None:
            # Of uses only the last is known, and it may have come later.
            yield listed(SimpleNamespace(**row, used_at=None), at)


def _row_at(history: Sequence[Recorded], at: datetime) -> Values | None:
    row: Values | None = None
    for position, event in ((each.position, each.event) for each in history):
        if event.timestamp > at:
            break
        values = HANDLERS[type(event)](event)
        if type(event) is ApiKey.Created:
            row = {"position": position, "key_id": to_key_id(event.originator_id), **values}
        elif row is not None:
            row |= values
    return row
