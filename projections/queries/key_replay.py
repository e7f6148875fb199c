"""Replay the history of a key, from the event store or from an audit pack."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from zipfile import BadZipFile, ZipFile

import orjson

from domain.api_key import ApiKey
from domain.errors import DamagedHistory, Invalid, ProjectionInconsistent
from domain.key_ids import to_key_id, to_uuid
from domain.serialization import EVENT_CLASSES, TIME_FIELDS
from domain.times import from_text
from projections.queries.key_summary import listed
from projections.store.events import Recorded
from projections.tlog.offline_verifier import MAX_ENTRY_LENGTH
from projections.views.key_fields import ListedKey
from projections.views.key_list import HANDLERS
from projections.views.view import Values


class ReplayStep(NamedTuple):
    """An event of a key's history, and the key right after it."""

    recorded: Recorded
    key: ListedKey


def replayed(history: Iterable[Recorded]) -> Iterator[ReplayStep]:
    """Apply a key's events, oldest first, with the code that maintains the key list.

    Raises:
        DamagedHistory: an event cannot be applied, or the first one does not create a key.
    """
    row: Values | None = None
    for recorded in history:
        position, event = recorded
        try:
            values = HANDLERS[type(event)](event)
            if type(event) is ApiKey.Created:
                key_id = to_key_id(event.originator_id)
                row = {**values, "position": position, "key_id": key_id, "last_used_at": None}
            elif row is not None:
                row |= values
            key = listed(SimpleNamespace(**row or {}), event.timestamp)
        except (
            LookupError,
            AttributeError,
            TypeError,
            ValueError,
            ProjectionInconsistent,
        ) as error:
            raise DamagedHistory(
                f"the event at {position} cannot be replayed: {error!r}"
            ) from error
        yield ReplayStep(recorded, key)


def history_in_pack(pack: Path, key_id: str) -> Iterator[Recorded]:
    """Yield the events of a key in an audit pack, with the leaf index as position.

    Verifiers, which a pack does not contain, are not needed here. This does not verify the pack;
    the offline verifier does.

    Raises:
        KeyNotFound: the id does not have the form of a key id.
        Invalid: the file is not an audit pack, or a line in it is not an event.
        OSError: the file cannot be read.
    """
    to_uuid(key_id)
    wanted = f'"key_id":"{key_id}"'.encode()
    try:
        with ZipFile(pack) as archive, archive.open("entries.jsonl") as file:
            lines = iter(lambda: file.readline(MAX_ENTRY_LENGTH + 2), b"")
            for leaf_index, line in enumerate(lines):
                if wanted in line:
                    event = _event(leaf_index, line)
                    if to_key_id(event.originator_id) == key_id:
                        yield Recorded(leaf_index, event)
    except (BadZipFile, KeyError) as error:
        raise Invalid("pack", f"{pack} is not an audit pack: {error}") from error


def _event(leaf_index: int, line: bytes) -> ApiKey.Event:
    try:
        public: dict[str, Any] = orjson.loads(line)
        event_class = EVENT_CLASSES[public["type"]]
        event: ApiKey.Event = object.__new__(event_class)  # type: ignore[assignment]
        fields = {name: _value(name, value) for name, value in public["data"].items()}
        fields |= {
            "originator_id": to_uuid(public["key_id"]),
            "originator_version": public["version"],
            "timestamp": from_text(public["occurred_at"]),
            "actor": public["actor"],
            "request_id": public["request_id"],
            "source_ip": public["source_ip"],
        }
    except (LookupError, AttributeError, TypeError, ValueError) as error:
        message = f"its entry {leaf_index} is not an event: run keyledger audit verify-pack"
        raise Invalid("pack", message) from error
    # As when it is read from the store: an event is a frozen data class.
    object.__setattr__(event, "__dict__", fields)
    return event


def _value(name: str, value: object) -> object:
    return from_text(value) if name in TIME_FIELDS and isinstance(value, str) else value
