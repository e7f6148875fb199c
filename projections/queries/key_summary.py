"""A key as people and programs see it, and how it is read from a row of the key list."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from domain.api_key import Status
from domain.caller import Actor
from domain.times import from_text
from projections.store.unreadable_rows import check_types, readable

_NUMBERS = ("position", "version")
_TEXTS = (
    "key_id",
    "workspace",
    "name",
    "prefix",
    "role",
    "status",
    "created_by_type",
    "created_by_id",
)
_TEXTS_OR_NULL = (
    "revoked_by_type",
    "revoked_by_id",
    "revoke_reason",
    "rotated_from",
    "rotated_to",
)


@dataclass(frozen=True, slots=True)
class ListedKey:
    """A key as it is shown: everything but what could be used to call with it.

    Args:
        last_used_at: the minute of its last use; ``None`` if it was never used, or is shown as it
            was in the past.
    """

    position: int
    key_id: str
    workspace: str
    name: str
    prefix: str
    scopes: tuple[str, ...]
    role: str
    status: Status
    expires_at: datetime | None
    created_at: datetime
    created_by: Actor
    revoked_at: datetime | None
    revoked_by: Actor | None
    revoke_reason: str | None
    rotated_from: str | None
    rotated_to: str | None
    last_used_at: datetime | None
    version: int


def listed(row: Any, now: datetime) -> ListedKey:  # noqa: ANN401 - a row, or its like
    """Return a row of the key list, with ``used_at`` beside it, as it is shown at a time.

    Raises:
        ProjectionInconsistent: the row cannot be read.
    """
    with readable("key_list or last_uses"):
        return _listed(row, now)


def _listed(row: Any, now: datetime) -> ListedKey:  # noqa: ANN401 - as above
    check_types(row, int, *_NUMBERS)
    check_types(row, str, *_TEXTS)
    check_types(row, str, *_TEXTS_OR_NULL, or_none=True)
    expires_at = _time_or_none(row.expires_at)
    status = row.status
    if status == "active" and expires_at is not None and now >= expires_at:
        status = "expired"
    return ListedKey(
        position=row.position,
        key_id=row.key_id,
        workspace=row.workspace,
        name=row.name,
        prefix=row.prefix,
        scopes=tuple(orjson.loads(row.scopes)),
        role=row.role,
        status=status,
        expires_at=expires_at,
        created_at=from_text(row.created_at),
        created_by=Actor(row.created_by_type, row.created_by_id),
        revoked_at=_time_or_none(row.revoked_at),
        revoked_by=(
            None if row.revoked_by_type is None else Actor(row.revoked_by_type, row.revoked_by_id)
        ),
        revoke_reason=row.revoke_reason,
        rotated_from=row.rotated_from,
        rotated_to=row.rotated_to,
        last_used_at=_time_or_none(row.used_at),
        version=row.version,
    )


def _time_or_none(text: str | None) -> datetime | None:
    return None if text is None else from_text(text)
