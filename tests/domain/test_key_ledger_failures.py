"""Errors when the store is damaged or unavailable, or configured from outside."""

from collections.abc import Callable
from uuid import UUID

import pytest
from eventsourcing.persistence import (
    InterfaceError,
    OperationalError,
    PersistenceError,
    StoredEvent,
)

from domain.errors import DamagedHistory, LedgerUnavailable
from domain.key_ids import to_uuid
from domain.key_ledger import Idempotency
from tests.domain.builders import HOUR, NOON
from tests.domain.ledger_in_memory import Desk

COMMANDS: dict[str, Callable[[Desk, str], object]] = {
    "revoke": lambda desk, key_id: desk.revoke(key_id),
    "rotate": lambda desk, key_id: desk.rotate(key_id),
    "update": lambda desk, key_id: desk.update(key_id),
}
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "a list": lambda _: b"[]",
    "null": lambda _: b"null",
    "nothing said": lambda _: b"{}",
    "no UTF-8": lambda state: b"\xff" + state,
    "cut off": lambda state: state[:-1],
    "no name": lambda state: state.replace(b'"name":', b'"n":'),
    "no timestamp": lambda state: state.replace(b'"timestamp":', b'"t":'),
    "a naive time": lambda state: state.replace(b"00Z", b"00"),
    "a time of another zone": lambda state: state.replace(b"00Z", b"00+01:00"),
    "no time": lambda state: state.replace(b"2026-03-03", b"noon"),
    "scopes that are none": lambda state: state.replace(b'["mcp:read"]', b"5"),
    "another aggregate": lambda state: state.replace(b'_topic":"ApiKey"', b'_topic":"os:system"'),
}
SECOND = (
    b'{"timestamp":"2026-03-03T12:00:00.000000Z","actor":{"type":"cli","id":"ada"},'
    b'"request_id":null,"source_ip":null,"name":"ledger-api"}'
)
every_command = pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)


@pytest.fixture
def desk() -> Desk:
    return Desk()


class TestDamagedHistory:
    @every_command
    @pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
    def test_a_damaged_first_event_makes_no_key(
        self,
        desk: Desk,
        command: Callable[[Desk, str], object],
        damage: Callable[[bytes], bytes],
    ) -> None:
        key_id, sound = a_creation()
        assert damage(sound) != sound
        plant(desk, key_id, 1, "ApiKey.Created", damage(sound))

        with pytest.raises(DamagedHistory, match=key_id):
            command(desk, key_id)

        assert desk.everything() == ["Created"]

    @every_command
    @pytest.mark.parametrize(
        ("version", "topic"),
        [
            (1, "ApiKey.Renamed"),
            (1, "ApiKey"),
            (1, "os:system"),
            (0, "ApiKey.Created"),
            (2, "ApiKey.Created"),
        ],
    )
    def test_a_history_must_begin_with_a_creation(
        self, desk: Desk, command: Callable[[Desk, str], object], version: int, topic: str
    ) -> None:
        key_id, sound = a_creation()
        plant(desk, key_id, version, topic, sound)

        with pytest.raises(DamagedHistory, match=key_id):
            command(desk, key_id)

        assert len(desk.everything()) == 1

    @every_command
    @pytest.mark.parametrize(
        ("version", "topic"),
        [(3, "ApiKey.Revoked"), (2, "ApiKey.Created"), (2, "ApiKey.Forgotten")],
    )
    def test_events_that_do_not_follow_on_each_other_are_no_key(
        self, desk: Desk, command: Callable[[Desk, str], object], version: int, topic: str
    ) -> None:
        key_id = desk.create().key_id
        (sound,) = desk.recorder.select_events(to_uuid(key_id))
        plant(desk, key_id, version, topic, sound.state)

        with pytest.raises(DamagedHistory):
            command(desk, key_id)

        assert len(desk.everything()) == 2

    @every_command
    @pytest.mark.parametrize(
        "state",
        [
            SECOND.replace(b'"name":', b'"n":'),
            SECOND.replace(b'"timestamp":', b'"t":'),
            SECOND.replace(b"2026", b"year"),
        ],
    )
    def test_an_event_that_lacks_what_it_must_say_is_damage(
        self, desk: Desk, command: Callable[[Desk, str], object], state: bytes
    ) -> None:
        key_id = desk.create().key_id
        plant(desk, key_id, 2, "ApiKey.Renamed", state)

        with pytest.raises(DamagedHistory):
            command(desk, key_id)

    @every_command
    def test_a_history_without_its_beginning_is_damage(
        self, desk: Desk, command: Callable[[Desk, str], object]
    ) -> None:
        key_id, _ = a_creation()
        plant(desk, key_id, 2, "ApiKey.Renamed", SECOND)

        with pytest.raises(DamagedHistory):
            command(desk, key_id)

    def test_a_key_with_a_damaged_history_does_not_stop_other_expiries(self, desk: Desk) -> None:
        damaged, due = [desk.create(expires_at=NOON + HOUR).key_id for _ in range(2)]
        plant(desk, damaged, 2, "ApiKey.Forgotten", b"{}")

        assert desk.expire(damaged, due, at=NOON + HOUR) == 1

        assert desk.history(due) == ["Created", "Expired"]

    def test_an_idempotent_request_is_not_answered_from_a_damaged_history(self, desk: Desk) -> None:
        once = Idempotency("order-1", "aa" * 32)
        key_id = desk.create(idempotency=once).key_id
        plant(desk, key_id, 2, "ApiKey.Forgotten", b"{}")

        with pytest.raises(DamagedHistory):
            desk.create(idempotency=once)


@pytest.mark.parametrize(
    "failure", [OperationalError("disk gone"), InterfaceError("select secret"), PersistenceError()]
)
class TestUnavailable:
    @every_command
    def test_an_unreadable_store_is_not_reported_as_a_missing_key(
        self, desk: Desk, command: Callable[[Desk, str], object], failure: PersistenceError
    ) -> None:
        key_id = desk.create().key_id
        desk.recorder.failing = failure

        with pytest.raises(LedgerUnavailable) as refusal:
            command(desk, key_id)

        assert refusal.value.__cause__ is failure
        assert "secret" not in str(refusal.value)

    @every_command
    def test_a_failed_append_changes_nothing(
        self, desk: Desk, command: Callable[[Desk, str], object], failure: PersistenceError
    ) -> None:
        key_id = desk.create().key_id
        desk.recorder.before_append.append(lambda: fail(desk, failure))

        with pytest.raises(LedgerUnavailable):
            command(desk, key_id)

        desk.recorder.failing = None
        assert desk.everything() == ["Created"]
        command(desk, key_id)
        assert desk.key(key_id).version == 2

    def test_no_key_is_made_without_the_store(self, desk: Desk, failure: PersistenceError) -> None:
        desk.recorder.failing = failure

        with pytest.raises(LedgerUnavailable):
            desk.create()
        with pytest.raises(LedgerUnavailable):
            desk.create(idempotency=Idempotency("order-1", "aa" * 32))

        desk.recorder.failing = None
        assert desk.everything() == []

    def test_nothing_expires_without_the_store(self, desk: Desk, failure: PersistenceError) -> None:
        due = [desk.create(expires_at=NOON + HOUR).key_id for _ in range(2)]
        desk.recorder.before_append.append(lambda: fail(desk, failure))

        with pytest.raises(LedgerUnavailable):
            desk.expire(*due, at=NOON + HOUR)

        desk.recorder.failing = None
        assert desk.expire(*due, at=NOON + HOUR) == 2


class TestEnvironment:
    SETTINGS = (
        ("COMPRESSOR_TOPIC", "zlib"),
        ("CIPHER_TOPIC", "no.such.cipher:Cipher"),
        ("CIPHER_KEY", "0" * 32),
        ("PERSISTENCE_MODULE", "no.such.module"),
        ("TRANSCODER_TOPIC", "no.such.transcoder:Transcoder"),
        ("MAPPER_TOPIC", "no.such.mapper:Mapper"),
        ("IS_SNAPSHOTTING_ENABLED", "y"),
        ("AGGREGATE_CACHE_MAXSIZE", "10"),
        ("AGGREGATE_CACHE_FASTFORWARD", "n"),
    )

    @pytest.mark.parametrize("of", ["", "KEYLEDGER_"])
    def test_a_stray_variable_changes_nothing(
        self, monkeypatch: pytest.MonkeyPatch, of: str
    ) -> None:
        undisturbed = a_short_story(Desk())
        for name, value in self.SETTINGS:
            monkeypatch.setenv(f"{of}{name}", value)

        disturbed = Desk()

        assert [plain(stored) for stored in a_short_story(disturbed)] == [
            plain(stored) for stored in undisturbed
        ]
        assert disturbed.ledger.repository.cache is None
        assert disturbed.ledger.snapshots is None


def a_creation() -> tuple[str, bytes]:
    """Return the id of a valid key, and the state of its first event."""
    desk = Desk()
    key_id = desk.create().key_id
    (stored,) = desk.recorder.select_events(to_uuid(key_id))
    return key_id, stored.state


def a_short_story(desk: Desk) -> list[StoredEvent]:
    key_id = desk.create().key_id
    desk.update(key_id)
    desk.revoke(key_id)
    return [*desk.recorder.select_events(to_uuid(key_id))]


def plain(stored: StoredEvent) -> tuple[UUID | str, int, str, bytes]:
    """Return a stored event without its verifier, whose salt is random."""
    head, found, rest = stored.state.partition(b'"verifier":"')
    state = head + found + rest.partition(b'"')[2] if found else stored.state
    return stored.originator_id, stored.originator_version, stored.topic, state


def plant(desk: Desk, key_id: str, version: int, topic: str, state: bytes) -> None:
    """Write a row into the store, as someone with access to the database could."""
    desk.recorder.insert_events(
        [
            StoredEvent(
                originator_id=to_uuid(key_id), originator_version=version, topic=topic, state=state
            )
        ]
    )


def fail(desk: Desk, failure: PersistenceError) -> None:
    desk.recorder.failing = failure
