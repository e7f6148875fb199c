import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from secrets import token_bytes
from uuid import UUID, uuid4

import pytest
from eventsourcing.persistence import IntegrityError, StoredEvent
from sqlalchemy import URL

from domain.api_key import ApiKey
from domain.credential import Credential, Digest, issue
from domain.errors import (
    ConcurrentChange,
    LedgerError,
    LedgerUnavailable,
    PoisonEvent,
    ProjectionInconsistent,
)
from domain.key_ids import to_uuid
from domain.key_ledger import KeyLedger
from domain.pepper import Pepper
from domain.tokens import Token
from domain.verifiers import CHEAPEST, Argon2Gate
from projections.rebuild.rebuild import rebuild
from projections.recorder import LedgerRecorder
from projections.store.key_digests import store_digests
from projections.views.registry import VIEWS
from projections.views.view import View
from tests.conftest import NOON
from tests.engines import fresh_copy
from tests.projections.ledgers import ADA, KEY_VIEWS, Keys, differing_rows, keys_in
from tests.projections.processes import die_at_statement, run_until_killed
from tests.raw_sql import as_dicts, count_events, dump, go_on, rows_of, sql, stop_at, view_rows

CREATED = {
    "timestamp": "2026-03-03T12:00:00.000000Z",
    "actor": {"type": "cli", "id": "ada"},
    "request_id": None,
    "source_ip": None,
    "originator_topic": "ApiKey",
    "workspace": "default",
    "name": "by hand",
    "token_prefix": "key",
    "lookup_id": "0123456789abcdef",
    "verifier": "$argon2id$by-hand",
    "scopes": ["mcp:read"],
    "role": "Member",
    "expires_at": None,
    "rotated_from": None,
}
"""A first event as it was stored before idempotency keys, without their field."""


def stored(
    state: object, *, uuid: UUID | None = None, version: int = 1, topic: str = "ApiKey.Created"
) -> StoredEvent:
    return StoredEvent(uuid or uuid4(), version, topic, json.dumps(state).encode())


@pytest.fixture
def recorder(keys: Keys) -> LedgerRecorder:
    return LedgerRecorder(keys.database, VIEWS)


def test_event_views_positions_and_digest_are_there_together(keys: Keys) -> None:
    made = keys.create()
    keys.create("another")
    keys.revoke(made.key_id)
    assert sql(keys.address, "SELECT id, topic FROM events") == [
        (1, "ApiKey.Created"),
        (2, "ApiKey.Created"),
        (3, "ApiKey.Revoked"),
    ]
    assert sql(keys.address, "SELECT position, status FROM key_list ORDER BY 1") == [
        (1, "revoked"),
        (2, "active"),
    ]
    assert sql(keys.address, "SELECT position, revoked FROM auth_lookup ORDER BY 1") == [
        (1, 1),
        (2, 0),
    ]
    assert sql(keys.address, "SELECT position, type FROM entries ORDER BY 1") == sql(
        keys.address, "SELECT id, topic FROM events ORDER BY 1"
    )
    assert sql(keys.address, "SELECT table_name, position FROM projection_states") == [
        (view.name, 3) for view in VIEWS
    ]
    assert sql(keys.address, "SELECT lookup_id FROM key_digests ORDER BY 1") == sql(
        keys.address, "SELECT lookup_id FROM auth_lookup ORDER BY 1"
    )


Trouble = Callable[[URL], object]


def after(statement: str) -> Trouble:
    return lambda address: sql(address, statement)


def stop(table: str, verb: str) -> Trouble:
    return lambda address: stop_at(address, verb, table)


def delete(table: str, where: str = "true") -> Trouble:
    return after(f"DELETE FROM {table} WHERE {where}")  # noqa: S608 - names from the tests


@pytest.mark.parametrize(
    ("trouble", "refusal"),
    [
        *((after(f"DROP TABLE {view.name}"), LedgerUnavailable) for view in VIEWS),
        (after("DROP TABLE projection_states"), LedgerUnavailable),
        (after("DROP TABLE key_digests"), LedgerUnavailable),
        (after("DROP TABLE events"), LedgerUnavailable),
        *(
            (delete("projection_states", f"table_name = '{view.name}'"), LedgerUnavailable)
            for view in VIEWS
        ),
        *((stop(view.name, "INSERT"), ProjectionInconsistent) for view in VIEWS),
        (stop("key_digests", "INSERT"), ProjectionInconsistent),
        (stop("projection_states", "UPDATE"), ProjectionInconsistent),
        # The row of a key whose first event is gone is in the way of the next one's, where the
        # position is given again.
        pytest.param(delete("events"), ProjectionInconsistent, marks=pytest.mark.only_on("sqlite")),
    ],
)
def test_a_key_is_created_completely_or_not_at_all(
    keys: Keys, trouble: Trouble, refusal: type[LedgerError]
) -> None:
    keys.create()
    trouble(keys.address)
    before = dump(keys.address)
    with pytest.raises(refusal):
        keys.create()
    assert dump(keys.address) == before


@pytest.mark.parametrize(
    ("trouble", "refusal"),
    [
        *((delete(view.name), ProjectionInconsistent) for view in VIEWS),
        *((stop(view.name, "INSERT"), ProjectionInconsistent) for view in VIEWS),
        *((stop(view.name, "UPDATE"), ProjectionInconsistent) for view in KEY_VIEWS),
        (stop("projection_states", "UPDATE"), ProjectionInconsistent),
        # The successor's row is in before the old key's is changed.
        *((delete(view.name, "position = 1"), ProjectionInconsistent) for view in VIEWS),
        (after("DROP TABLE key_digests"), LedgerUnavailable),
    ],
)
def test_a_rotation_is_both_keys_with_all_that_belongs_to_them_or_nothing(
    keys: Keys, trouble: Trouble, refusal: type[LedgerError]
) -> None:
    made = keys.create()
    trouble(keys.address)
    before = dump(keys.address)
    with pytest.raises(refusal):
        keys.rotate(made.key_id)
    assert dump(keys.address) == before


def test_the_ledger_continues_after_a_failed_append(keys: Keys) -> None:
    made = keys.create()
    stop_at(keys.address, "UPDATE", "auth_lookup")
    with pytest.raises(ProjectionInconsistent):
        keys.revoke(made.key_id)
    go_on(keys.address, "auth_lookup")
    keys.revoke(made.key_id)
    assert keys.show(made.key_id).version == 2
    assert differing_rows(keys) == {}


def test_only_a_taken_version_is_a_conflict(keys: Keys, recorder: LedgerRecorder) -> None:
    made = keys.create()
    before = dump(keys.address)
    taken = stored(CREATED, uuid=to_uuid(made.key_id))
    with pytest.raises(IntegrityError):
        recorder.insert_events([stored(CREATED), taken])
    assert dump(keys.address) == before


def test_a_change_of_an_outdated_version_is_refused_with_the_reason(keys: Keys) -> None:
    made = keys.create()
    uuid = to_uuid(made.key_id)
    loser: ApiKey = keys.opened.ledger.repository.get(uuid)
    keys.rename(made.key_id, "the winner's")
    loser.rename("the loser's", by=ADA, at=NOON)
    with pytest.raises(IntegrityError):
        keys.opened.ledger.save(loser)
    assert keys.show(made.key_id).name == "the winner's"
    assert count_events(keys.address) == 2


def test_the_command_reports_a_conflict_as_a_conflict(keys: Keys, recorder: LedgerRecorder) -> None:
    made = keys.create()
    uuid = to_uuid(made.key_id)

    def rename_first(prefix: str) -> tuple[Token, Credential]:
        # Between the reading of the key and the append of the rotation.
        keys.rename(made.key_id, "quicker")
        return issue(
            prefix,
            random=token_bytes,
            gate=Argon2Gate(at_once=1, waiting=0, profile=CHEAPEST),
            pepper=Pepper(bytes(32)),
        )

    slower = KeyLedger(recorder, rename_first)
    with pytest.raises(ConcurrentChange):
        slower.rotate_key(made.key_id, workspace="default", grace=timedelta(0), by=ADA, at=keys.now)
    assert [each.topic for each in recorder.select_events(uuid)] == [
        "ApiKey.Created",
        "ApiKey.Renamed",
    ]
    assert count_events(keys.address) == 2


def test_ids_increase_whatever_fails_between(recorder: LedgerRecorder) -> None:
    ids: list[int] = []
    for number in range(5):
        state = CREATED | {"lookup_id": f"{number:016}"}
        first = stored(state)
        ids += recorder.insert_events([first]) or []
        with pytest.raises(IntegrityError):
            recorder.insert_events([first])
        with pytest.raises(ProjectionInconsistent):
            recorder.insert_events([stored(state)])
        changes: list[StoredEvent] = []
        for version in (2, 3):
            said = ("timestamp", "actor", "request_id", "source_ip", "name")
            renamed = {name: CREATED[name] for name in said}
            changes.append(
                stored(
                    renamed,
                    uuid=UUID(str(first.originator_id)),
                    version=version,
                    topic="ApiKey.Renamed",
                )
            )
        ids += recorder.insert_events(changes) or []
    assert ids == [each.id for each in recorder.select_notifications(None, 100)]
    assert ids == sorted(set(ids))
    assert len(ids) == 15


def test_views_receive_the_stored_events(keys: Keys, recorder: LedgerRecorder) -> None:
    # Extra fields, a time written in another way, and a field that did not exist yet.
    recorder.insert_events(
        [stored(CREATED | {"expires_at": "2026-03-04T00:00:00Z", "unknown": [1]})]
    )
    live = view_rows(keys.address)
    assert [row["expires_at"] for row in as_dicts(keys.address, "key_list")] == [
        "2026-03-04T00:00:00.000000Z"
    ]
    for view in VIEWS:
        assert rebuild(keys.database, view, clock=lambda: NOON).differing == 0
    assert view_rows(keys.address) == live


@pytest.mark.parametrize(
    "poison",
    [
        stored(CREATED, topic="os:system"),
        stored([], topic="ApiKey.Created"),
        stored({name: value for name, value in CREATED.items() if name != "verifier"}),
        stored(CREATED | {"actor": {}}),
        StoredEvent(uuid4(), 1, "ApiKey.Created", b"\xff"),
    ],
    ids=["unknown topic", "not an object", "missing field", "nobody", "no JSON"],
)
def test_an_event_that_cannot_be_projected_is_not_appended(
    keys: Keys, recorder: LedgerRecorder, poison: StoredEvent
) -> None:
    keys.create()
    before = dump(keys.address)
    with pytest.raises(PoisonEvent) as caught:
        recorder.insert_events([stored(CREATED), poison])
    assert caught.value.position == 3
    assert dump(keys.address) == before


def of_version(view: View, version: int) -> View:
    return replace(view, version=version)


@pytest.mark.parametrize("version", [0, 99])
@pytest.mark.parametrize("which", range(len(VIEWS)), ids=lambda which: VIEWS[which].name)
def test_a_program_of_another_view_version_appends_nothing(
    keys: Keys, which: int, version: int
) -> None:
    views = list(VIEWS)
    views[which] = of_version(views[which], version)
    other = LedgerRecorder(keys.database, views)
    keys.create()
    before = dump(keys.address)
    with pytest.raises(LedgerUnavailable, match=f"is not at version {version} of this program"):
        other.insert_events([stored(CREATED)])
    assert dump(keys.address) == before


def test_a_recorder_without_views_stores_only_events(keys: Keys) -> None:
    LedgerRecorder(keys.database, []).insert_events([stored(CREATED)])
    assert count_events(keys.address) == 1
    assert view_rows(keys.address) == {view.name: [] for view in VIEWS}


def test_digests_that_are_given_replace_those_of_their_keys(
    keys: Keys, recorder: LedgerRecorder
) -> None:
    keys.create()
    with keys.database.write() as connection:
        digests = [Digest(str(CREATED["lookup_id"]), "1" * 16, bytes(32))]
        store_digests(connection, digests, keys.database.seals)
    kept = Digest(str(CREATED["lookup_id"]), "2" * 16, b"2" * 32)
    recorder.insert_events([stored(CREATED)], digests=[kept])
    row = kept.lookup_id, kept.pepper_id, kept.digest
    assert (*row, keys.database.seals.digest(row)) in rows_of(keys.address, "key_digests")
    assert len(rows_of(keys.address, "key_digests")) == 2


def test_each_append_is_measured_and_a_failed_one_is_not(keys: Keys) -> None:
    measured: list[tuple[int, float]] = []
    recorder = LedgerRecorder(
        keys.database, VIEWS, on_append=lambda number, seconds: measured.append((number, seconds))
    )
    recorder.insert_events([stored(CREATED)])
    with pytest.raises(ProjectionInconsistent):
        recorder.insert_events([stored(CREATED)])
    ((number, seconds),) = measured
    assert number == 1
    assert 0 < seconds < 60


def test_reading_events_does_not_wait_for_the_append_lock(
    keys: Keys, recorder: LedgerRecorder
) -> None:
    made = keys.create()
    with keys.database.write():
        assert len(recorder.select_events(to_uuid(made.key_id))) == 1
        assert recorder.max_notification_id() == 1


def rotate_until(data_dir: Path, key_id: str, number: int, when: str) -> None:
    with keys_in(data_dir) as keys:
        die_at_statement(number, when=when)
        keys.rotate(key_id, grace=timedelta(hours=1))


@pytest.mark.parametrize("when", ["before_cursor_execute", "after_cursor_execute"])
def test_a_command_that_is_killed_has_done_nothing_or_everything(tmp_path: Path, when: str) -> None:
    whole = tmp_path / "whole"
    with keys_in(whole) as keys:
        made = keys.create(lives=timedelta(days=1))
        before = dump(keys.address)
    data_dir = tmp_path / "data"
    for number in count(1):
        fresh_copy(whole, data_dir)
        killed = run_until_killed(rotate_until, data_dir, made.key_id, number, when)
        with keys_in(data_dir) as keys:
            if not killed:
                assert count_events(keys.address) == 3
                break
            assert dump(keys.address) == before
            assert differing_rows(keys) == {}
            keys.rotate(made.key_id)
    assert number > 8
