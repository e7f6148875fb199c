"""Access reports as CSV, for spreadsheets."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from api.formats.csv_records import csv_records
from domain.caller import Actor
from domain.times import to_text
from projections.queries.access_report import Access

COLUMNS = (
    "workspace",
    "key_id",
    "name",
    "prefix",
    "scopes",
    "role",
    "status",
    "expires_at",
    "created_at",
    "created_by",
    "last_used_at",
    "changed_at",
    "changed_by",
    "rotated_from",
    "rotated_to",
    "version",
)


def to_csv(accesses: Iterable[Access]) -> Iterator[bytes]:
    """Yield a CSV table (RFC 4180) line by line, column names first.

    A text that a spreadsheet would run as a formula gets an apostrophe before it.
    """
    yield csv_records([COLUMNS])
    for access in accesses:
        yield csv_records([_cells(access)])


def _cells(access: Access) -> list[str]:
    key = access.key
    return [
        key.workspace,
        key.key_id,
        key.name,
        key.prefix,
        " ".join(key.scopes),
        key.role,
        key.status,
        _time(key.expires_at),
        to_text(key.created_at),
        _actor(key.created_by),
        _time(key.last_used_at),
        to_text(access.changed_at),
        _actor(access.changed_by),
        key.rotated_from or "",
        key.rotated_to or "",
        str(key.version),
    ]


def _time(at: datetime | None) -> str:
    return "" if at is None else to_text(at)


def _actor(actor: Actor) -> str:
    return f"{actor.type}:{actor.id}"
