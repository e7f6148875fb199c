"""Cursors: opaque marks of where the next page begins, good for one query only."""

import base64
import hashlib
from contextlib import suppress

import orjson

from domain.errors import Invalid

_LONGEST = 200


def to_cursor(position: int, *query: str | None) -> str:
    """Return the cursor of the page after ``position`` in the pages of ``query``.

    Args:
        position: the place of the last item of the page before.
        query: all that decides which items the pages have: the workspace and each filter.
    """
    content = orjson.dumps([position, _fingerprint(query)])
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def from_cursor(cursor: str | None, *query: str | None) -> int | None:
    """Return the position in a cursor; ``None`` for the first page, which has no cursor.

    Raises:
        Invalid: it is no cursor, or belongs to another query.
    """
    if cursor is None:
        return None
    position, fingerprint = _content(cursor)
    if fingerprint != _fingerprint(query):
        raise Invalid("cursor", "it belongs to other filters; begin without a cursor")
    return position


def _content(cursor: str) -> tuple[int, str]:
    if len(cursor) <= _LONGEST:
        padded = cursor + "=" * (-len(cursor) % 4)
        # Anything that is not what `to_cursor` wrote fails in one of these steps.
        with suppress(ValueError, TypeError):
            position, fingerprint = orjson.loads(base64.b64decode(padded, b"-_", validate=True))
            if type(position) is int and 0 <= position < 2**63:
                return position, fingerprint
    raise Invalid("cursor", "give next_cursor of the page before, as it was")


def _fingerprint(query: tuple[str | None, ...]) -> str:
    return hashlib.sha256(orjson.dumps(query)).hexdigest()[:16]
