"""The form in which events leave the ledger."""

import hashlib
from datetime import datetime
from typing import Any

from domain.api_key import ApiKey
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


def public_event(event: ApiKey.Event) -> dict[str, Any]:
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
        "key_id": to_key_id(event.originator_id),
        "version": event.originator_version,
        "occurred_at": to_text(event.timestamp),
        "actor": event.actor,
        "request_id": event.request_id,
        "source_ip": event.source_ip,
        "data": data,
    }
