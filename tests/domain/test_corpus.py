"""Stored events of every version still load with the same meaning, byte for byte."""

import hashlib
import json
from datetime import UTC, datetime
from typing import cast
from uuid import UUID

import pytest
from eventsourcing.persistence import StoredEvent

from domain.api_key import ApiKey
from domain.audit_log import Forked, LedgerEvent, Resealed, fork_uuid, reseal_uuid
from domain.serialization import EVENT_CLASSES, EventMapper
from tests.domain.builders import ADA, BOB, DAY, HOUR, NOON, a_credential, a_new_key
from tests.domain.stored_corpus import FOLDER, stored_events

MAPPER = EventMapper()
CORPUS = stored_events()
# SHA-256 of each file's bytes. If one differs, the file was edited, which is not allowed.
FROZEN = {
    "v1.jsonl": "d82d43353480bf562ec42822895f7ba8486bea2258aceca0494bb71ac3eb84d0",
    "v2.jsonl": "148eb8371f61795c277ee77ba404dc97955d1ffab188b5317b6dce61389cf690",
    "v3.jsonl": "0c9786285623983464c421f7222544034637bfb48734257e5e76d8f657d2e061",
}

EMPTY_ROOT = hashlib.sha256().hexdigest()

each_stored = pytest.mark.parametrize(
    "stored",
    CORPUS,
    ids=[
        f"{stored.topic} {str(stored.originator_id)[-2:]}v{stored.originator_version}"
        for stored in CORPUS
    ],
)


def decoded(stored: StoredEvent) -> LedgerEvent:
    return MAPPER.decode(
        stored.topic,
        cast("UUID", stored.originator_id),
        stored.originator_version,
        stored.state,
    )


def replayed(number: int) -> ApiKey:
    """Return the key with this number, from all its stored events."""
    uuid = UUID(f"00000000-0000-8000-8000-{number:012x}")
    key: ApiKey | None = None
    for stored in CORPUS:
        if stored.originator_id == uuid:
            key = decoded(stored).mutate(key)
    assert key is not None
    return key


class TestCorpus:
    def test_it_has_every_event_there_is(self) -> None:
        assert {stored.topic for stored in CORPUS} == set(EVENT_CLASSES)

    def test_stored_events_of_old_versions_were_never_edited(self) -> None:
        digests = {
            file.name: hashlib.sha256(file.read_bytes()).hexdigest()
            for file in FOLDER.glob("v*.jsonl")
        }

        assert digests == FROZEN

    @each_stored
    def test_an_event_is_stored_again_in_the_same_bytes(self, stored: StoredEvent) -> None:
        assert MAPPER.to_stored_event(decoded(stored)) == stored

    @each_stored
    def test_an_event_has_an_actor_and_a_time(self, stored: StoredEvent) -> None:
        event = decoded(stored)

        assert type(event) is EVENT_CLASSES[stored.topic]
        assert event.originator_id == stored.originator_id
        assert event.originator_version == stored.originator_version
        assert event.timestamp.tzinfo is UTC
        assert set(event.actor) == {"type", "id"}

    def test_new_events_have_the_form_of_the_newest_lines(self) -> None:
        newest = {stored.topic: stored for stored in CORPUS}

        for stored in everything_that_is_written_today():
            fields, known = json.loads(stored.state), json.loads(newest[stored.topic].state)
            assert list(fields) == list(known), (
                f"{stored.topic} is written in a form that the corpus does not have: add it there"
            )

    def test_the_root_key(self) -> None:
        key = replayed(1)

        assert vars(key) | {"_pending_events": None} == {
            "_id": UUID("00000000-0000-8000-8000-000000000001"),
            "_version": 1,
            "_created_on": datetime(2026, 1, 1, tzinfo=UTC),
            "_modified_on": datetime(2026, 1, 1, tzinfo=UTC),
            "_pending_events": None,
            "workspace": "root",
            "name": "root",
            "token_prefix": "key",
            "lookup_id": "vYIbxrSsh6uZwxfO",
            "verifier": (
                "$argon2id$v=19$m=19456,t=2,p=1$PANzcv7XWQX8Cy600cqJhw"
                "$ns0MQ/lhDiVX3XjWDrMtjyjMb+uJGSpQWiugG63bCIk"
            ),
            "scopes": ["*"],
            "role": "Member",
            "expires_at": None,
            "rotated_from": None,
            "rotated_to": None,
            "request_sha256": None,
            "revoked": False,
            "expired": False,
        }

    def test_the_key_that_was_changed_rotated_expired_and_revoked(self) -> None:
        key = replayed(2)

        assert key.version == 9
        assert key.created_on == datetime(2026, 3, 3, 9, 30, 0, 123456, UTC)
        assert key.modified_on == datetime(2026, 3, 11, tzinfo=UTC)
        assert (key.workspace, key.name) == ("acme.eu-1_test", "مفتاح")
        assert (key.token_prefix, key.lookup_id) == ("blnk", "sk461bULkrMLnx1K")
        assert key.scopes == ["mcp:read", "audit:*"]
        assert key.expires_at == datetime(2026, 3, 10, 12, tzinfo=UTC)
        assert (key.revoked, key.expired) == (True, True)
        assert key.rotated_from is None
        assert key.rotated_to == "apikey_00000000-0000-8000-8000-000000000003"
        assert key.request_sha256 == "9f" * 32

    def test_its_successor(self) -> None:
        key = replayed(3)

        assert (key.version, key.status(NOON)) == (3, "revoked")
        assert (key.name, key.scopes) == ("مفتاح", ["*"])
        assert key.expires_at == datetime(2026, 5, 7, 2, 29, 59, 876544, UTC)
        assert key.modified_on == datetime(2026, 3, 13, 0, 0, 0, 5, UTC)
        assert key.rotated_from == "apikey_00000000-0000-8000-8000-000000000002"
        assert (key.rotated_to, key.request_sha256) == (None, None)

    def test_each_event_shows_its_data(self) -> None:
        own = [
            {
                name: value
                for name, value in vars(decoded(stored)).items()
                if name in {"name", "scopes", "expires_at", "successor_id", "reason", "comment"}
            }
            for stored in CORPUS
        ]

        assert own == [
            {"name": "root", "scopes": ["*"], "expires_at": None},
            {
                "name": 'Zoë\'s 支払い "key" \\ 👩‍💻 </script>',
                "scopes": ["mcp:read", "mcp:*", "*:audit.read-all_1", "a:b"],
                "expires_at": datetime(2026, 4, 1, 9, 30, 0, 1, UTC),
            },
            {"name": "مفتاح"},
            {"scopes": ["mcp:read", "audit:*"]},
            {"expires_at": datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)},
            {"expires_at": None},
            {"expires_at": datetime(2026, 5, 1, tzinfo=UTC)},
            {
                "name": "مفتاح",
                "scopes": ["mcp:read", "audit:*"],
                "expires_at": datetime(2026, 5, 7, 2, 29, 59, 876544, UTC),
            },
            {
                "successor_id": "apikey_00000000-0000-8000-8000-000000000003",
                "expires_at": datetime(2026, 3, 10, 12, tzinfo=UTC),
            },
            {},
            {
                "reason": "leaked",
                "comment": 'seen on a forum:\n\thttps://forum.example/?q="é"',
            },
            {"scopes": ["*"]},
            {"reason": None, "comment": None},
            {"reason": 'the disk of "db-1" was lost \\ é'},
            {"reason": "the key got about"},
            {"reason": 'the file "pepper" was lost \\ é'},
            {"reason": "an older ledger"},
        ]

    def test_the_forks(self) -> None:
        forks = [event for event in map(decoded, CORPUS) if isinstance(event, Forked)]

        assert [
            (fork.timestamp, fork.origin, fork.previous_origin, fork.previous_size)
            for fork in forks
        ] == [
            (
                datetime(2026, 11, 24, 8, tzinfo=UTC),
                "keyledger/0011223344556677",
                "keyledger/8899aabbccddeeff",
                1234,
            ),
            (
                datetime(2026, 11, 25, 9, 30, 0, 123456, UTC),
                "keyledger/ffeeddccbbaa9988",
                "keyledger/0011223344556677",
                0,
            ),
        ]
        assert [fork.previous_root for fork in forks] == ["0f" * 32, EMPTY_ROOT]

    def test_the_sealings(self) -> None:
        sealings = [event for event in map(decoded, CORPUS) if isinstance(event, Resealed)]

        assert [
            (each.timestamp, each.secret_id, each.previous_secret_id, each.events)
            for each in sealings
        ] == [
            (datetime(2026, 11, 27, 8, tzinfo=UTC), "00112233445566ff", "8899aabbccddee00", 1234),
            (datetime(2026, 11, 28, 9, 30, 0, 123456, UTC), "00112233445566ff", None, 7),
        ]

    def test_who_did_it(self) -> None:
        root = {"type": "key", "id": "apikey_00000000-0000-8000-8000-000000000001"}
        ada = {"type": "cli", "id": "ada"}
        a_request = (root, "0b6f7c1e-req", "2001:db8::7")
        another = (root, 'req "7" \\ é', "192.0.2.7")
        no_request = (ada, None, None)

        told = [(event.actor, event.request_id, event.source_ip) for event in map(decoded, CORPUS)]

        assert told == [
            *(no_request, a_request, another, *[a_request] * 6),
            ({"type": "system", "id": "expirer"}, None, None),
            *(another, no_request, no_request),
            *(no_request, ({"type": "cli", "id": "root"}, None, None)),
            *(no_request, ({"type": "cli", "id": "root"}, None, None)),
        ]


def everything_that_is_written_today() -> list[StoredEvent]:
    key = a_new_key()
    key.rename("ledger-api", by=BOB, at=NOON)
    key.change_scopes(["*"], by=BOB, at=NOON)
    key.change_expiration(NOON + DAY, by=BOB, at=NOON)
    key.rotate(a_credential(seed=8), successor_id=UUID(int=2), grace=HOUR, by=ADA, at=NOON)
    key.expire(by=ADA, at=NOON + HOUR)
    key.revoke(reason=None, comment=None, by=ADA, at=NOON + HOUR)
    fork = Forked(
        originator_id=fork_uuid("keyledger/1"),
        originator_version=1,
        timestamp=NOON,
        actor=ADA.actor.as_json(),
        request_id=None,
        source_ip=None,
        reason="lost",
        origin="keyledger/1",
        previous_origin="keyledger/0",
        previous_size=7,
        previous_root=EMPTY_ROOT,
    )
    sealing = Resealed(
        originator_id=reseal_uuid("0" * 16, 7),
        originator_version=1,
        timestamp=NOON,
        actor=ADA.actor.as_json(),
        request_id=None,
        source_ip=None,
        reason="lost",
        secret_id="0" * 16,
        previous_secret_id=None,
        events=7,
    )
    stored = [MAPPER.to_stored_event(event) for event in key.collect_events()]
    stored += [MAPPER.to_stored_event(fork), MAPPER.to_stored_event(sealing)]
    assert {each.topic for each in stored} == set(EVENT_CLASSES)
    return stored
