"""Read the event store in the global order of positions."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple
from uuid import UUID

from eventsourcing.persistence import MapperDeserialisationError
from sqlalchemy import Connection, Row, ScalarSelect, bindparam, func, select

from domain.audit_log import LedgerEvent
from domain.errors import EventNotSealed, PoisonEvent
from domain.key_ids import to_uuid
from domain.serialization import EventMapper, state_of
from projections.store.invalid_utf8 import tolerate_invalid_utf8
from projections.store.schema import events
from projections.store.seals import Seals

_MAPPER = EventMapper()
_AT_ONCE = 1_000
_UUID_LENGTH = 16

# Used at each append: building the query takes longer than running it.
_FIRST_POSITIONS = select(events.c.originator_id, events.c.id).where(
    events.c.originator_id.in_(bindparam("keys", expanding=True)),
    events.c.originator_version == 1,
)


class Recorded(NamedTuple):
    """An event and its position in the global order."""

    position: int
    event: LedgerEvent


def last_position(connection: Connection) -> int:
    """Return the position of the newest event; 0 if the ledger is empty."""
    return connection.scalar(select(func.max(events.c.id))) or 0


def count_events(connection: Connection) -> int:
    """Return the number of events."""
    return connection.scalar(select(func.count()).select_from(events)) or 0


def read_rows(connection: Connection, *, after: int, limit: int | None) -> Sequence[Row[Any]]:
    """Read the next stored events after a position, without decoding them."""
    with tolerate_invalid_utf8(connection):
        return connection.execute(
            select(events).where(events.c.id > after).order_by(events.c.id).limit(limit)
        ).all()


def read_history(connection: Connection, key_id: str, *, after: int, limit: int) -> list[Recorded]:
    """Read the next events of one key after a position.

    Raises:
        KeyNotFound: the id does not have the form of a key id.
        PoisonEvent: an event cannot be decoded.
    """
    query = (
        select(events)
        .where(events.c.originator_id == to_uuid(key_id).bytes, events.c.id > after)
        .order_by(events.c.id)
        .limit(limit)
    )
    with tolerate_invalid_utf8(connection):
        return decode_rows(connection.execute(query))


def read_first_events(
    connection: Connection, *, after: int, until: int, limit: int
) -> Sequence[Row[Any]]:
    """Read the next first events of keys in the order of their positions, without decoding them.

    Args:
        after: read events after this position.
        until: read events up to this position.
        limit: maximum number of events.
    """
    with tolerate_invalid_utf8(connection):
        return connection.execute(
            select(events)
            .where(events.c.id > after, events.c.id <= until, events.c.originator_version == 1)
            .order_by(events.c.id)
            .limit(limit)
        ).all()


def read_later_events(
    connection: Connection, key_uuids: Sequence[bytes], *, until: int
) -> Iterator[Row[Any]]:
    """Read all later events of some keys, each key's in order, without decoding them.

    Args:
        key_uuids: aggregate ids, as stored.
        until: read events up to this position.
    """
    for start in range(0, len(key_uuids), _AT_ONCE):
        some = key_uuids[start : start + _AT_ONCE]
        query = (
            select(events)
            .where(
                events.c.originator_id.in_(some),
                events.c.originator_version > 1,
                events.c.id <= until,
            )
            .order_by(events.c.originator_id, events.c.originator_version)
        )
        # A driver may read the first row already when the query is executed.
        with tolerate_invalid_utf8(connection):
            found = connection.execute(query)
            # In batches: fetching row by row takes twice as long.
            yield from chain.from_iterable(found.partitions(_AT_ONCE))


def first_positions(connection: Connection, key_uuids: Collection[UUID]) -> dict[UUID, int]:
    """Return the position of each key's first event, which identifies the key's rows in views."""
    positions: dict[UUID, int] = {}
    wanted = [uuid.bytes for uuid in key_uuids]
    for start in range(0, len(wanted), _AT_ONCE):
        rows = connection.execute(_FIRST_POSITIONS, {"keys": wanted[start : start + _AT_ONCE]})
        positions |= {UUID(bytes=uuid): position for uuid, position in rows}
    return positions


def first_position(key_id: str) -> ScalarSelect[int]:
    """Return a subquery for the position of a key's first event.

    Raises:
        KeyNotFound: the id does not have the form of a key id.
    """
    return (
        select(events.c.id)
        .where(events.c.originator_id == to_uuid(key_id).bytes, events.c.originator_version == 1)
        .scalar_subquery()
    )


def orphaned_position(connection: Connection, *, until: int) -> int | None:
    """Return the position of an event whose key has no first event, or ``None``."""
    position: int | None = connection.scalar(
        select(func.min(events.c.id))
        .where(events.c.id <= until)
        .group_by(events.c.originator_id)
        .having(func.min(events.c.originator_version) > 1)
        .limit(1)
    )
    return position


def decode_rows(rows: Iterable[Sequence[Any]], seals: Seals | None = None) -> list[Recorded]:
    """Decode stored events.

    Args:
        seals: keys to verify the events' seals with; ``None`` if the events are only displayed.

    Raises:
        EventNotSealed: an event has no valid seal; the error has its position.
        PoisonEvent: an event cannot be decoded; the error has its position.
    """
    return list(decoded(rows, seals))


def decode_canonical(row: Sequence[Any]) -> LedgerEvent:
    """Decode a row of the event store, and verify that the ledger could have written it.

    Args:
        row: all columns of the events table.

    Raises:
        ValueError: a column has a type, or the state a serialization, that the ledger never
            writes; the message says which.
    """
    _, uuid, version, topic, state, _ = row
    types = [type(value) for value in (uuid, version, topic, state)]
    if types != [bytes, int, str, bytes]:
        message = f"its columns have the types {', '.join(each.__name__ for each in types)}"
        raise ValueError(message)
    try:
        (recorded,) = decode_rows([row])
        same = state_of(recorded.event) == state
    except PoisonEvent as error:
        raise ValueError(error.reason) from error
    except (LookupError, AttributeError, TypeError) as error:
        message = f"it cannot be read: {error!r}"
        raise ValueError(message) from error
    if not same:
        message = "its state says the same as before in another spelling, which the ledger never"
        raise ValueError(f"{message} writes")
    return recorded.event


def decoded(rows: Iterable[Sequence[Any]], seals: Seals | None = None) -> Iterator[Recorded]:
    """Decode stored events lazily; a caller that keeps none saves the garbage collector work.

    Args:
        seals: as for `decode_rows`.

    Raises:
        EventNotSealed, PoisonEvent: as for `decode_rows`.
    """
    is_sealed = None if seals is None else seals.is_event
    for position, uuid_bytes, version, topic, state, seal in rows:
        if is_sealed is not None and not is_sealed(uuid_bytes, version, topic, state, seal):
            raise EventNotSealed(position)
        if type(uuid_bytes) is not bytes or len(uuid_bytes) != _UUID_LENGTH:
            raise PoisonEvent(position, f"its key is not a UUID: {str(uuid_bytes)[:60]!r}")
        key_uuid = UUID(bytes=uuid_bytes)
        yield Recorded(position, decode(position, topic, key_uuid, version, state))


def decode(position: int, topic: str, key_uuid: UUID, version: int, state: bytes) -> LedgerEvent:
    """Decode the columns of one stored event.

    Raises:
        PoisonEvent: it cannot be decoded.
    """
    try:
        return _MAPPER.decode(topic, key_uuid, version, state)
    except MapperDeserialisationError as error:
        raise PoisonEvent(position, str(error)) from error
