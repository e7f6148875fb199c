"""Reading the event store in the one global order of positions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from eventsourcing.persistence import MapperDeserialisationError
from sqlalchemy import Connection, Row, func, select

from domain.api_key import ApiKey
from domain.errors import PoisonEvent
from domain.key_ids import to_uuid
from domain.stored_form import EventMapper
from projections.schema import events

_MAPPER = EventMapper()


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event and its place in the global order."""

    position: int
    event: ApiKey.Event


def last_position(connection: Connection) -> int:
    """Return the position of the newest event; 0 in an empty ledger."""
    return connection.scalar(select(func.max(events.c.id))) or 0


def read_rows(connection: Connection, *, after: int, limit: int | None) -> Sequence[Row[Any]]:
    """Read the next stored events after a position, without decoding them."""
    return connection.execute(
        select(events).where(events.c.id > after).order_by(events.c.id).limit(limit)
    ).all()


def read_history(connection: Connection, key_id: str, *, after: int, limit: int) -> list[Recorded]:
    """Read the next events of one key after a position.

    Raises:
        KeyNotFound: no key can have this id.
        PoisonEvent: an event cannot be decoded.
    """
    return decode_rows(
        connection.execute(
            select(events)
            .where(events.c.originator_id == to_uuid(key_id).bytes, events.c.id > after)
            .order_by(events.c.id)
            .limit(limit)
        )
    )


def decode_rows(rows: Iterable[Row[Any]]) -> list[Recorded]:
    """Decode stored events.

    Raises:
        PoisonEvent: an event cannot be decoded; the error has its position.
    """
    recorded = []
    for position, uuid_bytes, version, topic, state in rows:
        try:
            key_uuid = UUID(bytes=uuid_bytes)
        except (TypeError, ValueError) as error:
            raise PoisonEvent(position, f"its key is no UUID: {error}") from error
        recorded.append(Recorded(position, decode(position, topic, key_uuid, version, state)))
    return recorded


def decode(position: int, topic: str, key_uuid: UUID, version: int, state: bytes) -> ApiKey.Event:
    """Decode the columns of one stored event.

    Raises:
        PoisonEvent: it cannot be decoded.
    """
    try:
        return _MAPPER.decode(topic, key_uuid, version, state)
    except MapperDeserialisationError as error:
        raise PoisonEvent(position, str(error)) from error
