"""What happens to the audit trail itself, and is a part of it."""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar
from uuid import UUID

from domain.api_key import ApiKey


@dataclass(frozen=True)
class Forked:
    """The log goes on under another origin, since it is not the one that was signed.

    Args:
        originator_id: of this fork alone, as it is about no key.
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


LedgerEvent = ApiKey.Event | Forked
"""Whatever is in the event store."""
