"""A log that is not the signed one cannot be changed, and can still be read."""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from secrets import token_bytes

import pytest

from domain.errors import HistoryInDoubt
from domain.key_ledger import Changes
from domain.verdict import Code
from projections.audit_log.checkpoint_file import notes_in
from projections.queries.filters import Filters
from projections.queries.keys_now import list_keys
from projections.rebuild.rebuild import check, rebuild
from projections.store.locks import task_lock
from projections.store.sqlite_driver import driver as sqlite3
from projections.views.registry import VIEWS
from tests.conftest import NOON
from tests.engines import Engine, address_of, database_file, empty_database, fresh_copy
from tests.projections.audit_log.signed_logs import check_what_was_signed, said_in_file
from tests.projections.ledgers import Keys, Made, keys_in
from tests.raw_sql import lose_events, sql

SIGNED = [2, 5, 7]
"""Sizes of the log with signed checkpoints; the log has one more entry."""


@pytest.fixture(scope="module")
def signed(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Made]:
    """The folder of a ledger with signed checkpoints, and its first key."""
    data_dir = engine.new_place(tmp_path_factory.mktemp("signed") / "keyledger-data")
    with keys_in(data_dir) as keys:
        first = keys.create("first")
        for size in range(2, SIGNED[-1] + 2):
            keys.create(f"key {size}")
            if size in SIGNED:
                keys.opened.signer.sign()
    return data_dir, first


@pytest.fixture
def data_dir(signed: tuple[Path, Made], data_dir: Path) -> Path:
    """A copy of that ledger, for one test."""
    return fresh_copy(signed[0], data_dir)


@pytest.fixture
def first(signed: tuple[Path, Made]) -> Made:
    return signed[1]


def in_database(statement: str) -> Callable[[Path], None]:
    def damage(data_dir: Path) -> None:
        sql(address_of(data_dir), statement)

    return damage


def with_other_hashes(leaf_index: int, length: int) -> Callable[[Path], None]:
    def damage(data_dir: Path) -> None:
        statement = "UPDATE entries SET hashes = ? WHERE leaf_index = ?"
        sql(address_of(data_dir), statement, token_bytes(length), leaf_index)

    return damage


def lost_after(position: int) -> Callable[[Path], None]:
    def damage(data_dir: Path) -> None:
        lose_events(data_dir, after=position)

    return damage


def without_file(data_dir: Path) -> None:
    (data_dir / "checkpoints.txt").unlink()


def emptied_file(data_dir: Path) -> None:
    (data_dir / "checkpoints.txt").write_bytes(b"")


def older_file(data_dir: Path) -> None:
    file = data_dir / "checkpoints.txt"
    file.write_text("".join(f"{said.note}\n" for said in said_in_file(data_dir)[:-1]))


def file_of_another(data_dir: Path) -> None:
    with keys_in(data_dir.with_name("another")) as keys:
        keys.create()
        keys.opened.signer.sign()
    shutil.copy(data_dir.with_name("another") / "checkpoints.txt", data_dir)


def unreadable_file(data_dir: Path) -> None:
    (data_dir / "checkpoints.txt").unlink()
    (data_dir / "checkpoints.txt").mkdir()


def overwritten_file(data_dir: Path) -> None:
    (data_dir / "checkpoints.txt").write_bytes(b"x" * 100_000)


def without_key(data_dir: Path) -> None:
    (data_dir / "signing-key").unlink()


def without_key_and_file(data_dir: Path) -> None:
    without_key(data_dir)
    without_file(data_dir)


def without_database(data_dir: Path) -> None:
    empty_database(data_dir)


def rewritten(data_dir: Path) -> None:
    """Rewrite the history from the third key on, as the ledger's owner could."""
    lose_events(data_dir, after=2)
    sql(address_of(data_dir), "DELETE FROM checkpoints")
    aside = data_dir / "checkpoints.txt"
    content = aside.read_bytes()
    aside.unlink()
    with keys_in(data_dir) as keys:
        for number in range(7):
            keys.create(f"another {number}")
        for view in VIEWS:
            assert check(keys.database, view).differing == 0
    aside.write_bytes(content)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "the last entries were deleted": (
        lost_after(4),
        "the log has 4 entries, but 7 were signed: entry 4 and all after it are missing",
    ),
    "all entries were deleted": (
        lost_after(0),
        "the log has 0 entries, but 7 were signed: entry 0 and all after it are missing",
    ),
    "the database was deleted": (
        without_database,
        "the log has 0 entries, but 7 were signed: entry 0 and all after it are missing",
    ),
    "the hashes of an entry were exchanged": (
        with_other_hashes(5, 64),
        "the log does not match its signed checkpoints: one of the entries 5 to 6 was changed",
    ),
    "the hash of a signed subtree was exchanged": (
        with_other_hashes(3, 96),
        "the log does not match its signed checkpoints: one of the entries 2 to 4 was changed",
    ),
    "an entry is missing in the middle": (
        in_database("DELETE FROM entries WHERE leaf_index = 3"),
        "the log does not match its signed checkpoints: one of the entries 2 to 4 was changed",
    ),
    "an entry that is not signed yet is damaged": (
        in_database("UPDATE entries SET hashes = x'00' WHERE leaf_index = 7"),
        "entry 7 is missing from the tree, or damaged",
    ),
    "the history was written anew": (
        rewritten,
        "the log does not match its signed checkpoints: one of the entries 2 to 4 was changed",
    ),
    "the checkpoint file is gone": (
        without_file,
        "7 entries were signed, but the checkpoint file is missing or empty",
    ),
    "the checkpoint file is empty": (
        emptied_file,
        "7 entries were signed, but the checkpoint file is missing or empty",
    ),
    "the checkpoint file is an older one": (
        older_file,
        "7 entries were signed, but the checkpoint file ends at 5",
    ),
    "the checkpoint file is another ledger's": (
        file_of_another,
        "the last checkpoint outside was not signed by the key of keyledger/",
    ),
    "the checkpoint file cannot be read": (
        unreadable_file,
        "the checkpoint file cannot be read",
    ),
    "the checkpoint file was overwritten": (
        overwritten_file,
        "checkpoints.txt is not a checkpoint file",
    ),
    "the signing key is gone": (
        without_key,
        "the last checkpoint outside was not signed by the key of keyledger/",
    ),
    "the signing key and the checkpoints are gone": (
        without_key_and_file,
        "check that it is the right folder. If it is, restore both",
    ),
}

OF_ONE_MACHINE = pytest.mark.only_on("sqlite")
"""On a server, another machine may have signed what this file does not have."""

OUTSIDE_ALONE = {
    "the checkpoint file is gone",
    "the checkpoint file is empty",
    "the checkpoint file is an older one",
}

each_damage = pytest.mark.parametrize(
    ("damage", "said"),
    [
        pytest.param(*damage, id=name, marks=[OF_ONE_MACHINE] if name in OUTSIDE_ALONE else [])
        for name, damage in DAMAGES.items()
    ],
)


def changes(keys: Keys, made: Made) -> list[Callable[[], object]]:
    return [
        lambda: keys.create("new"),
        lambda: keys.revoke(made.key_id),
        lambda: keys.rotate(made.key_id),
        lambda: keys.update(made.key_id, Changes(name="renamed")),
    ]


def check_doubted(keys: Keys, said: str) -> None:
    before = sql(keys.address, "SELECT count(*) FROM events")
    with pytest.raises(HistoryInDoubt, match=re.escape(said)):
        keys.create("new")
    assert sql(keys.address, "SELECT count(*) FROM events") == before


@each_damage
def test_the_ledger_opens_and_changes_are_refused_with_reason_and_remedy(
    data_dir: Path, damage: Callable[[Path], None], said: str
) -> None:
    damage(data_dir)
    with keys_in(data_dir) as keys:
        doubt = str(keys.opened.signer.doubt)
        assert said in doubt
        assert "restore" in doubt or "make the file readable" in doubt
        assert str(data_dir) not in doubt
        check_doubted(keys, said)


def test_a_forged_checkpoint_is_quoted_only_briefly(data_dir: Path) -> None:
    without_key_and_file(data_dir)
    sql(address_of(data_dir), "UPDATE checkpoints SET note = ?", "x" * 100_000)
    with keys_in(data_dir) as keys:
        doubt = str(keys.opened.signer.doubt)
    assert "check that it is the right folder" in doubt
    assert len(doubt) < 1000


@each_damage
def test_nothing_is_signed(data_dir: Path, damage: Callable[[Path], None], said: str) -> None:
    damage(data_dir)
    file = data_dir / "checkpoints.txt"
    before = file.read_bytes() if file.is_file() else None
    with keys_in(data_dir) as keys:
        for _ in range(2):
            with pytest.raises(HistoryInDoubt) as caught:
                keys.opened.signer.sign()
            assert said in str(caught.value)
    assert (file.read_bytes() if file.is_file() else None) == before


@pytest.mark.parametrize(
    "damage",
    [
        in_database("DELETE FROM entries WHERE leaf_index > 3"),
        lost_after(4),
        pytest.param(without_file, marks=OF_ONE_MACHINE),
        without_key,
    ],
)
def test_every_change_is_refused_and_reading_and_verifying_go_on(
    first: Made, data_dir: Path, damage: Callable[[Path], None]
) -> None:
    damage(data_dir)
    with keys_in(data_dir) as keys:
        for change in changes(keys, first):
            with pytest.raises(HistoryInDoubt):
                change()
        assert keys.verify(first.token, "mcp:read") is Code.VALID
        assert keys.verify(first.token, "billing:refund") is Code.INSUFFICIENT_SCOPE
        assert keys.show(first.key_id).name == "first"
        with keys.database.read() as connection:
            listed = list_keys(connection, "default", Filters(), now=NOON, limit=100)
            assert "first" in [key.name for key in listed]


def test_revoking_a_revoked_key_changes_nothing(first: Made, data_dir: Path) -> None:
    with keys_in(data_dir) as keys:
        keys.revoke(first.key_id)
    without_file(data_dir)
    with keys_in(data_dir) as keys:
        keys.revoke(first.key_id)
        assert keys.verify(first.token) is Code.REVOKED


@pytest.mark.parametrize(
    "damage",
    [
        in_database("DELETE FROM entries WHERE leaf_index > 3"),
        in_database("DELETE FROM entries WHERE leaf_index = 3"),
        with_other_hashes(5, 64),
        in_database("UPDATE entries SET hashes = x'00' WHERE leaf_index = 7"),
    ],
)
def test_rebuilding_the_entries_ends_the_doubt_if_the_events_are_intact(
    first: Made, data_dir: Path, damage: Callable[[Path], None]
) -> None:
    damage(data_dir)
    with keys_in(data_dir) as keys:
        assert "keyledger projections rebuild entries" in str(keys.opened.signer.doubt)
        for view in VIEWS:
            rebuild(keys.database, view, clock=lambda: NOON)
        keys.opened.signer.check_log()
        keys.revoke(first.key_id)
        keys.opened.signer.sign()
    assert [said.size for said in check_what_was_signed(data_dir)] == [*SIGNED, 9]


@each_damage
def test_restoring_the_log_ends_the_doubt(
    first: Made,
    signed: tuple[Path, Made],
    data_dir: Path,
    damage: Callable[[Path], None],
    said: str,
) -> None:
    damage(data_dir)
    with keys_in(data_dir) as keys:
        check_doubted(keys, said)
    fresh_copy(signed[0], data_dir)
    with keys_in(data_dir) as keys:
        assert keys.opened.signer.doubt is None
        keys.revoke(first.key_id)
        keys.opened.signer.sign()
    assert [each.size for each in check_what_was_signed(data_dir)] == [*SIGNED, 9]


def restore_into(target: Path, backup: Path) -> None:
    """Restore a backup with SQLite's own means while others have the database open."""
    with closing(sqlite3.connect(backup)) as old, closing(sqlite3.connect(target)) as live:
        old.backup(live)


class TestRunning:
    """The database changes while a process has it open."""

    @pytest.fixture
    def backup(self, signed: tuple[Path, Made], tmp_path: Path) -> Path:
        """The database from when the ledger had fewer entries than are signed now."""
        place = fresh_copy(signed[0], tmp_path / "yesterday")
        with keys_in(place):
            lose_events(place, after=5)
            sql(address_of(place), "DELETE FROM checkpoints WHERE size > 5")
        return database_file(place)

    @pytest.mark.only_on("sqlite")
    def test_the_next_comparison_notices_an_older_database(
        self, first: Made, data_dir: Path, backup: Path, tmp_path: Path
    ) -> None:
        today = tmp_path / "today.sqlite3"
        with keys_in(data_dir) as keys:
            keys.opened.signer.sign()
            restore_into(today, keys.path)
            restore_into(keys.path, backup)

            with pytest.raises(HistoryInDoubt, match="has 5 entries, but 8 were signed: entry 5"):
                keys.opened.signer.sign()

            check_doubted(keys, "entry 5 and all after it are missing")
            assert keys.verify(first.token) is Code.VALID
            restore_into(keys.path, today)
            keys.opened.signer.sign()
            keys.revoke(first.key_id)

    @pytest.mark.only_on("sqlite")
    def test_so_is_a_file_that_was_put_in_its_place(self, first: Made, data_dir: Path) -> None:
        with keys_in(data_dir) as keys:
            aside = keys.path.rename(keys.path.with_name("aside"))
            shutil.copy(aside, keys.path)
            with pytest.raises(HistoryInDoubt, match="replaced while it was open"):
                keys.opened.signer.sign()
            check_doubted(keys, "replaced while it was open: restart")
            keys.path.unlink()
            with pytest.raises(HistoryInDoubt, match="replaced while it was open"):
                keys.opened.signer.sign()
            aside.rename(keys.path)
            keys.opened.signer.sign()
            keys.revoke(first.key_id)

    def test_a_signer_without_the_lock_notices_a_difference_too(self, data_dir: Path) -> None:
        with keys_in(data_dir) as keys:
            lost_after(4)(data_dir)
            with task_lock(keys.database, "signing") as alone:
                assert alone
                with pytest.raises(HistoryInDoubt):
                    keys.opened.signer.sign()
            check_doubted(keys, "entry 4 and all after it are missing")


def test_a_ledger_without_checkpoints_is_not_in_doubt(first: Made, data_dir: Path) -> None:
    without_file(data_dir)
    sql(address_of(data_dir), "DELETE FROM checkpoints")
    with keys_in(data_dir) as keys:
        keys.revoke(first.key_id)
        keys.opened.signer.sign()
    assert [said.size for said in check_what_was_signed(data_dir)] == [9]


def test_the_difference_is_searched_for_once(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file may have millions of notes, and the log is compared twice a second."""
    read: list[Path] = []

    def counted(path: Path) -> Iterator[str]:
        read.append(path)
        return notes_in(path)

    monkeypatch.setattr("projections.audit_log.divergence.notes_in", counted)
    with_other_hashes(5, 64)(data_dir)
    with keys_in(data_dir) as keys:
        for _ in range(3):
            with pytest.raises(HistoryInDoubt, match="entries 5 to 6 was changed"):
                keys.opened.signer.check_log()
    assert read == [data_dir / "checkpoints.txt"]


@pytest.mark.parametrize("junk", [b"\xff\n", b"junk\n" * 2_000])
def test_a_difference_is_reported_even_if_the_file_has_other_contents(
    data_dir: Path, junk: bytes
) -> None:
    file = data_dir / "checkpoints.txt"
    file.write_bytes(junk + file.read_bytes())
    with_other_hashes(5, 64)(data_dir)
    with keys_in(data_dir) as keys:
        check_doubted(keys, "the log does not match its signed checkpoints")
