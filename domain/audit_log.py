"""What happens to the audit trail itself, and is a part of it."""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar
from uuid import UUID

from domain.api_key import ApiKey
from domain.key_ids import derived_uuid


@dataclass(frozen=True)
class Forked:
    """The log goes on under another origin, since it is not the one that was signed.

    Args:
        originator_id: that of `fork_uuid`, as it is about no key.
        originator_version: 1.
        timestamp: when.
        actor, request_id, source_ip: as in the events of keys.
        reason: why, in the words of whoever did it.
        origin: what the log is called from now on.
        previous_origin: what it was called.
        previous_size: how many entries were last signed under that name.
        previous_root: the root over them, in hexadecimal digits.
    """

    TOPIC: ClassVar[str] = "AuditLog.Forked"

    originator_id: UUID
    originator_version: int
    timestamp: datetime
    actor: dict[str, str]
    request_id: str | None
    source_ip: str | None
    reason: str
    origin: str
    previous_origin: str
    previous_size: int
    previous_root: str

    def mutate(self, _aggregate: ApiKey | None) -> None:
        """Make no key: whoever asks for one of this id is told that there is none."""


@dataclass(frozen=True)
class Resealed:
    """All events were sealed with a secret, after a full integrity check.

    Args:
        originator_id: that of `reseal_uuid`, as it is about no key.
        originator_version: 1.
        timestamp: when.
        actor, request_id, source_ip: as in the events of keys.
        reason: why, in the words of whoever did it.
        secret_id: the public id of the secret that the ledger is sealed with from now on.
        previous_secret_id: that of the one before; ``None`` if the ledger was not sealed.
        events: how many events were sealed.
    """

    TOPIC: ClassVar[str] = "AuditLog.Resealed"

    originator_id: UUID
    originator_version: int
    timestamp: datetime
    actor: dict[str, str]
    request_id: str | None
    source_ip: str | None
    reason: str
    secret_id: str
    previous_secret_id: str | None
    events: int

    def mutate(self, _aggregate: ApiKey | None) -> None:
        """Make no key: whoever asks for one of this id is told that there is none."""


def reseal_uuid(secret_id: str, events: int) -> UUID:
    """Return the id of the event that says that so many events were sealed with a secret.

    It follows from the event's own fields, as that of a fork does.
    """
    return derived_uuid("reseal", secret_id, str(events))


def fork_uuid(origin: str) -> UUID:
    """Return the id of the event that gives a log this name.

    It follows from the event's own fields: it is not in the entry, and so must say nothing more;
    and the store's rule of one first event for each id lets a log have a name but once.
    """
    return derived_uuid("fork", origin)


LogEvent = Forked | Resealed
"""What is about the log itself, and about no key."""

LedgerEvent = ApiKey.Event | LogEvent
"""Whatever is in the event store."""
