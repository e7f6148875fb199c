"""The public form of events."""

import hashlib
import json
from uuid import UUID

from domain.api_key import ApiKey
from domain.public_event import public_event
from tests.domain.builders import (
    DAY,
    HOUR,
    NOON,
    VERIFIER,
    a_caller,
    a_credential,
    a_key,
    a_new_key,
)


def public(key: ApiKey) -> list[dict[str, object]]:
    return [
        public_event(event) for event in key.collect_events() if isinstance(event, ApiKey.Event)
    ]


def test_a_creation_shows_every_field_but_the_verifier() -> None:
    key = a_new_key(scopes=("mcp:read",), expires_at=NOON + DAY, request_sha256="ab" * 32)

    assert public(key) == [
        {
            "type": "ApiKey.Created",
            "key_id": "apikey_00000000-0000-0000-0000-000000000001",
            "version": 1,
            "occurred_at": "2026-03-03T12:00:00.000000Z",
            "actor": {"type": "cli", "id": "ada"},
            "request_id": "req-ada",
            "source_ip": "192.0.2.7",
            "data": {
                "workspace": "default",
                "name": "payments-api",
                "token_prefix": "key",
                "lookup_id": a_credential().lookup_id,
                "verifier_sha256": hashlib.sha256(VERIFIER.encode()).hexdigest(),
                "scopes": ["mcp:read"],
                "role": "Member",
                "expires_at": "2026-03-04T12:00:00.000000Z",
                "rotated_from": None,
                "request_sha256": "ab" * 32,
            },
        }
    ]


def test_every_other_event_says_what_it_changed() -> None:
    key = a_key()
    nobody = a_caller("*", named="apikey_00000000-0000-0000-0000-000000000009")
    key.rename("ledger-api", by=nobody, at=NOON)
    key.change_scopes(["*"], by=nobody, at=NOON)
    key.change_expiration(NOON + DAY, by=nobody, at=NOON)
    key.change_expiration(None, by=nobody, at=NOON)
    key.rotate(a_credential(seed=8), successor_id=UUID(int=2), grace=HOUR, by=nobody, at=NOON)
    key.expire(by=nobody, at=NOON + HOUR)
    key.revoke(reason="leaked", comment=None, by=nobody, at=NOON + HOUR)

    told = public(key)

    assert [(event["version"], event["type"], event["data"]) for event in told] == [
        (2, "ApiKey.Renamed", {"name": "ledger-api"}),
        (3, "ApiKey.ScopesChanged", {"scopes": ["*"]}),
        (4, "ApiKey.ExpirationChanged", {"expires_at": "2026-03-04T12:00:00.000000Z"}),
        (5, "ApiKey.ExpirationChanged", {"expires_at": None}),
        (
            6,
            "ApiKey.Rotated",
            {
                "successor_id": "apikey_00000000-0000-0000-0000-000000000002",
                "expires_at": "2026-03-03T13:00:00.000000Z",
            },
        ),
        (7, "ApiKey.Expired", {}),
        (8, "ApiKey.Revoked", {"reason": "leaked", "comment": None}),
    ]
    assert {(event["request_id"], event["source_ip"]) for event in told} == {(None, None)}
    assert told[-1]["occurred_at"] == "2026-03-03T13:00:00.000000Z"


def test_no_verifier_leaves_the_ledger_and_an_exchanged_one_is_noticed() -> None:
    text = json.dumps(public(a_new_key()))

    assert VERIFIER not in text
    assert "argon2" not in text
    assert hashlib.sha256(VERIFIER.encode()).hexdigest() in text
