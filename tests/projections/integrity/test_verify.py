"""Every change of a database file past the program is found and named."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_bytes
from tempfile import TemporaryDirectory
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from sqlalchemy import update

from domain.key_ledger import Changes
from projections.audit_log.checkpoint_file import last_note_in, notes_in
from projections.audit_log.checkpoint_table import store_note
from projections.audit_log.fork import fork
from projections.integrity.entries_check import LogCheck, extent_of
from projections.integrity.findings import MAX_FINDINGS, About, Findings
from projections.integrity.verify import IntegrityReport, check_integrity
from projections.rebuild.rebuild import rebuild
from projections.store.database import Database
from projections.store.schema import events
from projections.tlog.checkpoint import Checkpoint, sign_checkpoint
from projections.tlog.merkle import leaf_hash, root
from projections.tlog.notes import SigningKey
from projections.views.entries import reader, size_of
from projections.views.registry import VIEWS
from tests.conftest import NOON, SettableClock
from tests.engines import Engine, address_of, database_file, fresh_copy, sealed_database
from tests.projections.histories import History, Step, steps
from tests.projections.ledgers import ADA, HOUR, Keys, keys_in
from tests.raw_sql import count_events, plant_row, rewrite, seal_events, sql, tables_of, with_field

ON_SQLITE = pytest.mark.only_on("sqlite")
ON_POSTGRESQL = pytest.mark.only_on("postgresql")


def signed(keys: Keys) -> str:
    """Have the current log signed, and return the note."""
    keys.opened.signer.sign()
    note = last_note_in(keys.opened.signer.path)
    assert note is not None
    return note


def signed_by(place: Path, key: SigningKey, *, keep: bool) -> str:
    """Sign the current log without the ledger; store the note in its database, or nowhere."""
    with closing_database(place) as database, database.write() as connection:
        size = size_of(connection)
        checkpoint = Checkpoint(key.name, size, root(size, reader(connection)))
        note = sign_checkpoint(checkpoint, key)
        if keep:
            store_note(connection, checkpoint, note, NOON)
    return note


def signing_key(place: Path) -> SigningKey:
    return SigningKey.from_text((place / "signing-key").read_text().strip())


@contextmanager
def closing_database(place: Path) -> Iterator[Database]:
    database = sealed_database(place)
    try:
        yield database
    finally:
        database.close()


def live_a_little(keys: Keys) -> list[str]:
    """Append nine events of four keys, one of each type but `Expired`; revoke the first key."""
    first = keys.create("first")
    second = keys.create("second", lives=HOUR)
    keys.rename(first.key_id, "renamed")
    keys.update(first.key_id, Changes(scopes=["logs:read"]))
    keys.update(second.key_id, Changes(never_expires=True))
    third = keys.rotate(second.key_id, grace=HOUR)
    keys.revoke(first.key_id, reason="leaked")
    fourth = keys.create("fourth")
    return [first.key_id, second.key_id, third.key_id, fourth.key_id]


@pytest.fixture(scope="module")
def used_ledger(
    engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str], list[str]]:
    """A sound ledger, the ids of its keys, and its checkpoints of half and of all of it."""
    data_dir = engine.new_place(tmp_path_factory.mktemp("used_ledger") / "keyledger-data")
    with keys_in(data_dir) as keys:
        key_ids = live_a_little(keys)
        half = signed(keys)
        keys.create("fifth")
        whole = signed(keys)
    return data_dir, key_ids, [half, whole]


@pytest.fixture
def place(used_ledger: tuple[Path, list[str], list[str]], tmp_path: Path) -> Path:
    """A copy of the database to tamper with."""
    return fresh_copy(used_ledger[0], tmp_path / "copy")


@pytest.fixture
def key_ids(used_ledger: tuple[Path, list[str], list[str]]) -> list[str]:
    return used_ledger[1]


@pytest.fixture
def outside(used_ledger: tuple[Path, list[str], list[str]]) -> list[str]:
    return used_ledger[2]


def checked(place: Path, notes: list[str] | None = None) -> IntegrityReport:
    with closing_database(place) as database:
        return check_integrity(database, notes=notes or [], keys=[signing_key(place).verifier_key])


def named(report: IntegrityReport, about: About) -> list[str]:
    return [finding.name for finding in report.findings if finding.about == about]


def edit(place: Path, row: str, column: str, change: Callable[..., object]) -> None:
    """Change a value of a row, named as in ``events id = 3``."""
    table, key, _, at = row.split()
    ((before,),) = sql(address_of(place), f"SELECT {column} FROM {table} WHERE {key} = ?", at)  # noqa: S608
    after = change(before)
    assert after != before
    sql(address_of(place), f"UPDATE {table} SET {column} = ? WHERE {key} = ?", after, at)  # noqa: S608


def flip(at: int) -> Callable[[bytes], bytes]:
    """Change one byte so that it stays a character."""
    return lambda value: value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]


@settings(max_examples=15, deadline=None)
@given(commands=steps)
@example(commands=[Step("create", 0, 5), *(Step("race", n, n) for n in range(7))])
def test_ordinary_commands_cause_no_findings(empty_ledger: Path, commands: list[Step]) -> None:
    with TemporaryDirectory() as folder:
        data_dir = fresh_copy(empty_ledger, Path(folder) / "data")
        clock = SettableClock(NOON)
        with keys_in(data_dir, clock=clock) as keys:
            history = History(keys, clock, [])
            half = len(commands) // 2
            history.play(commands[:half])
            keys.opened.signer.sign()
            history.play(commands[half:])
            keys.opened.signer.sign()
            report = check_integrity(
                keys.database,
                notes=notes_in(keys.opened.signer.path),
                keys=[keys.opened.signer.key.verifier_key],
            )
        assert report.findings == ()
        assert report.events == report.entries == count_events(keys.address)


class TestSoundLedgers:
    def test_it_reports_the_numbers_of_events_and_entries(
        self, place: Path, outside: list[str]
    ) -> None:
        report = checked(place, outside)
        assert report.findings == ()
        assert (report.found, report.not_listed) == (0, 0)
        assert (report.position, report.events, report.entries) == (10, 10, 10)
        assert (report.keys, report.checkpoints) == (5, 4)
        assert report.root is not None
        text, _, _ = outside[-1].partition("\n\n")
        assert Checkpoint.from_text(f"{text}\n").root == report.root

    def test_an_empty_ledger_is_sound(self, empty_ledger: Path, tmp_path: Path) -> None:
        report = checked(fresh_copy(empty_ledger, tmp_path / "copy"))
        assert (report.found, report.events, report.checkpoints) == (0, 0, 0)

    def test_it_leaves_nothing_behind(self, place: Path) -> None:
        before = tables_of(address_of(place))
        checked(place)
        assert tables_of(address_of(place)) == before

    def test_concurrent_changes_are_not_findings(self, keys: Keys) -> None:
        live_a_little(keys)
        writes = 0

        def write_on() -> None:
            nonlocal writes
            writes += 1
            # It would fail if the report held a transaction while it pauses.
            keys.rename(keys.create().key_id, "meanwhile")

        report = check_integrity(keys.database, notes=[], keys=[], pause=write_on)
        assert report.findings == ()
        assert writes >= 5
        assert report.events == 9
        assert count_events(keys.address) == 9 + 2 * writes

    def test_a_pause_can_abort_the_check(self, keys: Keys) -> None:
        live_a_little(keys)

        def stop() -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            check_integrity(keys.database, notes=[], keys=[], pause=stop)
        assert check_integrity(keys.database, notes=[], keys=[]).found == 0


class TestForks:
    def test_a_forked_ledger_is_sound_by_its_new_key(self, place: Path, outside: list[str]) -> None:
        """What was signed before no longer fits, and nobody says that it does."""
        rewrite(address_of(place), "events", "state", lambda old: old.replace(b"fifth", b"sixth"))
        seal_events(place)
        make_views_anew(place)
        with keys_in(place) as keys:
            fork_log(keys)
            keys.create("after it")
            keys.opened.signer.sign()
            new = list(notes_in(keys.opened.signer.path))
        report = checked(place, new)
        assert (report.findings, report.entries, report.keys) == ((), 12, 6)
        assert report.checkpoints == 2
        assert checked(place, [*outside, *new]).found == 2


class TestEvents:
    @pytest.mark.parametrize("position", range(1, 11))
    def test_no_byte_of_a_state_can_be_changed(self, place: Path, position: int) -> None:
        ((state,),) = sql(address_of(place), "SELECT state FROM events WHERE id = ?", position)
        with closing_database(place) as database:
            # Every third byte of each event, each another third.
            for at in range(position % 3, len(state), 3):
                with database.write() as connection:
                    connection.execute(
                        update(events).where(events.c.id == position).values(state=flip(at)(state))
                    )
                findings = Findings()
                with database.read() as connection:
                    extent = extent_of(connection)
                LogCheck(database, findings).run(extent, lambda _done, _last: None)
                assert findings.names_position(position), state[at:]

    @pytest.mark.parametrize(
        ("column", "change"),
        [
            ("id", lambda _: 77),
            ("id", lambda _: -1),
            pytest.param("originator_id", flip(0), marks=ON_SQLITE),
            pytest.param("originator_id", lambda _: "0123456789abcdef", marks=ON_SQLITE),
            pytest.param("originator_id", lambda _: UUID(int=7), marks=ON_POSTGRESQL),
            ("originator_version", lambda version: version + 1),
            ("topic", lambda _: "ApiKey.Renamed"),
            ("topic", lambda _: "ApiKey.Unheard"),
            ("state", lambda state: state.replace(b"T12:", b" 12:")),
            ("state", lambda state: state + b" "),
            pytest.param("state", lambda state: state.decode(), marks=ON_SQLITE),
            ("state", lambda _: b"{}"),
        ],
    )
    def test_no_column_can_be_changed(
        self, place: Path, column: str, change: Callable[..., object]
    ) -> None:
        edit(place, "events id = 8", column, change)
        report = checked(place)
        assert {each.position for each in report.findings} & {8, 77, -1}

    @pytest.mark.only_on("sqlite")
    @pytest.mark.parametrize("column", ["originator_id", "topic", "state"])
    def test_text_that_is_not_utf_8_is_named(self, place: Path, column: str) -> None:
        text = f"UPDATE events SET {column} = CAST({column} || x'ff' AS TEXT) WHERE id = 8"  # noqa: S608
        sql(address_of(place), text)
        assert 8 in {each.position for each in checked(place).findings}

    @pytest.mark.only_on("sqlite")
    def test_keys_that_are_named_by_texts_alone_are_found(self, place: Path) -> None:
        sql(address_of(place), "UPDATE events SET originator_id = hex(originator_id)")
        report = checked(place)
        assert {each.position for each in report.findings} >= set(range(1, 11))

    def test_a_finding_names_the_event_and_the_remedy(self, place: Path) -> None:
        edit(place, "events id = 3", "state", lambda state: state.replace(b"renamed", b"changed"))
        seal, finding, *_ = checked(place).findings
        assert (seal.about, seal.position) == ("event", 3)
        assert (finding.about, finding.leaf_index, finding.position) == ("entry", 2, 3)
        assert "differs from the event at position 3" in finding.wrong
        assert "keep a copy of the database as evidence" in finding.remedy

    def test_one_deleted_in_the_middle_leaves_its_entry(self, place: Path) -> None:
        sql(address_of(place), "DELETE FROM events WHERE id = 4")
        report = checked(place)
        assert "entry 3" in named(report, "entry")
        assert "its event, at position 4, is missing" in report.findings[0].wrong

    def test_one_deleted_with_its_entry_leaves_a_gap(self, place: Path) -> None:
        sql(address_of(place), "DELETE FROM events WHERE id = 4")
        sql(address_of(place), "DELETE FROM entries WHERE position = 4")
        report = checked(place)
        assert report.findings[0].name == "entry 4"
        assert report.findings[0].wrong == "entries 3 to 3 are missing before it"
        assert report.root is None

    def test_deleted_last_events_are_missed_by_their_entries(self, place: Path) -> None:
        sql(address_of(place), "DELETE FROM events WHERE id > 7")
        assert named(checked(place), "entry")[:3] == ["entry 7", "entry 8", "entry 9"]

    def test_last_events_deleted_everywhere_are_missed_by_checkpoints(self, place: Path) -> None:
        delete_tail_everywhere(place, after=8)
        report = checked(place)
        assert named(report, "checkpoint") == ["the database's checkpoint at 9 entries"]
        assert "entries 8 to 8 are missing" in report.findings[0].wrong

    def test_everything_deleted_is_missed_by_a_checkpoint_outside(
        self, place: Path, outside: list[str]
    ) -> None:
        for table in ("events", "checkpoints", *(view.name for view in VIEWS)):
            sql(address_of(place), f"DELETE FROM {table}")  # noqa: S608 - names from here
        report = checked(place, outside)
        assert named(report, "checkpoint")[0] == "checkpoint 1 kept outside"
        assert "there are 0" in report.findings[0].wrong
        # Nothing else can know that there was anything.
        assert checked(place).found == 0

    def test_two_swapped_events_are_both_named(self, place: Path) -> None:
        sql(address_of(place), "UPDATE events SET id = -id WHERE id IN (3, 8)")
        sql(address_of(place), "UPDATE events SET id = 11 + id WHERE id < 0")
        report = checked(place)
        assert {"entry 2", "entry 7"} <= set(named(report, "entry"))

    def test_an_inserted_event_has_no_entry(self, place: Path) -> None:
        sql(
            address_of(place),
            "INSERT INTO events (originator_id, originator_version, topic, state)"
            " SELECT originator_id, 9, topic, state FROM events WHERE id = 3",
        )
        report = checked(place)
        assert named(report, "event")[0] == "the event at position 11"
        assert report.findings[0].wrong == "it has no entry in the log"

    def test_a_replaced_verifier_is_found_in_event_and_lookup(
        self, place: Path, key_ids: list[str]
    ) -> None:
        planted = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA"
        change = with_field("verifier", planted)
        rewrite(address_of(place), "events", "state", change, where="id = 2")
        sql(address_of(place), "UPDATE auth_lookup SET verifier = ? WHERE position = 1", planted)
        # As somebody writes it who has the pepper, too.
        seal_events(place)
        report = checked(place)
        assert "entry 1" in named(report, "entry")
        assert f"the row of {key_ids[0]} in auth_lookup" in named(report, "projection")
        assert "argon2" not in str(report)

    def test_an_event_that_the_rules_forbid_is_found_though_all_else_agrees(
        self, place: Path, key_ids: list[str]
    ) -> None:
        """Appended with its entry, as only who can write past the ledger could do it."""
        sql(
            address_of(place),
            "INSERT INTO events (originator_id, originator_version, topic, state)"
            " SELECT originator_id, originator_version + 2, topic, state FROM events"
            " WHERE topic = 'ApiKey.Revoked'",
        )
        seal_events(place)
        make_views_anew(place)
        report = checked(place)
        assert [each.key_id for each in report.findings] == [key_ids[0]]
        assert "comes after version" in report.findings[0].wrong

    def test_versions_recorded_in_another_order_are_found(
        self, place: Path, key_ids: list[str]
    ) -> None:
        sql(address_of(place), "UPDATE events SET id = -id WHERE id IN (3, 4)")
        sql(address_of(place), "UPDATE events SET id = 7 + id WHERE id < 0")
        seal_events(place)
        make_views_anew(place)
        lives = [each for each in checked(place).findings if each.about == "key"]
        assert [each.key_id for each in lives] == [key_ids[0]]
        assert "recorded before the preceding version" in lives[0].wrong

    def test_half_a_rotation_is_found(self, place: Path) -> None:
        ((position,),) = sql(
            address_of(place), "SELECT id FROM events WHERE topic = 'ApiKey.Rotated'"
        )
        sql(address_of(place), "DELETE FROM events WHERE id = ?", position)
        seal_events(place)
        make_views_anew(place)
        report = checked(place)
        assert any("only one of its two events" in each.wrong for each in report.findings)

    def test_findings_beyond_the_limit_are_only_counted(self, keys: Keys) -> None:
        for number in range(MAX_FINDINGS + 5):
            keys.create(f"{number}")
        rewrite(keys.address, "entries", "entry", lambda line: line + b" ")
        report = check_integrity(keys.database, notes=[], keys=[])
        assert len(report.findings) == MAX_FINDINGS
        assert report.not_listed == 5
        assert report.found == MAX_FINDINGS + 5


class TestEntries:
    def test_an_edited_entry_is_distinguished_from_an_edited_event(self, place: Path) -> None:
        edit(place, "entries leaf_index = 2", "entry", flip(40))
        (finding,) = checked(place).findings
        assert (finding.name, finding.position) == ("entry 2", 3)
        assert "the entry was changed" in finding.wrong
        assert finding.remedy.endswith("keyledger projections rebuild entries")

    def test_an_entry_edited_with_its_hash_is_found(self, place: Path) -> None:
        ((entry, hashes),) = sql(
            address_of(place), "SELECT entry, hashes FROM entries WHERE leaf_index = 4"
        )
        forged = entry.replace(b'"version":2', b'"version":3')
        sql(
            address_of(place),
            "UPDATE entries SET entry = ?, hashes = ? WHERE leaf_index = 4",
            forged,
            leaf_hash(forged) + hashes[32:],
        )
        report = checked(place)
        assert report.findings[0].name == "entry 4"
        assert "together with its hash" in report.findings[0].wrong

    @pytest.mark.parametrize("at", [0, 31, 32, 95])
    def test_an_edited_hash_is_found(self, place: Path, at: int) -> None:
        # With leaf 7 are stored the hashes of four nodes.
        edit(place, "entries leaf_index = 7", "hashes", flip(at))
        first, *_ = checked(place).findings
        assert first.name == "entry 7"
        assert "what the preceding entries give" in first.wrong

    @pytest.mark.parametrize("column", ["type", "key_id", "workspace", "actor_id", "occurred_at"])
    def test_an_edited_column_is_found(self, place: Path, column: str) -> None:
        edit(place, "entries leaf_index = 5", column, lambda value: f"{value[:-1]}~")
        (finding,) = checked(place).findings
        assert finding.about == "projection"
        assert finding.name.endswith(" in entries")
        assert column in finding.wrong

    def test_a_deleted_entry_is_missed_by_its_event(self, place: Path) -> None:
        sql(address_of(place), "DELETE FROM entries WHERE leaf_index = 6")
        report = checked(place)
        assert "the event at position 7" in named(report, "event")

    def test_swapped_entries_are_found(self, place: Path) -> None:
        sql(
            address_of(place),
            "UPDATE entries SET leaf_index = -1 - leaf_index WHERE leaf_index IN (2, 6)",
        )
        sql(
            address_of(place), "UPDATE entries SET leaf_index = 9 + leaf_index WHERE leaf_index < 0"
        )
        assert {"entry 2", "entry 6"} <= set(named(checked(place), "entry"))


class TestProjections:
    def test_an_unrevoked_key_is_named(self, place: Path, key_ids: list[str]) -> None:
        sql(address_of(place), "UPDATE auth_lookup SET revoked = '0'")
        (finding,) = checked(place).findings
        assert (finding.about, finding.key_id) == ("projection", key_ids[0])
        assert finding.name == f"the row of {key_ids[0]} in auth_lookup"
        assert finding.wrong == "revoked is False and should be True"
        assert finding.remedy.endswith("keyledger projections rebuild auth_lookup")

    def test_a_forged_auth_row_is_named(self, place: Path) -> None:
        planted = f"apikey_{'0' * 8}-0000-4000-8000-{'0' * 12}"
        named_so = {"position": 99, "key_id": planted, "lookup_id": "0" * 16}
        plant_row(address_of(place), "auth_lookup", **named_so)
        (finding,) = checked(place).findings
        assert (finding.key_id, finding.wrong) == (planted, "no event explains it")


class TestCheckpoints:
    @pytest.mark.only_on("sqlite")
    def test_an_older_database_file_is_found_by_a_newer_checkpoint(
        self, used_ledger: tuple[Path, list[str], list[str]], tmp_path: Path
    ) -> None:
        data_dir = fresh_copy(used_ledger[0], tmp_path / "copy")
        yesterday = database_file(data_dir).read_bytes()
        with keys_in(data_dir) as keys:
            keys.create("today")
            today = signed(keys)
        for rest in data_dir.glob("*-wal"):
            rest.unlink()
        database_file(data_dir).write_bytes(yesterday)
        report = checked(data_dir, [today])
        assert named(report, "checkpoint") == ["checkpoint 1 kept outside"]
        assert "covers 11 entries, but there are 10" in report.findings[0].wrong
        assert checked(data_dir).found == 0

    def test_only_outside_checkpoints_reveal_a_completely_rewritten_log(
        self, place: Path, outside: list[str]
    ) -> None:
        """By somebody who can write to the database and has the signing key."""
        rewrite(address_of(place), "events", "state", lambda old: old.replace(b"leaked", b"normal"))
        seal_events(place)
        make_views_anew(place)
        sql(address_of(place), "DELETE FROM checkpoints")
        signed_by(place, signing_key(place), keep=True)
        assert checked(place).found == 0
        report = checked(place, outside)
        first, others = named(report, "checkpoint")
        assert first == "checkpoint 1 kept outside"
        assert others == "1 other checkpoint after the first one that does not match the log"
        assert "at least one of the entries 0 to 8 was changed or moved" in report.findings[0].wrong

    def test_checkpoints_in_the_database_reveal_a_log_rewritten_without_the_key(
        self, place: Path
    ) -> None:
        rewrite(address_of(place), "events", "state", lambda old: old.replace(b"fifth", b"sixth"))
        seal_events(place)
        make_views_anew(place)
        report = checked(place)
        assert named(report, "checkpoint") == ["the database's checkpoint at 10 entries"]
        assert "at least one of the entries 9 to 9 was changed" in report.findings[0].wrong

    def test_a_changed_note_is_found(self, place: Path) -> None:
        sql(
            address_of(place),
            "UPDATE checkpoints SET note = replace(note, 'keyledger', 'keybadger')",
        )
        report = checked(place)
        assert len(named(report, "checkpoint")) == 2

    def test_a_note_under_another_size_is_found(self, place: Path) -> None:
        sql(address_of(place), "UPDATE checkpoints SET size = 3 WHERE size = 9")
        (finding,) = checked(place).findings
        assert finding.name == "the database's checkpoint at 3 entries"
        assert finding.wrong == f"its note says {signing_key(place).name} at 9 entries"

    def test_a_note_signed_with_another_key_is_found(self, place: Path) -> None:
        another = SigningKey(signing_key(place).name, bytes(32))
        note = signed_by(place, another, keep=False)
        (finding,) = checked(place, [note]).findings
        assert finding.name == "checkpoint 1 kept outside"
        assert "is signed by" in finding.wrong

    @pytest.mark.only_on("sqlite")
    def test_a_note_that_is_not_text_is_found(self, place: Path) -> None:
        text = "UPDATE checkpoints SET note = CAST(note || x'ff' AS TEXT) WHERE size = 9"
        sql(address_of(place), text)
        assert named(checked(place), "checkpoint") == ["the database's checkpoint at 9 entries"]

    def test_a_malformed_note_is_found(self, place: Path) -> None:
        assert named(checked(place, ["nonsense"]), "checkpoint") == ["checkpoint 1 kept outside"]


def delete_tail_everywhere(place: Path, *, after: int) -> None:
    for table, column in (
        ("events", "id"),
        ("entries", "position"),
        ("key_list", "position"),
        ("auth_lookup", "position"),
    ):
        sql(address_of(place), f"DELETE FROM {table} WHERE {column} > ?", after)  # noqa: S608 - from here
    sql(address_of(place), "UPDATE projection_states SET position = ?", after)
    sql(address_of(place), "DELETE FROM checkpoints WHERE size > 9")


def make_views_anew(place: Path) -> None:
    with closing_database(place) as database:
        for view in VIEWS:
            rebuild(database, view, clock=lambda: NOON)


def fork_log(keys: Keys) -> None:
    fork(
        keys.database,
        VIEWS,
        keys.opened.signer,
        key_path=keys.opened.settings.signing_key_path,
        random=token_bytes,
        reason="the log that was signed is lost",
        by=ADA,
        at=keys.now,
    )
