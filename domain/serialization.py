"""The serialization of events in the event store.

The state of an event is a JSON object: times are RFC 3339 text, all other values are JSON types.
Live projections, replays and aggregates all decode events with this code. A topic is looked up in a
fixed table and never imported, so a forged row cannot make the program load other code; the same
holds for the first event of a key, which names the aggregate class.
"""

from datetime import UTC, datetime
from typing import Any, cast, get_args, get_type_hints
from uuid import UUID

import orjson
from eventsourcing.domain import DomainEventProtocol
from eventsourcing.persistence import (
    Mapper,
    MapperDeserialisationError,
    StoredEvent,
    Transcoder,
)

from domain.api_key import ApiKey
from domain.audit_log import Forked, LedgerEvent, LogEvent, Resealed, fork_uuid, reseal_uuid
from domain.times import to_text

EventClass = type[ApiKey.Event] | type[LogEvent]

_LOG_EVENTS: tuple[type[LogEvent], ...] = get_args(LogEvent)
EVENT_CLASSES: dict[str, EventClass] = {
    event_class.TOPIC: event_class
    for event_class in (
        *(
            each
            for each in vars(ApiKey).values()
            if isinstance(each, type) and issubclass(each, ApiKey.Event) and "TOPIC" in vars(each)
        ),
        *_LOG_EVENTS,
    )
}
"""All events, by their topics: the classes in `ApiKey`, and those of the log."""

_BEGINNINGS = frozenset({ApiKey.Created, *_LOG_EVENTS})
TIME_FIELDS = tuple(
    sorted(
        {
            name
            for event_class in EVENT_CLASSES.values()
            for name, kind in get_type_hints(event_class).items()
            if kind in {datetime, datetime | None}
        }
    )
)
"""The names of all fields of events that are times."""

_IN_COLUMNS = frozenset({"originator_id", "originator_version"})


class EventTranscoder(Transcoder):
    """Encodes and decodes the state of an event.

    It replaces the library's transcoder, which takes six times as long to decode; a rebuild of a
    million events would be noticeably slower.
    """

    def encode(self, obj: Any) -> bytes:  # noqa: ANN401 - the library's signature
        """Encode the state; equal states give equal bytes."""
        return orjson.dumps(
            {
                name: to_text(value) if isinstance(value, datetime) else value
                for name, value in obj.items()
            }
        )

    def decode(self, data: bytes) -> Any:  # noqa: ANN401 - the library's signature
        """Decode the state.

        Raises:
            ValueError: it is not JSON, or contains a time that is not in UTC.
        """
        state = orjson.loads(data)
        for name in TIME_FIELDS:
            text = state.get(name)
            if text is not None:
                state[name] = at = datetime.fromisoformat(text)
                if at.tzinfo is not UTC:
                    message = f"{name} is not in UTC: {text}"
                    raise ValueError(message)
        return state


_TRANSCODER = EventTranscoder()


class EventMapper(Mapper[UUID]):
    """Converts between events and stored events."""

    def __init__(self) -> None:
        """Create a mapper without compression and encryption, because auditors read the store."""
        super().__init__(EventTranscoder())

    def to_domain_event(self, stored_event: StoredEvent) -> DomainEventProtocol[UUID]:
        """Decode a stored event.

        Raises:
            MapperDeserialisationError: its topic or its state is not one of the ledger's.
        """
        return self.decode(
            stored_event.topic,
            cast("UUID", stored_event.originator_id),
            stored_event.originator_version,
            stored_event.state,
        )

    def decode(self, topic: str, key_uuid: UUID, version: int, state: bytes) -> LedgerEvent:
        """Decode an event from the columns of its row.

        Raises:
            MapperDeserialisationError: its topic or its state is not one of the ledger's.
        """
        try:
            event_class = EVENT_CLASSES[topic]
            fields: dict[str, Any] = self.transcoder.decode(state)
            if version == 1 or event_class in _BEGINNINGS:
                _check_beginning(event_class, key_uuid, version, fields)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            message = f"cannot decode {topic} of {key_uuid} at version {version}: {error!r}"
            raise MapperDeserialisationError(message) from error
        fields["originator_id"] = key_uuid
        fields["originator_version"] = version
        event = object.__new__(event_class)
        # An event is a frozen data class. Setting its fields directly avoids its __init__ and is
        # twice as fast; a field that an old event lacks gets the class's default.
        object.__setattr__(event, "__dict__", fields)
        return event


def state_of(event: LedgerEvent) -> bytes:
    """Return the stored state of an event; a decoded event gives the same bytes again.

    Raises:
        TypeError: the event has a value of a type that events cannot have.
    """
    state: bytes = _TRANSCODER.encode(
        {name: value for name, value in vars(event).items() if name not in _IN_COLUMNS}
    )
    return state


def _check_beginning(
    event_class: EventClass,
    uuid: UUID,
    version: int,
    fields: dict[str, Any],
) -> None:
    if event_class is Forked and version == 1:
        if uuid != fork_uuid(fields["origin"]):
            message = "its id is not that of a fork to this origin"
            raise ValueError(message)
        return
    if event_class is Resealed and version == 1:
        if uuid != reseal_uuid(fields["secret_id"], fields["events"]):
            message = "its id is not that of a sealing with this secret"
            raise ValueError(message)
        return
    if version != 1 or event_class is not ApiKey.Created:
        message = f"version 1 of a key is its creation, and no other is; this is {version}"
        raise ValueError(message)
    # The library imports the class that this names.
    if fields["originator_topic"] != ApiKey.TOPIC:
        message = f"it creates no {ApiKey.TOPIC}"
        raise ValueError(message)
