"""The signer signs what is committed, once, first to the file and then to the database."""

import os
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from api.composition import opened_ledger
from api.settings import read_settings
from domain.caller import Actor, Caller
from domain.errors import LedgerUnavailable
from domain.verifiers import CHEAPEST
from projections.audit_log.signer import Signer
from projections.rebuild.rebuild import rebuild
from projections.store.locks import task_lock
from projections.views.registry import VIEWS
from tests.conftest import NOON, SettableClock
from tests.engines import address_of, fresh_copy
from tests.projections.audit_log.signed_logs import (
    check_what_was_signed,
    entries_of,
    said_in_file,
    said_in_table,
    signing_key,
    tree_hash,
)
from tests.projections.ledgers import Keys, keys_in
from tests.projections.processes import (
    die_at_statement,
    die_at_system_call,
    die_when_a_file_reaches,
    run_until_killed,
    start,
)
from tests.raw_sql import sql


@pytest.fixture
def signer(keys: Keys) -> Signer:
    return keys.opened.signer


def sizes_in_file(data_dir: Path) -> list[int]:
    return [said.size for said in said_in_file(data_dir)]


class TestSigning:
    def test_an_empty_log_is_not_signed(self, signer: Signer, data_dir: Path) -> None:
        assert signer.sign() is None
        assert not (data_dir / "checkpoints.txt").exists()

    def test_each_says_size_and_root_and_an_auditor_can_verify_it(
        self, keys: Keys, signer: Signer, data_dir: Path
    ) -> None:
        for number in range(1, 9):
            keys.create()
            checkpoint = signer.sign()
            assert checkpoint is not None
            assert checkpoint.origin == signing_key(data_dir).name == signer.key.name
            assert (checkpoint.size, checkpoint.root) == (number, tree_hash(entries_of(data_dir)))
        assert [said.size for said in check_what_was_signed(data_dir)] == [*range(1, 9)]
        assert said_in_table(data_dir) == said_in_file(data_dir)

    def test_only_what_is_new_is_signed(self, keys: Keys, signer: Signer, data_dir: Path) -> None:
        keys.create()
        keys.create()
        assert signer.sign() is not None
        before = (data_dir / "checkpoints.txt").read_bytes()
        assert signer.sign() is None
        assert (data_dir / "checkpoints.txt").read_bytes() == before
        assert sizes_in_file(data_dir) == [2]

    def test_a_rebuild_from_the_events_gives_the_same_log(
        self, keys: Keys, signer: Signer, data_dir: Path
    ) -> None:
        made = keys.create()
        signer.sign()
        keys.revoke(made.key_id)
        for view in VIEWS:
            rebuild(keys.database, view, clock=lambda: NOON)
        assert signer.sign() is not None
        assert [said.size for said in check_what_was_signed(data_dir)] == [1, 2]

    def test_uncommitted_entries_are_not_signed(
        self, keys: Keys, signer: Signer, data_dir: Path
    ) -> None:
        keys.create()
        with keys.database.writer.begin() as connection:
            connection.exec_driver_sql(
                "INSERT INTO entries SELECT 1, 99, hashes, entry, type, key_id, workspace,"
                " actor_type, actor_id, occurred_at FROM entries"
            )
            status = signer.check_log()
            assert status.now.size == 1
            connection.rollback()
        signer.sign()
        assert sizes_in_file(data_dir) == [1]

    def test_one_process_signs_at_a_time_and_the_others_compare(
        self, keys: Keys, signer: Signer, data_dir: Path
    ) -> None:
        keys.create()
        with task_lock(keys.database, "signing") as alone:
            assert alone
            assert signer.sign() is None
            assert not (data_dir / "checkpoints.txt").exists()
        assert signer.sign() is not None

    def test_the_file_can_be_elsewhere(
        self, keys: Keys, clock: SettableClock, tmp_path: Path
    ) -> None:
        elsewhere = tmp_path / "another volume.txt"
        keys.create()
        Signer(keys.database, keys.opened.signer.key, elsewhere, clock).sign()
        assert [said.size for said in said_in_file(keys.data_dir, elsewhere)] == [1]


def sign_often(data_dir: Path, number: int) -> int:
    with keys_in(data_dir) as keys:
        return sum(keys.opened.signer.sign() is not None for _ in range(number))


def create_often(data_dir: Path, number: int) -> int:
    with keys_in(data_dir) as keys:
        for each in range(number):
            keys.create(f"key {each}", by=Caller(Actor("cli", str(os.getpid())), holds=("*",)))
    return number


def test_many_that_sign_and_append_at_once_never_contradict_each_other(
    empty_ledger: Path, data_dir: Path
) -> None:
    fresh_copy(empty_ledger, data_dir)
    works = [(create_often, 25), (create_often, 25), *[(sign_often, 40)] * 3]
    running = [start(function, data_dir, number) for function, number in works]
    done = []
    for each in running:
        with each:
            done.append(each.result())
    signed = check_what_was_signed(data_dir)
    assert sum(done[2:]) == len(signed) > 1
    assert sign_often(data_dir, 1) == (signed[-1].size < 50)
    assert check_what_was_signed(data_dir)[-1].size == 50


def before_statement(number: int) -> Callable[[], None]:
    return die_at_statement(number, when="before_cursor_execute")


def after_statement(number: int) -> Callable[[], None]:
    return die_at_statement(number, when="after_cursor_execute")


def sign_until(data_dir: Path, die: Callable[[int], Callable[[], None]], number: int) -> None:
    with keys_in(data_dir) as keys:
        spare = die(number)
        keys.opened.signer.sign()
        spare()


def sign_until_a_file_reaches(data_dir: Path, size: int) -> None:
    with keys_in(data_dir) as keys:
        die_when_a_file_reaches(size)
        keys.opened.signer.sign()


class TestKilled:
    """After a kill between any two steps, nothing signed is lost, in doubt or contradicted."""

    @pytest.fixture
    def signed_once(self, empty_ledger: Path, tmp_path: Path) -> Path:
        """A ledger with a checkpoint and further entries."""
        data_dir = fresh_copy(empty_ledger, tmp_path / "signed once")
        with keys_in(data_dir) as keys:
            keys.create()
            keys.opened.signer.sign()
            keys.create()
        return data_dir

    def killed(
        self, signed_once: Path, data_dir: Path, die: Callable[[int], Callable[[], None]]
    ) -> Iterator[tuple[list[int], list[int]]]:
        """Kill signing at each step; yield the sizes signed in file and table at that moment."""
        for number in count(1):
            fresh_copy(signed_once, data_dir)
            if not run_until_killed(sign_until, data_dir, die, number):
                break
            in_file = [said.size for said in check_what_was_signed(data_dir)]
            yield in_file, [said.size for said in said_in_table(data_dir)]
            with keys_in(data_dir) as keys:
                keys.opened.signer.sign()
                assert keys.opened.signer.doubt is None
                keys.create()
                keys.opened.signer.sign()
            assert [said.size for said in check_what_was_signed(data_dir)] == [1, 2, 3]
            assert said_in_table(data_dir) == said_in_file(data_dir)

    def test_at_each_system_call(self, signed_once: Path, data_dir: Path) -> None:
        found = list(self.killed(signed_once, data_dir, die_at_system_call))
        assert ([1], [1]) in found
        assert ([1, 2], [1]) in found

    @pytest.mark.parametrize("die", [before_statement, after_statement])
    def test_at_each_statement(
        self, signed_once: Path, data_dir: Path, die: Callable[[int], Callable[[], None]]
    ) -> None:
        found = list(self.killed(signed_once, data_dir, die))
        assert ([1, 2], [1]) in found

    def test_a_crash_after_any_number_of_bytes_of_a_note_is_recovered(
        self, signed_once: Path, data_dir: Path
    ) -> None:
        size = (signed_once / "checkpoints.txt").stat().st_size
        for written in (0, 1, 30, 31, 32, 100, size - 2, size - 1):
            fresh_copy(signed_once, data_dir)
            assert run_until_killed(sign_until_a_file_reaches, data_dir, size + written)
            assert (data_dir / "checkpoints.txt").stat().st_size == size + written
            assert [said.size for said in check_what_was_signed(data_dir)] == [1]
            assert sign_often(data_dir, 2) == 1
            assert [said.size for said in check_what_was_signed(data_dir)] == [1, 2]


class TestFileThatCannotBeWritten:
    def test_an_empty_table_is_not_reported_and_changes_continue(
        self, keys: Keys, clock: SettableClock, tmp_path: Path, data_dir: Path
    ) -> None:
        signer = Signer(
            keys.database, keys.opened.signer.key, tmp_path / "not mounted" / "notes", clock
        )
        keys.create()
        with pytest.raises(LedgerUnavailable, match="cannot write the checkpoint file: "):
            signer.sign()
        assert said_in_table(data_dir) == []
        signer.check_append()
        (tmp_path / "not mounted").mkdir()
        assert signer.sign() is not None
        assert [said.size for said in said_in_table(data_dir)] == [1]

    def test_a_file_that_is_not_a_checkpoint_file_is_left_unchanged(
        self, keys: Keys, signer: Signer
    ) -> None:
        keys.create()
        signer.path.write_text("PATH=/usr/bin\n")
        with pytest.raises(LedgerUnavailable, match="does not end with a checkpoint: b'PATH="):
            signer.sign()
        assert signer.path.read_text() == "PATH=/usr/bin\n"


def test_a_note_missing_in_the_table_is_added(keys: Keys, data_dir: Path) -> None:
    signer = keys.opened.signer
    keys.create()
    signer.sign()
    sql(address_of(data_dir), "DELETE FROM checkpoints")
    keys.create()
    signer.sign()
    assert [said.size for said in said_in_table(data_dir)] == [1, 2]
    assert said_in_table(data_dir) == said_in_file(data_dir)


def test_it_is_a_setting_where_key_and_checkpoints_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: SettableClock
) -> None:
    monkeypatch.setenv("KEYLEDGER_SIGNING_KEY", str(tmp_path / "the key"))
    monkeypatch.setenv("KEYLEDGER_CHECKPOINT_FILE", str(tmp_path / "the notes"))
    settings = read_settings(data_dir=tmp_path / "data")
    with opened_ledger(settings, clock=clock, argon2_profile=CHEAPEST) as opened:
        Keys(opened).create()
        opened.signer.sign()
    assert (tmp_path / "the key").read_text().startswith("PRIVATE+KEY+keyledger/")
    assert (tmp_path / "the notes").read_text().startswith("keyledger/")
    assert {file.name for file in settings.data_dir.iterdir()}.isdisjoint(
        {"signing-key", "checkpoints.txt"}
    )
