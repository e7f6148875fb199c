"""The public form of events: entries of the audit log."""

import hashlib
from datetime import datetime
from typing import Any

import orjson

from domain.audit_log import LedgerEvent, LogEvent
from domain.key_ids import to_key_id
from domain.times import to_text

_ENVELOPE = frozenset(
    {
        "originator_id",
        "originator_version",
        "originator_topic",
        "timestamp",
        "actor",
        "request_id",
        "source_ip",
    }
)

MAX_ENTRY_LENGTH = 65_535
"""In bytes: bundles of C2SP's ``tlog-tiles`` store the length of an entry as a 16-bit number.

The limits on names, scopes and comments keep every event far below it.
"""


def public_event(event: LedgerEvent) -> dict[str, Any]:
    """Return an event as auditors see it, in JSON types.

    Everything is included except the verifier. It is replaced by its SHA-256, which shows whether
    it was exchanged and is useless for guessing.
    """
    data: dict[str, Any] = {}
    for name, value in vars(event).items():
        if name in _ENVELOPE:
            continue
        if name == "verifier":
            data["verifier_sha256"] = hashlib.sha256(value.encode()).hexdigest()
        else:
            data[name] = to_text(value) if isinstance(value, datetime) else value
    return {
        "type": event.TOPIC,
        "key_id": None if isinstance(event, LogEvent) else to_key_id(event.originator_id),
        "version": event.originator_version,
        "occurred_at": to_text(event.timestamp),
        "actor": event.actor,
        "request_id": event.request_id,
        "source_ip": event.source_ip,
        "data": data,
    }


def entry_of(event: LedgerEvent) -> bytes:
    """Return the entry of an event in the audit log: its public form in canonical JSON (RFC 8785).

    It is one line without the line end. Position and leaf index are not in it, because they may
    differ in another database.

    Raises:
        ValueError: the entry would be longer than `MAX_ENTRY_LENGTH`.
    """
    return canonical_line(public_event(event))


def canonical_line(event: dict[str, Any]) -> bytes:
    """Return the entry for an event that is already in its public form.

    Raises:
        ValueError: as for `entry_of`.
    """
    # Beyond what orjson does anyway, RFC 8785 only requires sorting here: names are ASCII, and the
    # only numbers are versions, integers below 2**53.
    entry = orjson.dumps(event, option=orjson.OPT_SORT_KEYS)
    if len(entry) > MAX_ENTRY_LENGTH:
        message = f"an entry has at most {MAX_ENTRY_LENGTH} bytes; this one has {len(entry)}"
        raise ValueError(message)
    return entry
