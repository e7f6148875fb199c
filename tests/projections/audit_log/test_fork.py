"""A fork: the log continues under another name and key, and records this for ever."""

import json
from base64 import b64decode
from collections.abc import Callable
from itertools import count
from pathlib import Path
from secrets import token_bytes

import pytest

from domain.audit_log import Forked
from domain.caller import Caller
from domain.errors import HistoryInDoubt, Invalid, KeyNotFound, LedgerUnavailable
from domain.key_ids import to_key_id
from domain.key_ledger import Changes
from projections.audit_log.checkpoint_file import notes_in
from projections.audit_log.fork import fork
from projections.rebuild.rebuild import check, rebuild
from projections.store.locks import task_lock
from projections.views.registry import VIEWS
from tests.conftest import NOON
from tests.engines import Engine, address_of, database_file, fresh_copy
from tests.projections.audit_log.signed_logs import (
    check_what_was_signed,
    entries_of,
    said_in_file,
    signing_key,
)
from tests.projections.ledgers import ADA, Keys, keys_in
from tests.projections.processes import (
    die_at_statement,
    die_at_system_call,
    run_until_killed,
)
from tests.raw_sql import lose_events, rows_of, sql

WHY = "the disk of the 3rd was lost"


@pytest.fixture(scope="module")
def doubted(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a ledger of four entries, three of which are lost."""
    data_dir = engine.new_place(tmp_path_factory.mktemp("doubted") / "keyledger-data")
    with keys_in(data_dir) as keys:
        for size in range(1, 5):
            keys.create(f"key {size}")
            keys.opened.signer.sign()
        lose_events(data_dir, after=1)
    return data_dir


@pytest.fixture
def data_dir(doubted: Path, data_dir: Path) -> Path:
    """A copy of that ledger, for one test."""
    return fresh_copy(doubted, data_dir)


def forked(keys: Keys, *, reason: str = WHY, by: Caller = ADA) -> Forked:
    return fork(
        keys.database,
        VIEWS,
        keys.opened.signer,
        key_path=keys.opened.settings.signing_key_path,
        random=token_bytes,
        reason=reason,
        by=by,
        at=keys.now,
    )


def fork_and_sign(data_dir: Path) -> Forked:
    with keys_in(data_dir) as keys:
        event = forked(keys)
        keys.opened.signer.sign()
        return event


class TestFork:
    def test_changes_are_possible_again(self, data_dir: Path) -> None:
        with keys_in(data_dir) as keys:
            with pytest.raises(HistoryInDoubt):
                keys.create()
            forked(keys)
            keys.create()
            keys.opened.signer.sign()
        with keys_in(data_dir) as keys:
            keys.create()
            keys.opened.signer.sign()
        assert [said.size for said in check_what_was_signed(data_dir)] == [3, 4]

    def test_the_log_says_why_by_whom_and_what_was_signed_before(self, data_dir: Path) -> None:
        last = said_in_file(data_dir)[-1]
        old = signing_key(data_dir).name
        event = fork_and_sign(data_dir)
        told = json.loads(entries_of(data_dir)[-1])
        assert told == {
            "type": "AuditLog.Forked",
            "key_id": None,
            "version": 1,
            "occurred_at": "2026-03-03T12:00:00.000000Z",
            "actor": {"type": "cli", "id": "ada"},
            "request_id": None,
            "source_ip": None,
            "data": {
                "reason": WHY,
                "origin": signing_key(data_dir).name,
                "previous_origin": old,
                "previous_size": 4,
                "previous_root": last.root.hex(),
            },
        }
        assert event.origin != old

    def test_its_entry_is_of_the_root_workspace_and_of_no_key(self, data_dir: Path) -> None:
        fork_and_sign(data_dir)
        rows = sql(
            address_of(data_dir),
            "SELECT leaf_index, workspace, key_id, actor_id FROM entries WHERE type = ?",
            "AuditLog.Forked",
        )
        assert rows == [(1, "root", None, "ada")]

    def test_new_checkpoints_are_of_the_new_name_and_the_old_ones_stay(
        self, data_dir: Path
    ) -> None:
        key, notes = signing_key(data_dir), (data_dir / "checkpoints.txt").read_bytes()
        before = {file.name for file in data_dir.iterdir()}
        fork_and_sign(data_dir)
        new = signing_key(data_dir)
        assert new.name != key.name
        assert new.seed != key.seed
        (said,) = check_what_was_signed(data_dir)
        assert (said.size, said.note.split("\n")[0]) == (2, new.name)
        aside = f"before-{new.verifier_key.key_id.hex()}"
        assert (data_dir / f"checkpoints.txt.{aside}").read_bytes() == notes
        assert (data_dir / f"signing-key.{aside}").read_text() == f"{key.reveal()}\n"
        assert {file.name for file in data_dir.iterdir()} - before >= {
            f"checkpoints.txt.{aside}",
            f"signing-key.{aside}",
        }
        assert not (data_dir / "signing-key.new").exists()
        assert {file.stat().st_mode & 0o777 for file in data_dir.glob("signing-key*")} == {0o600}

    def test_a_signer_with_the_old_key_is_refused_until_restarted(self, data_dir: Path) -> None:
        sql(address_of(data_dir), "DELETE FROM checkpoints")
        with keys_in(data_dir) as old, keys_in(data_dir) as keys:
            forked(keys)
            # Before and after the first checkpoint under the new name.
            for _ in range(2):
                with pytest.raises(HistoryInDoubt, match="was forked and is now"):
                    old.opened.signer.sign()
                with pytest.raises(HistoryInDoubt, match="restart this server"):
                    old.create()
                keys.opened.signer.sign()
        with keys_in(data_dir) as new:
            new.create()
            new.opened.signer.sign()
        assert [said.size for said in check_what_was_signed(data_dir)] == [2, 3]

    def test_a_fork_can_be_forked_without_overwriting_older_files(self, data_dir: Path) -> None:
        kept: dict[str, bytes] = {}
        origins = [signing_key(data_dir).name]
        for _ in range(3):
            event = fork_and_sign(data_dir)
            assert event.previous_origin == origins[-1]
            origins.append(event.origin)
            found = {
                file.name: file.read_bytes() for file in data_dir.iterdir() if "before" in file.name
            }
            assert kept.items() <= found.items()
            assert len(found) == len(kept) + 2
            kept = found
        assert len(set(origins)) == 4

    def test_the_old_ledger_can_be_restored_after_a_fork(
        self, data_dir: Path, doubted: Path
    ) -> None:
        fork_and_sign(data_dir)
        with keys_in(fresh_copy(doubted, data_dir)) as keys:
            assert "entry 1 and all after it are missing" in str(keys.opened.signer.doubt)

    @pytest.mark.only_on("sqlite")
    def test_an_older_database_is_refused(self, data_dir: Path, doubted: Path) -> None:
        fork_and_sign(data_dir)
        for file in data_dir.glob("keyledger.sqlite3*"):
            file.unlink()
        fresh_copy(doubted, data_dir.with_name("old"))
        database_file(data_dir.with_name("old")).rename(database_file(data_dir))
        with keys_in(data_dir) as keys:
            doubt = str(keys.opened.signer.doubt)
            assert "has 1 entries, but 2 were signed: entry 1" in doubt

    @pytest.mark.parametrize(
        "content",
        [b"", b"x" * 9, b"x" * 100_000, b"a\n\n\xe2\x80\x94 b c\n\n", b"\xff\n\n\xff\n\n"],
    )
    def test_a_damaged_checkpoint_file_does_not_prevent_a_fork(
        self, data_dir: Path, content: bytes
    ) -> None:
        (data_dir / "checkpoints.txt").write_bytes(content)
        event = fork_and_sign(data_dir)
        assert (event.previous_size, event.previous_root) == (4, said_before(data_dir))
        assert [said.size for said in check_what_was_signed(data_dir)] == [2]

    def test_a_fork_of_a_ledger_without_checkpoints_says_so(self, data_dir: Path) -> None:
        sql(address_of(data_dir), "DELETE FROM checkpoints")
        (data_dir / "checkpoints.txt").unlink()
        old = signing_key(data_dir).name
        event = fork_and_sign(data_dir)
        assert (event.previous_origin, event.previous_size) == (old, 0)
        assert [said.size for said in check_what_was_signed(data_dir)] == [2]


def said_before(data_dir: Path) -> str:
    """Return the root of the last checkpoint of the old log in the database."""
    rows = sql(address_of(data_dir), "SELECT note FROM checkpoints WHERE size = 4")
    return b64decode(rows[0][0].split("\n")[2]).hex()


class TestRefused:
    @pytest.mark.parametrize(
        ("reason", "said"),
        [
            ("", "give the reason"),
            (" \t", "give the reason"),
            ("w" * 201, "at most 200 characters"),
            ("a\nb", r"U\+000A"),
            ("\udcff", r"U\+DCFF"),
        ],
    )
    def test_without_a_reason_that_can_be_shown_nothing_is_done(
        self, data_dir: Path, reason: str, said: str
    ) -> None:
        before = {file.name for file in data_dir.glob("[sc]*")}
        with keys_in(data_dir) as keys:
            events = rows_of(keys.address, "events")
            with pytest.raises(Invalid, match=said) as caught:
                forked(keys, reason=reason)
            assert caught.value.field == "reason"
            assert rows_of(keys.address, "events") == events
        assert {file.name for file in data_dir.glob("[sc]*")} == before

    def test_a_fork_fails_while_another_process_keeps_the_signing_lock(
        self, data_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("projections.audit_log.fork._PAUSE_SECONDS", 0)
        with keys_in(data_dir) as keys, task_lock(keys.database, "signing"):
            events = rows_of(keys.address, "events")
            with pytest.raises(LedgerUnavailable, match="a server is signing checkpoints: stop it"):
                forked(keys)
            assert rows_of(keys.address, "events") == events

    def test_an_unwritable_file_is_reported(self, data_dir: Path) -> None:
        (data_dir / "signing-key.new").mkdir()
        with keys_in(data_dir) as keys:
            with pytest.raises(LedgerUnavailable, match="cannot read or make the signing key"):
                forked(keys)
            with pytest.raises(HistoryInDoubt):
                keys.create()


def fork_until(data_dir: Path, die: Callable[[int], Callable[[], None]], number: int) -> None:
    with keys_in(data_dir) as keys:
        spare = die(number)
        forked(keys)
        keys.opened.signer.sign()
        spare()


def after_statement(number: int) -> Callable[[], None]:
    return die_at_statement(number, when="after_cursor_execute")


@pytest.mark.parametrize("die", [die_at_system_call, after_statement])
def test_killed_at_any_step_it_is_finished_by_calling_it_again(
    doubted: Path, tmp_path: Path, die: Callable[[int], Callable[[], None]]
) -> None:
    left: list[tuple[int, bool]] = []
    for number in count(1):
        data_dir = fresh_copy(doubted, tmp_path / "keyledger-data")
        old = signing_key(data_dir)
        if not run_until_killed(fork_until, data_dir, die, number):
            break
        with keys_in(data_dir) as keys:
            in_doubt = keys.opened.signer.doubt is not None
            if in_doubt:
                with pytest.raises(HistoryInDoubt):
                    keys.create()
                forked(keys)
            keys.create()
            keys.opened.signer.sign()
        events = [json.loads(entry) for entry in entries_of(data_dir)]
        forks = [event["data"] for event in events if event["type"] == Forked.TOPIC]
        left.append((len(events), in_doubt))
        # One event, whenever it was killed, and what it says is what was there before.
        assert len(forks) == 1
        assert (forks[0]["previous_origin"], forks[0]["previous_size"]) == (old.name, 4)
        assert forks[0]["origin"] == signing_key(data_dir).name != old.name
        assert check_what_was_signed(data_dir)[-1].size == 3
        assert f"{old.reveal()}\n" in [file.read_text() for file in data_dir.glob("signing-key.b*")]
        (aside,) = data_dir.glob("checkpoints.txt.*")
        assert len(list(notes_in(aside))) == 4
    assert {in_doubt for _, in_doubt in left} == {True, False}


class TestViews:
    def test_every_view_is_rebuilt_with_it_to_the_same_rows(
        self, data_dir: Path, small_batches: int
    ) -> None:
        with keys_in(data_dir) as keys:
            forked(keys)
            for number in range(2 * small_batches):
                made = keys.create(f"key {number}")
                keys.update(made.key_id, Changes(name=f"renamed {number}"))
                if number == small_batches:
                    keys.opened.signer.sign()
                    forked(keys)
            keys.revoke(made.key_id)
            keys.opened.signer.sign()
            live = {view.name: rows_of(keys.address, view.name) for view in VIEWS}
            for view in VIEWS:
                assert check(keys.database, view).differing == 0
                assert rebuild(keys.database, view, clock=lambda: NOON).differing == 0
            assert {view.name: rows_of(keys.address, view.name) for view in VIEWS} == live
        assert live["entries"][1][4] == "AuditLog.Forked"
        assert check_what_was_signed(data_dir)

    def test_no_key_has_its_id(self, data_dir: Path) -> None:
        with keys_in(data_dir) as keys:
            key_id = to_key_id(forked(keys).originator_id)
            refusals: list[Callable[[], object]] = [
                lambda: keys.show(key_id, workspace="root"),
                lambda: keys.revoke(key_id, workspace="root"),
                lambda: keys.rotate(key_id, workspace="root"),
                lambda: keys.update(key_id, Changes(name="x"), workspace="root"),
            ]
            for call in refusals:
                with pytest.raises(KeyNotFound):
                    call()
