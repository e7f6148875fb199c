"""Each event has its entry, in a tree whose root changes with any change of an entry."""

from collections.abc import Callable
from hashlib import sha256
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import pytest
from eventsourcing.persistence import StoredEvent
from hypothesis import example, given, settings
from hypothesis import strategies as st

from domain.caller import Actor, Caller
from domain.errors import PoisonEvent, ProjectionInconsistent
from domain.key_ids import to_uuid
from domain.public_event import MAX_ENTRY_LENGTH, entry_of
from projections.rebuild.comparison import Difference
from projections.rebuild.rebuild import check, rebuild
from projections.recorder import LedgerRecorder
from projections.store.database import Database
from projections.store.events import decode_rows, read_rows
from projections.tlog.merkle import root
from projections.views import entries
from projections.views.entries import reader, size_of
from projections.views.registry import VIEWS
from tests.conftest import NOON, SettableClock
from tests.engines import fresh_copy
from tests.projections.histories import History, Step, steps
from tests.projections.ledgers import HOUR, Keys, Made, differing_rows, keys_in, use_batches_of
from tests.raw_sql import Rows, delete_rows, dump, edit_rows, plant_row, rows_of, sql

BOT = Caller(Actor("key", "apikey_11111111-1111-8111-8111-111111111111"), holds=("*",))
ADA_S, BOT_S = ("cli", "ada"), (BOT.actor.type, BOT.actor.id)


def rebuilt(keys: Keys) -> Rows:
    """Return the entries as they are made anew."""
    rebuild(keys.database, entries.VIEW, clock=lambda: NOON)
    return rows_of(keys.address, "entries")


def root_at(database: Database, size: int | None = None) -> bytes:
    """Return the root of the tree over the first entries, or over all."""
    with database.read() as connection:
        return root(size_of(connection) if size is None else size, reader(connection))


def defined_root(lines: list[bytes]) -> bytes:
    """Return the root as RFC 9162 defines it, section 2.1.1."""
    if not lines:
        return sha256().digest()
    if len(lines) == 1:
        return sha256(b"\x00" + lines[0]).digest()
    split = 1
    while 2 * split < len(lines):
        split *= 2
    return sha256(b"\x01" + defined_root(lines[:split]) + defined_root(lines[split:])).digest()


def lines_of(keys: Keys) -> list[bytes]:
    return [line for (line,) in sql(keys.address, "SELECT entry FROM entries ORDER BY leaf_index")]


def lines_of_events(keys: Keys) -> list[bytes]:
    with keys.database.read() as connection:
        recorded = decode_rows(read_rows(connection, after=0, limit=None))
    return [entry_of(event) for _, event in recorded]


def test_an_entry_row_has_the_columns_that_are_searched(keys: Keys, clock: SettableClock) -> None:
    first = keys.create("first", workspace="acme", lives=9 * HOUR)
    clock.advance(minutes=1)
    second = keys.create("second", by=BOT)
    clock.advance(microseconds=5)
    keys.revoke(first.key_id, workspace="acme", by=BOT)
    keys.rename(second.key_id, "renamed")
    columns = "leaf_index, position, type, key_id, workspace, actor_type, actor_id, occurred_at"
    assert sql(keys.address, f"SELECT {columns} FROM entries ORDER BY 1") == [  # noqa: S608
        (0, 1, "ApiKey.Created", first.key_id, "acme", "cli", "ada", "2026-03-03T12:00:00.000000Z"),
        (1, 2, "ApiKey.Created", second.key_id, "default", *BOT_S, "2026-03-03T12:01:00.000000Z"),
        (2, 3, "ApiKey.Revoked", first.key_id, "acme", *BOT_S, "2026-03-03T12:01:00.000005Z"),
        (3, 4, "ApiKey.Renamed", second.key_id, "default", *ADA_S, "2026-03-03T12:01:00.000005Z"),
    ]
    assert lines_of(keys) == lines_of_events(keys)


def test_both_keys_of_a_rotation_have_their_workspace(keys: Keys) -> None:
    keys.create("elsewhere", workspace="other")
    old = keys.create(workspace="acme", lives=9 * HOUR)
    new = keys.rotate(old.key_id, workspace="acme")
    ends = "SELECT key_id, type, workspace FROM entries WHERE leaf_index > 1"
    assert sorted(sql(keys.address, ends)) == sorted(
        [
            (new.key_id, "ApiKey.Created", "acme"),
            (old.key_id, "ApiKey.Rotated", "acme"),
        ]
    )


def skip_positions(keys: Keys, change: Callable[[], object], number: int) -> None:
    """Make a change whose events leave out positions, as an append that failed may leave some."""
    last = sql(keys.address, "SELECT coalesce(max(id), 0) FROM events")[0][0]
    planted = last + number
    if not keys.database.is_a_file:
        sql(keys.address, "SELECT setval(pg_get_serial_sequence('events', 'id'), ?)", planted)
        change()
        return
    sql(keys.address, "INSERT INTO events VALUES (?, ?, 1, '', x'', NULL)", planted, UUID(int=0))
    change()
    sql(keys.address, "DELETE FROM events WHERE id = ?", planted)


def test_entries_are_counted_without_gaps_though_positions_have_some(keys: Keys) -> None:
    skip_positions(keys, keys.create, 4)
    made = keys.create(lives=9 * HOUR)
    skip_positions(keys, lambda: keys.rename(made.key_id, "renamed"), 1)
    skip_positions(keys, lambda: keys.rotate(made.key_id), 70)
    keys.revoke(made.key_id)
    places = sql(keys.address, "SELECT leaf_index, position FROM entries ORDER BY 1")
    assert places == [(0, 5), (1, 6), (2, 8), (3, 79), (4, 80), (5, 81)]
    assert root_at(keys.database) == defined_root(lines_of_events(keys))
    live = rows_of(keys.address, "entries")
    assert rebuilt(keys) == live
    assert differing_rows(keys) == {}


@pytest.fixture
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for the workspaces of few keys at once, and put the size of batches back afterwards."""
    monkeypatch.setattr("projections.views.entries._AT_ONCE", 2)
    for module in ("shadow_table", "rebuild"):
        monkeypatch.setattr(f"projections.rebuild.{module}.BATCH", 1)
    monkeypatch.setattr("projections.rebuild.shadow_table.KEYS", 1)


def stored_in(keys: Keys) -> list[StoredEvent]:
    columns = "originator_id, originator_version, topic, state"
    return [
        StoredEvent(UUID(bytes=uuid), *rest)
        for uuid, *rest in sql(keys.address, f"SELECT {columns} FROM events ORDER BY id")  # noqa: S608
    ]


@pytest.mark.usefixtures("few_at_once")
@settings(max_examples=15, deadline=None)
@given(commands=steps, batch=st.integers(1, 9), parts=st.lists(st.integers(1, 9), min_size=1))
@example(
    commands=[Step("create", n, 0) for n in range(9)] + [Step("rename", n, n) for n in range(9)],
    batch=7,
    parts=[9],
)
def test_entries_always_match_the_events_however_appended(
    empty_ledger: Path, commands: list[Step], batch: int, parts: list[int]
) -> None:
    with TemporaryDirectory() as folder:
        data_dir = fresh_copy(empty_ledger, Path(folder) / "data")
        clock = SettableClock(NOON)
        with keys_in(data_dir, clock=clock) as keys:
            History(keys, clock, []).play(commands)
            live = rows_of(keys.address, "entries")
            lines = lines_of_events(keys)
            assert lines_of(keys) == lines
            assert [leaf_index for leaf_index, *_ in live] == list(range(len(lines)))
            for size in range(len(lines) + 1):
                assert root_at(keys.database, size) == defined_root(lines[:size])
            use_batches_of(batch)
            assert check(keys.database, entries.VIEW).differing == 0
            assert rebuilt(keys) == live
            stored = iter(stored_in(keys))
        other = fresh_copy(empty_ledger, Path(folder) / "other")
        with keys_in(other) as parted:
            recorder = LedgerRecorder(parted.database, VIEWS)
            while some := list(islice(stored, parts[0])):
                recorder.insert_events(some)
                parts = parts[1:] + parts[:1]
            again = rows_of(parted.address, "entries")
        # Positions may have gaps where an append lost a race, and have none here.
        assert [(leaf, *rest) for leaf, _, *rest in again] == [
            (leaf, *rest) for leaf, _, *rest in live
        ]


@pytest.fixture
def made(keys: Keys) -> list[Made]:
    """Keys with seven events, so that the tree has complete subtrees of several sizes."""
    some = [keys.create(f"{number}") for number in range(4)]
    for number in range(3):
        keys.rename(some[number].key_id, f"renamed {number}")
    return some


TAMPERINGS: dict[str, tuple[str, int]] = {
    "a byte of an entry": (
        "UPDATE entries SET entry = CAST(x'07' || substr(entry, 2) AS BLOB) WHERE position = 6",
        1,
    ),
    "entries of others": (
        "UPDATE entries SET entry = o.entry FROM entries AS o WHERE o.position = 1",
        6,
    ),
    "a hash": (
        "UPDATE entries SET hashes = CAST(x'00' || substr(hashes, 2) AS BLOB) WHERE position = 4",
        1,
    ),
    "a hash cut off": ("UPDATE entries SET hashes = substr(hashes, 1, 32) WHERE position = 4", 1),
    "a hash added": (
        "UPDATE entries SET hashes = CAST(hashes || hashes AS BLOB) WHERE position = 3",
        1,
    ),
    "a position": ("UPDATE entries SET position = 70 WHERE position = 7", 1),
    "a leaf index": ("UPDATE entries SET leaf_index = 70 WHERE position = 7", 2),
    "the type": ("UPDATE entries SET type = 'ApiKey.Expired' WHERE position = 6", 1),
    "the key": ("UPDATE entries SET key_id = 'apikey_planted' WHERE position = 6", 1),
    "the workspace": ("UPDATE entries SET workspace = 'planted'", 7),
    "the actor's type": ("UPDATE entries SET actor_type = 'key' WHERE position = 6", 1),
    "the actor": ("UPDATE entries SET actor_id = 'eve' WHERE position IN (2, 6)", 2),
    "the time": ("UPDATE entries SET occurred_at = '2020-01-01T00:00:00.000000Z'", 7),
    "the first deleted": ("DELETE FROM entries WHERE position = 1", 1),
    "one in the middle deleted": ("DELETE FROM entries WHERE position = 4", 1),
    "the last deleted": ("DELETE FROM entries WHERE position = 7", 1),
    "all deleted": ("DELETE FROM entries", 7),
    "one added": ("INSERT INTO entries SELECT 7, 8, {others} FROM entries WHERE position = 7", 1),
    "one added before all": (
        "INSERT INTO entries SELECT -1, 0, {others} FROM entries WHERE position = 1",
        1,
    ),
    "all moved on by one": (
        "UPDATE entries SET leaf_index = leaf_index + 100, position = position + 100",
        14,
    ),
}
"""What is done to seven entries, and how many rows differ then."""
OTHERS = [column.name for column in entries.table.c][2:]


OF_ANY_TYPE = pytest.mark.only_on("sqlite")
"""Only SQLite has values in a column that are not of its type."""


@pytest.mark.parametrize(
    ("tampering", "number"),
    [
        *(pytest.param(*each, id=name) for name, each in TAMPERINGS.items()),
        pytest.param(
            "UPDATE entries SET entry = CAST(entry AS TEXT) WHERE position = 2",
            1,
            id="an entry for a text",
            marks=OF_ANY_TYPE,
        ),
    ],
)
@pytest.mark.usefixtures("made")
def test_a_check_finds_and_a_rebuild_repairs_any_change_of_the_table(
    keys: Keys, tampering: str, number: int
) -> None:
    right = rows_of(keys.address, "entries")
    sql(keys.address, tampering.format(others=", ".join(OTHERS)))
    assert rows_of(keys.address, "entries") != right
    tampered = dump(keys.address)
    report = check(keys.database, entries.VIEW)
    assert report.differing == len(report.differences) == number
    assert dump(keys.address) == tampered
    healing = rebuild(keys.database, entries.VIEW, clock=lambda: NOON)
    assert healing.differences == report.differences
    assert rows_of(keys.address, "entries") == right
    assert differing_rows(keys) == {}


def test_each_column_that_was_changed_is_told_with_both_values(
    keys: Keys, made: list[Made]
) -> None:
    line = lines_of(keys)[5]
    edit_rows(keys.address, "entries", 6, entry=b"{}", actor_id="eve")
    assert check(keys.database, entries.VIEW).differences == (
        Difference(
            made[1].key_id, "different", {"entry": (b"{}", line), "actor_id": ("eve", "ada")}
        ),
    )


def test_swapped_entries_are_found_by_their_positions(keys: Keys, made: list[Made]) -> None:
    for before, after in ((2, 99), (3, 2), (99, 3)):
        edit_rows(keys.address, "entries", before, position=after)
    assert [
        (each.key_id, each.columns) for each in check(keys.database, entries.VIEW).differences
    ] == [
        (made[1].key_id, {"position": (3, 2)}),
        (made[2].key_id, {"position": (2, 3)}),
    ]


@pytest.mark.only_on("sqlite")  # which gives the last id again
def test_an_event_that_was_deleted_is_in_the_way_of_the_next_one_that_is_given_its_id(
    keys: Keys, made: list[Made]
) -> None:
    sql(keys.address, "DELETE FROM events WHERE id = 7")
    before = dump(keys.address)
    with pytest.raises(ProjectionInconsistent):
        keys.rename(made[3].key_id, "in its place")
    assert dump(keys.address) == before


@pytest.mark.only_on("sqlite")  # which gives the last id again
def test_a_last_event_that_is_deleted_everywhere_and_whose_id_is_given_again_changes_the_root(
    keys: Keys,
) -> None:
    keys.create("first")
    keys.create("second")
    keys.create("last")
    whole, earlier = root_at(keys.database), root_at(keys.database, 2)
    sql(keys.address, "DELETE FROM events WHERE id = 3")
    for view in VIEWS:
        delete_rows(keys.address, view.name, 3)
    keys.create("in its place")
    assert [row[0] for row in rows_of(keys.address, "events")] == [1, 2, 3]
    assert differing_rows(keys) == {}, "rows and events agree, as if nothing had been"
    assert root_at(keys.database, 2) == earlier
    assert root_at(keys.database) != whole
    assert root_at(keys.database) == defined_root(lines_of_events(keys))


DAMAGES = {
    "no entry": "DELETE FROM entries WHERE leaf_index = 1",
    "no hash": "UPDATE entries SET hashes = x'' WHERE leaf_index = 1",
    "too few hashes": "UPDATE entries SET hashes = substr(hashes, 1, 32) WHERE leaf_index = 1",
    "too short a hash": "UPDATE entries SET hashes = substr(hashes, 1, 63) WHERE leaf_index = 1",
}
UNFIT_DAMAGES = {
    "a text": "UPDATE entries SET hashes = hex(zeroblob(32)) WHERE leaf_index = 1",
    "a number": "UPDATE entries SET hashes = 7 WHERE leaf_index = 1",
}


@pytest.mark.parametrize(
    "damage",
    [
        *(pytest.param(damage, id=name) for name, damage in DAMAGES.items()),
        *(pytest.param(each, id=name, marks=OF_ANY_TYPE) for name, each in UNFIT_DAMAGES.items()),
    ],
)
@pytest.mark.parametrize("events", [1, 2])
def test_a_tree_with_a_missing_node_refuses_appends_until_it_is_rebuilt(
    keys: Keys, damage: str, events: int
) -> None:
    # The fourth leaf completes the node over all four, for which it needs that over the first two.
    old = keys.create(lives=9 * HOUR)
    keys.create()
    keys.create()
    sql(keys.address, damage)
    before = dump(keys.address)

    def append() -> object:
        return keys.create() if events == 1 else keys.rotate(old.key_id)

    with pytest.raises(
        ProjectionInconsistent, match="entry 1 is missing from the tree, or damaged"
    ):
        append()
    with pytest.raises(
        ProjectionInconsistent, match="entry 1 is missing from the tree, or damaged"
    ):
        root_at(keys.database)
    assert dump(keys.address) == before
    rebuilt(keys)
    append()
    assert root_at(keys.database) == defined_root(lines_of_events(keys))
    assert differing_rows(keys) == {}


def test_a_key_without_its_first_entry_cannot_be_changed_and_others_can(
    keys: Keys, made: list[Made]
) -> None:
    # Neither a later one of the key nor a planted one is taken for it.
    delete_rows(keys.address, "entries", 3)
    plant_row(keys.address, "entries", leaf_index=47, position=60, key_id=made[2].key_id)
    keys.rename(made[1].key_id, "renamed again")
    before = dump(keys.address)
    with pytest.raises(ProjectionInconsistent, match="1 keys have no first entry in entries: run"):
        keys.rename(made[2].key_id, "renamed")
    assert dump(keys.address) == before


@pytest.mark.parametrize("missing", ["actor", "request_id", "timestamp"])
def test_an_event_that_lacks_what_each_entry_says_is_named(keys: Keys, missing: str) -> None:
    keys.create()
    keys.create()
    with keys.database.read() as connection:
        recorded = decode_rows(read_rows(connection, after=0, limit=None))
    del vars(recorded[1].event)[missing]
    with pytest.raises(PoisonEvent, match="entries fails on it") as caught:
        entries.VIEW.fold(recorded)
    assert caught.value.position == 2


def test_an_event_whose_entry_would_be_too_long_is_not_appended(keys: Keys) -> None:
    made = keys.create()
    before = dump(keys.address)
    renamed: dict[str, Any] = {
        "timestamp": "2026-03-03T12:00:00.000000Z",
        "actor": {"type": "cli", "id": "ada"},
        "request_id": None,
        "source_ip": None,
        "name": "x" * MAX_ENTRY_LENGTH,
    }
    recorder = keys.opened.ledger.recorder
    mapper = keys.opened.ledger.mapper
    stored = StoredEvent(
        to_uuid(made.key_id), 2, "ApiKey.Renamed", mapper.transcoder.encode(renamed)
    )
    with pytest.raises(PoisonEvent, match="an entry has at most 65535 bytes"):
        recorder.insert_events([stored])
    assert dump(keys.address) == before
