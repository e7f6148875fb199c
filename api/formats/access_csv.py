"""Access reports as CSV, for spreadsheets."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from api.formats.csv_records import csv_records
from domain.caller import Actor
from domain.times import to_text
from projections.queries.access_report import Access
from projections.views.key_fields import FIELDS

_PLACED = (
    *("workspace", "key_id", "name", "prefix", "scopes", "role", "status", "expires_at"),
    *("created_at", "created_by", "last_used_at", "changed_at", "changed_by"),
    *("rotated_from", "rotated_to", "version"),
)
"""Columns whose place is known to the spreadsheets of today; a new field comes after them."""

# A report has active keys alone.
_LEFT_OUT = frozenset({"revoked_at", "revoked_by", "revoke_reason"})
COLUMNS = (*_PLACED, *(name for name in FIELDS if name not in _LEFT_OUT.union(_PLACED)))


def to_csv(accesses: Iterable[Access]) -> Iterator[bytes]:
    """Yield a CSV table (RFC 4180) line by line, column names first.

    A text that a spreadsheet would run as a formula gets an apostrophe before it.
    """
    yield csv_records([COLUMNS])
    for access in accesses:
        yield csv_records(
            [[_cell(getattr(access.key if name in FIELDS else access, name)) for name in COLUMNS]]
        )


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return to_text(value)
    if isinstance(value, Actor):
        return f"{value.type}:{value.id}"
    return " ".join(value) if isinstance(value, tuple) else str(value)
