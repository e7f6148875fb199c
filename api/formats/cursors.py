"""Pagination cursors: opaque, and valid only for the query that they come from."""

import base64
import hashlib
from contextlib import suppress
from dataclasses import fields
from datetime import datetime

import orjson

from domain.errors import Invalid
from domain.times import to_text
from projections.queries.filters import Filters

_LONGEST = 200


def to_cursor(position: int, *query: str | None) -> str:
    """Return the cursor of the page after a position.

    Args:
        position: position of the last item of the previous page.
        query: everything that decides which items the pages have: the workspace and each filter.
    """
    content = orjson.dumps([position, _fingerprint(query)])
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def from_cursor(cursor: str | None, *query: str | None) -> int | None:
    """Return the position in a cursor; ``None`` without a cursor, for the first page.

    Raises:
        Invalid: it is not a cursor, or belongs to another query.
    """
    if cursor is None:
        return None
    position, fingerprint = _content(cursor)
    if fingerprint != _fingerprint(query):
        raise Invalid("cursor", "the cursor belongs to other filters: start without a cursor")
    return position


def list_of_keys(
    workspace: str | None, filters: Filters, as_of: datetime | None = None
) -> list[str | None]:
    """Return everything that decides which keys a list has, including filters added later."""
    values = [getattr(filters, field.name) for field in fields(filters)]
    return ["keys", workspace, *map(_text, values), _text(as_of)]


def _text(value: str | bool | datetime | None) -> str | None:  # noqa: FBT001 - a filter's value
    if isinstance(value, datetime):
        return to_text(value)
    return value if value is None else str(value)


def _content(cursor: str) -> tuple[int, str]:
    if len(cursor) <= _LONGEST:
        padded = cursor + "=" * (-len(cursor) % 4)
        # Any text that `to_cursor` did not return fails in one of these steps.
        with suppress(ValueError, TypeError):
            position, fingerprint = orjson.loads(base64.b64decode(padded, b"-_", validate=True))
            if type(position) is int and 0 <= position < 2**63:
                return position, fingerprint
    raise Invalid(
        "cursor", "the cursor is not valid: use next_cursor of the previous page unchanged"
    )


def _fingerprint(query: tuple[str | None, ...]) -> str:
    return hashlib.sha256(orjson.dumps(query)).hexdigest()[:16]
