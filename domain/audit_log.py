"""Events about the audit log itself, which are entries of it as well."""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar
from uuid import UUID

from domain.api_key import ApiKey
from domain.key_ids import derived_uuid


@dataclass(frozen=True)
class Forked:
    """The log continues under another origin, because the signed one was lost or its key changed.

    Args:
        originator_id: the result of `fork_uuid`; the event belongs to no key.
        originator_version: 1.
        timestamp: time of the fork.
        actor, request_id, source_ip: as in the events of keys.
        reason: the reason, in the person's words.
        origin: name of the log from now on.
        previous_origin: previous name of the log.
        previous_size: size of the last checkpoint under that name.
        previous_root: root of that checkpoint, in hexadecimal digits.
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
        """Make no aggregate: this id is not a key."""


@dataclass(frozen=True)
class Resealed:
    """All events were sealed with a secret, after a complete integrity check.

    Args:
        originator_id: the result of `reseal_uuid`; the event belongs to no key.
        originator_version: 1.
        timestamp: time of the sealing.
        actor, request_id, source_ip: as in the events of keys.
        reason: the reason, in the person's words.
        secret_id: public id of the secret that the ledger is sealed with from now on.
        previous_secret_id: id of the previous secret; ``None`` if the ledger was not sealed.
        events: number of sealed events.
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
        """Make no aggregate: this id is not a key."""


def reseal_uuid(secret_id: str, events: int) -> UUID:
    """Return the id of the event that records a sealing of this many events with this secret.

    Like that of a fork, it is derived from the event's own fields.
    """
    return derived_uuid("reseal", secret_id, str(events))


def fork_uuid(origin: str) -> UUID:
    """Return the id of the event that gives a log this name.

    It is derived from the event's own fields, because it is not in the entry and must not carry
    further information. The store allows one first event for each id, so a log can have a name only
    once.
    """
    return derived_uuid("fork", origin)


LogEvent = Forked | Resealed
"""An event about the log itself, and about no key."""

LedgerEvent = ApiKey.Event | LogEvent
"""Any event in the event store."""
