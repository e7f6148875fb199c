"""The form in which events leave the ledger."""

import hashlib
from datetime import datetime
from typing import Any

import orjson

from domain.audit_log import Forked, LedgerEvent, Resealed
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
"""In bytes: the bundles of C2SP's ``tlog-tiles`` give an entry's length as a 16-bit number.

The rules for names, scopes and comments keep every event far below it.
"""


def public_event(event: LedgerEvent) -> dict[str, Any]:
    """Return an event as auditors see it, in JSON's own types.

    Nothing is left out but the verifier, in whose place stands the SHA-256 of its text: enough to
    notice that it was exchanged, useless for guessing.
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
        "key_id": None if isinstance(event, Forked | Resealed) else to_key_id(event.originator_id),
        "version": event.originator_version,
        "occurred_at": to_text(event.timestamp),
        "actor": event.actor,
        "request_id": event.request_id,
        "source_ip": event.source_ip,
        "data": data,
    }


def entry_of(event: LedgerEvent) -> bytes:
    """Return the entry of an event in the audit trail: its public form in canonical JSON.

    It is one line without its end, in the one spelling that RFC 8785 allows. The event's position
    and leaf index are not in it, since another database may count differently.

    Raises:
        ValueError: the entry would be longer than `MAX_ENTRY_LENGTH`.
    """
    return canonical_line(public_event(event))


def canonical_line(event: dict[str, Any]) -> bytes:
    """Return the entry of an event that is in its public form already.

    Raises:
        ValueError: as for `entry_of`.
    """
    # Sorting is all that RFC 8785 asks for beyond what is written anyway: names are in ASCII, and
    # the only numbers are versions, integers below 2**53.
    entry = orjson.dumps(event, option=orjson.OPT_SORT_KEYS)
    if len(entry) > MAX_ENTRY_LENGTH:
        message = f"an entry has at most {MAX_ENTRY_LENGTH} bytes; this one has {len(entry)}"
        raise ValueError(message)
    return entry
