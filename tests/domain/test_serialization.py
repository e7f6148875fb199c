"""Serialization of events: readable for ever, byte for byte, and never code to load."""

import sys
from typing import cast
from uuid import UUID

import pytest
from eventsourcing.persistence import MapperDeserialisationError, StoredEvent

from domain.audit_log import LedgerEvent, fork_uuid
from domain.serialization import EventMapper
from tests.domain.builders import (
    DAY,
    NOON,
    a_new_key,
)
from tests.domain.stored_corpus import stored_events

MAPPER = EventMapper()
CORPUS = stored_events()


def decoded(stored: StoredEvent) -> LedgerEvent:
    return MAPPER.decode(
        stored.topic,
        cast("UUID", stored.originator_id),
        stored.originator_version,
        stored.state,
    )


class TestWhatIsPlanted:
    """A forged row in the store cannot make the program load code."""

    @pytest.fixture(autouse=True)
    def no_such_module_yet(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # A harmless module of the standard library that nothing here uses.
        monkeypatch.delitem(sys.modules, "colorsys", raising=False)

    @pytest.mark.parametrize(
        "topic",
        [
            "os:system",
            "colorsys:rgb_to_hsv",
            "colorsys",
            "ApiKey",
            "ApiKey.Event",
            "ApiKey.Created ",
            "apikey.created",
            "domain.api_key:ApiKey.Created",
            "eventsourcing.domain:AggregateEvent",
            "",
        ],
    )
    def test_an_unknown_topic_is_refused(self, topic: str) -> None:
        planted = StoredEvent(UUID(int=1), 1, topic, CORPUS[0].state)

        with pytest.raises(MapperDeserialisationError):
            MAPPER.to_domain_event(planted)
        with pytest.raises(MapperDeserialisationError):
            MAPPER.decode(topic, UUID(int=1), 1, CORPUS[0].state)

        assert "colorsys" not in sys.modules

    @pytest.mark.parametrize("topic", ["colorsys:rgb_to_hsv", "os:system", "", "ApiKey.Created"])
    def test_a_creation_of_anything_but_a_key_is_refused(self, topic: str) -> None:
        state = CORPUS[0].state.replace(
            b'"originator_topic":"ApiKey"', b'"originator_topic":"%b"' % topic.encode()
        )
        assert state != CORPUS[0].state

        with pytest.raises(MapperDeserialisationError):
            MAPPER.decode("ApiKey.Created", UUID(int=1), 1, state)

        assert "colorsys" not in sys.modules

    @pytest.mark.parametrize(
        "damaged",
        [
            b"",
            b"{",
            b"[]",
            b"null",
            b'"text"',
            b"\xff\xfe",
            b'{"timestamp":1}',
            b'{"timestamp":"noon"}',
            b'{"timestamp":"2026-03-03T12:00:00.000000"}',
            b'{"timestamp":"2026-03-03T12:00:00.000000+01:00"}',
            b'{"timestamp":"2026-03-03T12:00:00.000000Z","expires_at":"2026-03-03"}',
        ],
    )
    @pytest.mark.parametrize(("topic", "version"), [("ApiKey.Created", 1), ("ApiKey.Expired", 2)])
    def test_a_state_that_cannot_be_read_is_refused_and_its_key_named(
        self, topic: str, version: int, damaged: bytes
    ) -> None:
        with pytest.raises(MapperDeserialisationError, match=f"{UUID(int=1)} at version {version}"):
            MAPPER.decode(topic, UUID(int=1), version, damaged)

    @pytest.mark.parametrize("number", [0, 8])
    @pytest.mark.parametrize("version", [0, 1, 2, 7])
    def test_a_key_begins_with_its_creation_and_is_created_once(
        self, number: int, version: int
    ) -> None:
        stored = CORPUS[number]
        if (stored.topic == "ApiKey.Created") == (version == 1):
            MAPPER.decode(stored.topic, UUID(int=1), version, stored.state)
            return
        with pytest.raises(MapperDeserialisationError):
            MAPPER.decode(stored.topic, UUID(int=1), version, stored.state)

    @pytest.mark.parametrize(
        ("uuid", "version"),
        [
            (UUID(int=1), 1),
            (fork_uuid("keyledger/0011223344556677"), 2),
            (fork_uuid("keyledger/0011223344556678"), 1),
        ],
    )
    def test_a_fork_cannot_use_the_id_of_a_key(self, uuid: UUID, version: int) -> None:
        fork = next(stored for stored in CORPUS if stored.topic == "AuditLog.Forked")

        with pytest.raises(MapperDeserialisationError):
            MAPPER.decode(fork.topic, uuid, version, fork.state)


def test_the_two_ways_to_decode_are_one() -> None:
    for stored in CORPUS:
        assert MAPPER.to_domain_event(stored) == decoded(stored)


def test_an_event_that_was_read_equals_the_one_that_was_written() -> None:
    key = a_new_key(expires_at=NOON + DAY)
    (created,) = key.collect_events()

    assert decoded(MAPPER.to_stored_event(created)) == created
