"""Formats of log entries: JSON for a page, NDJSON, CSV or server-sent events for a stream.

A line of NDJSON, and the data of a server-sent event, contains the entry exactly as in the tree:
``SHA-256(0x00 || entry)`` is its leaf hash (RFC 9162, section 2.1.1).
"""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from api.formats.as_json import JsonObject
from api.formats.csv_records import csv_records
from domain.errors import ProjectionInconsistent
from projections.queries.feed import FeedEntry

JSON = "application/json"
NDJSON = "application/x-ndjson"
CSV = "text/csv"
EVENT_STREAM = "text/event-stream"
FORMS = (JSON, NDJSON, CSV, EVENT_STREAM)

_FIELDS = (
    "type",
    "key_id",
    "version",
    "occurred_at",
    "actor",
    "request_id",
    "source_ip",
    "data",
)  # fmt: skip
_COLUMNS = (
    "leaf_index",
    "position",
    "occurred_at",
    "type",
    "key_id",
    "version",
    "workspace",
    "actor_type",
    "actor_id",
    "request_id",
    "source_ip",
    "data",
)


def entry_as_json(found: FeedEntry) -> JsonObject:
    """Return an event as in a key's history, with its leaf index."""
    event = _event(found)
    return {
        "leaf_index": found.leaf_index,
        "position": found.position,
        **{name: event[name] for name in _FIELDS},
    }


def lines(entries: Iterable[FeedEntry]) -> bytes:
    """Return entries as NDJSON, each on one line with its leaf index and position."""
    return b"".join([b"%b\n" % _line(found) for found in entries])


def messages(entries: Iterable[FeedEntry]) -> bytes:
    """Return entries as server-sent events; the id of each is its position."""
    return b"".join([b"id: %d\ndata: %b\n\n" % (found.position, _line(found)) for found in entries])


def header() -> bytes:
    """Return the header record of the CSV format."""
    return csv_records([_COLUMNS])


def records(entries: Iterable[FeedEntry]) -> bytes:
    """Return entries as CSV (RFC 4180), with an apostrophe before what looks like a formula.

    The event's own data is one column of JSON.
    """
    return csv_records(map(_record, entries))


def _line(found: FeedEntry) -> bytes:
    return b'{"leaf_index":%d,"position":%d,"entry":%b}' % (
        found.leaf_index,
        found.position,
        found.entry,
    )


def _record(found: FeedEntry) -> list[object]:
    event = _event(found)
    actor: Mapping[str, str] = event["actor"]
    return [
        found.leaf_index,
        found.position,
        event["occurred_at"],
        event["type"],
        event["key_id"],
        event["version"],
        found.workspace,
        actor["type"],
        actor["id"],
        event["request_id"],
        event["source_ip"],
        orjson.dumps(event["data"]).decode(),
    ]


def _event(found: FeedEntry) -> dict[str, Any]:
    try:
        event: dict[str, Any] = orjson.loads(found.entry)
        # Readers rely on these fields.
        complete = event.keys() >= {*_FIELDS} and event["actor"].keys() >= {"type", "id"}
    except (ValueError, TypeError, AttributeError):
        complete = False
    if not complete:
        message = f"entry {found.leaf_index} is damaged; run: keyledger audit verify"
        raise ProjectionInconsistent(message)
    return event
