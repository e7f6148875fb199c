"""Check new entries before they are signed: did the ledger write the event of each one?"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select

from domain.errors import ProjectionInconsistent
from domain.public_event import entry_of
from projections.store.events import decode_canonical
from projections.store.invalid_utf8 import tolerate_invalid_utf8
from projections.store.schema import events
from projections.store.seals import Seals
from projections.tlog.merkle import CompactRange
from projections.views import entries

_AT_ONCE = 1_000


def check_entries(connection: Connection, seals: Seals, since: int, until: int) -> bytes | str:
    """Check the entries between two sizes of the log.

    The event of each entry must have a valid seal and must serialize to the entry.

    Args:
        since: the size whose root is known to be right.
        until: the size up to which to check.

    Returns:
        The root of the tree over the checked entries, computed from the events; or a description
        of the first entry that is wrong.
    """
    try:
        tree = CompactRange(since, entries.reader(connection))
    except ProjectionInconsistent as error:
        return str(error)
    size = since
    while size < until:
        query = (
            select(entries.table.c.entry, entries.table.c.position, *events.c)
            .outerjoin(events, events.c.id == entries.table.c.position)
            .where(
                entries.table.c.leaf_index >= size,
                entries.table.c.leaf_index < min(until, size + _AT_ONCE),
            )
            .order_by(entries.table.c.leaf_index)
        )
        with tolerate_invalid_utf8(connection):
            rows = connection.execute(query).all()
        if not rows:
            return f"entry {size} is missing"
        for entry, position, *event in rows:
            wrong = _wrong(seals, entry, event)
            if wrong is not None:
                return f"entry {size}, of position {str(position)[:20]}, {wrong}"
            tree.append(entry)
            size += 1
    return tree.root()


def _wrong(seals: Seals, entry: object, event: Sequence[Any]) -> str | None:
    position, *columns = event
    if position is None:
        return "has no event"
    if not seals.is_event(*columns):
        return "has an event without a valid seal: the ledger did not write it"
    try:
        right = entry_of(decode_canonical(event))
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        return f"has an event that cannot be read: {error}"
    return None if right == entry else "does not match its event"
