"""The history of a key as the pages tell it: what each event changed, from what to what."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from domain.caller import Actor
from projections.queries.feed import leaf_indexes
from projections.store.events import Recorded, read_history
from projections.views.key_fields import FIELDS

Value = str | datetime | list[str] | None
"""What a field of a key says; a time and a list are written by the page."""

_READ_AT_ONCE = 1_000
# Of a new key it is worth saying that it never expires.
_UNKNOWN = {"expires_at": "unknown"}
_SUCCESSOR = {"successor_id": "Successor"}
# They never change, and the details of a key show them.
_LEFT_OUT = frozenset({"workspace", "role"})
_LABELS = {
    name: field.about.label for name, field in FIELDS.items() if name not in _LEFT_OUT
} | _SUCCESSOR
"""Labels of the fields that are shown with the event that has them."""


@dataclass(frozen=True, slots=True)
class Change:
    """One field that an event changed."""

    field: str
    label: str
    before: Value
    after: Value


@dataclass(frozen=True, slots=True)
class Happening:
    """An event as the timeline shows it.

    Args:
        leaf_index: of its entry in the log; ``None`` if the log has none, as it should.
        kind: the event's own name, such as ``Revoked``.
        what: the same in words.
        changes: what it changed; of a creation, what it began with.
        reason: why, where somebody said so; ``comment`` is the longer form.
    """

    position: int
    leaf_index: int | None
    version: int
    kind: str
    what: str
    at: datetime
    by: Actor
    request_id: str | None
    source_ip: str | None
    changes: tuple[Change, ...]
    reason: str | None
    comment: str | None

    @property
    def is_creation(self) -> bool:
        """Tell whether there was nothing before."""
        return self.version == 1


def what_happened(event_type: str) -> str:
    """Say in words what events of a type, such as ``ApiKey.Revoked``, are about."""
    kind = event_type.rpartition(".")[2]
    return re.sub("(?<!^)[A-Z]", lambda letter: f" {letter[0].lower()}", kind)


def tell_history(connection: Connection, key_id: str) -> list[Happening]:
    """Return all that happened to a key, the oldest first.

    Raises:
        KeyNotFound: no key can have this id.
        PoisonEvent: an event cannot be decoded.
    """
    recorded: list[Recorded] = []
    while True:
        after = recorded[-1].position if recorded else 0
        portion = read_history(connection, key_id, after=after, limit=_READ_AT_ONCE)
        recorded += portion
        if len(portion) < _READ_AT_ONCE:
            return _told(recorded, leaf_indexes(connection, [each.position for each in recorded]))


def _told(history: Sequence[Recorded], places: Mapping[int, int]) -> list[Happening]:
    known: dict[str, Value] = {}
    told = []
    for recorded in history:
        event = recorded.event
        kind = event.TOPIC.removeprefix("ApiKey.")
        said: dict[str, Any] = dict(vars(event))
        changes = tuple(
            Change(name, label, known.get(name), said[name])
            for name, label in _LABELS.items()
            if name in said and said[name] != known.get(name, _UNKNOWN.get(name))
        )
        known |= {change.field: change.after for change in changes}
        told.append(
            Happening(
                position=recorded.position,
                leaf_index=places.get(recorded.position),
                version=event.originator_version,
                kind=kind,
                what=what_happened(event.TOPIC),
                at=event.timestamp,
                by=Actor(event.actor["type"], event.actor["id"]),  # type: ignore[arg-type]
                request_id=event.request_id,
                source_ip=event.source_ip,
                changes=changes,
                reason=said.get("reason"),
                comment=said.get("comment"),
            )
        )
    return told
