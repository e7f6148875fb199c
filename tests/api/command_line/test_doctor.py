"""``keyledger doctor`` finds problems, says what to do, and changes nothing."""

import os
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from api.command_line.program_checks import check_sqlite
from domain.pepper import Pepper
from projections.store.sqlite_driver import driver as sqlite3
from projections.tlog.notes import SigningKey
from projections.views.registry import VIEWS
from tests.api.command_line.commands import Run

# None of these rules depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")

FILES = {"signing-key": "signing key", "checkpoints.txt": "checkpoint file"}


@pytest.fixture
def database(data_dir: Path, key_id: str) -> Path:
    """The file of a ledger with one key."""
    assert key_id
    return data_dir / "keyledger.sqlite3"


def execute(database: Path, statement: str) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(statement)


def checks(keyledger: Run, *, code: int) -> dict[str, dict[str, Any]]:
    ended = keyledger("doctor", "--json")
    assert (ended.code, ended.err) == (code, "")
    assert ended.json["healthy"] is (code == 0)
    return {check["name"]: check for check in ended.json["checks"]}


def test_a_sound_ledger_has_no_failed_check(keyledger: Run, database: Path) -> None:
    found = checks(keyledger, code=0)
    assert {check["result"] for name, check in found.items() if name != "sqlite"} == {"ok"}
    assert found["contents"]["found"] == "1 event, 1 key"
    for view in VIEWS:
        said = f"version {view.version}, position 1, lag 0"
        assert found[view.name]["found"] == said
    assert str(database) in found["database"]["found"]
    assert "FULL" in found["durability"]["found"]


def test_the_output_has_a_word_for_each_result_and_a_remedy(keyledger: Run, database: Path) -> None:
    database.chmod(0o644)
    ended = keyledger("doctor")
    assert ended.code == 1
    (line,) = [line for line in ended.out.splitlines() if line.startswith("database ")]
    assert "fail" in line
    assert f"chmod 600 {database}" in line
    assert "1 fail" in ended.out.splitlines()[-1]


def test_an_absent_ledger_is_reported_and_not_made(keyledger: Run, data_dir: Path) -> None:
    found = checks(keyledger, code=1)
    assert found["database"]["result"] == found["data folder"]["result"] == "fail"
    assert "keyledger serve" in found["database"]["remedy"]
    assert not data_dir.exists()


def test_nothing_is_made_or_changed_in_a_ledger(keyledger: Run, database: Path) -> None:
    (database.parent / "pepper").unlink()
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in _files(database)}

    found = checks(keyledger, code=1)

    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in _files(database)}
    assert after == before
    assert found["pepper"]["result"] == "warn"
    assert found["seals"]["found"] == "the seals cannot be checked without the pepper"


def _files(database: Path) -> list[Path]:
    return sorted(database.parent.iterdir())


def test_a_folder_that_others_can_list_gives_a_warning(keyledger: Run, database: Path) -> None:
    database.parent.chmod(0o755)
    folder = checks(keyledger, code=0)["data folder"]
    assert (folder["result"], folder["remedy"]) == ("warn", f"chmod 700 {database.parent}")


def test_a_pepper_that_others_can_read_fails(keyledger: Run, database: Path) -> None:
    pepper = database.with_name("pepper")
    pepper.chmod(0o640)
    assert checks(keyledger, code=1)["pepper"]["result"] == "fail"


def test_a_pepper_of_another_length_fails(keyledger: Run, database: Path) -> None:
    database.with_name("pepper").write_bytes(b"short")
    pepper = checks(keyledger, code=1)["pepper"]
    assert pepper["result"] == "fail"
    assert "short" not in pepper["found"]


def test_the_secret_of_the_seals_is_named(keyledger: Run, database: Path) -> None:
    pepper = Pepper(database.with_name("pepper").read_bytes())
    found = checks(keyledger, code=0)["seals"]
    assert found["found"] == f"sealed with the secret {pepper.pepper_id}"


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE ledger_secret SET seal = x'00'",
        "UPDATE ledger_secret SET secret_id = '0000000000000000'",
        "INSERT INTO ledger_secret VALUES ('0000000000000000', x'00')",
    ],
)
def test_a_changed_row_of_the_secret_fails(keyledger: Run, database: Path, change: str) -> None:
    execute(database, change)
    found = checks(keyledger, code=1)["seals"]
    assert (found["result"], found["found"]) == ("fail", "the ledger is sealed with another secret")
    assert "keyledger audit seal" in found["remedy"]


def test_a_missing_row_of_the_secret_fails(keyledger: Run, database: Path) -> None:
    execute(database, "DELETE FROM ledger_secret")
    found = checks(keyledger, code=1)["seals"]
    assert (found["result"], found["found"]) == ("fail", "the row in ledger_secret is missing")
    assert "keyledger audit seal" in found["remedy"]


def test_a_pepper_of_another_ledger_fails(keyledger: Run, database: Path) -> None:
    database.with_name("pepper").write_bytes(bytes(32))
    found = checks(keyledger, code=1)["seals"]
    assert (found["result"], found["found"]) == ("fail", "the ledger is sealed with another secret")
    assert "Copy the file `pepper`" in found["remedy"]


def test_the_peppers_bytes_are_never_shown(keyledger: Run, database: Path) -> None:
    value = database.with_name("pepper").read_bytes()
    shown = keyledger("doctor").out + keyledger("doctor", "--json").out
    assert value.hex() not in shown
    assert repr(value)[2:-1] not in shown


def test_the_signing_key_is_named_and_its_seed_never_shown(keyledger: Run, database: Path) -> None:
    key = SigningKey.from_text(database.with_name("signing-key").read_text().strip())
    found = checks(keyledger, code=0)
    assert found["signing key"]["found"].endswith(f"mode 0600, of {key.name}")
    assert found["checkpoint file"]["found"].endswith("mode 0600, signed up to entry 0")
    shown = keyledger("doctor").out + keyledger("doctor", "--json").out
    assert key.reveal().split("+", 4)[4] not in shown


@pytest.mark.parametrize("name", ["signing-key", "checkpoints.txt"])
@pytest.mark.parametrize("content", [None, b"", b"some\nother text\n", b"\xff" * 10_000])
def test_a_signing_key_or_checkpoints_that_are_lost_or_something_else_fail(
    keyledger: Run, database: Path, name: str, content: bytes | None
) -> None:
    path = database.with_name(name)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    found = checks(keyledger, code=1)
    failed = [check for check in found.values() if check["result"] == "fail"]
    # Without the key it is unknown whether this is the log that was signed.
    in_doubt = ["history"] if name == "checkpoints.txt" else []
    assert [check["name"] for check in failed] == [FILES[name], *in_doubt]
    assert str(path) in failed[0]["found"]
    assert "restore it" in failed[0]["remedy"]
    assert "keyledger audit fork" in failed[0]["remedy"]
    assert not any("\\xff" in text or "other text" in text for text in failed[0].values())


@pytest.mark.parametrize(
    ("name", "mode", "remedy"),
    [
        ("signing-key", 0o640, "chmod 600"),
        ("checkpoints.txt", 0o602, "chmod go-w"),
        ("checkpoints.txt", 0o644, None),
    ],
)
def test_doctor_reports_other_readers_of_the_signing_key(
    keyledger: Run, database: Path, name: str, mode: int, remedy: str | None
) -> None:
    path = database.with_name(name)
    path.chmod(mode)
    check = checks(keyledger, code=0 if remedy is None else 1)[FILES[name]]
    assert check["remedy"] == (remedy and f"{remedy} {path}")
    assert f"mode {mode:04o}" in check["found"]


def test_a_log_that_is_not_the_one_that_was_signed_fails(
    keyledger: Run, database: Path, key_id: str
) -> None:
    assert checks(keyledger, code=0)["history"]["result"] == "ok"
    with_one_key = database.read_bytes()
    keyledger("keys", "revoke", key_id, "--yes")
    assert "log of 2 entries" in checks(keyledger, code=0)["history"]["found"]
    # An older backup, in which the revoked key is active again.
    database.write_bytes(with_one_key)
    history = checks(keyledger, code=1)["history"]
    assert history["result"] == "fail"
    assert "the log has 1 entries, but 2 were signed" in history["found"]
    assert "keyledger audit verify" in history["remedy"]


def test_keys_are_counted_not_their_events(keyledger: Run, key_id: str) -> None:
    keyledger("keys", "update", key_id, "--name", "renamed")
    keyledger("keys", "revoke", key_id, "--yes")
    assert checks(keyledger, code=0)["contents"]["found"] == "3 events, 1 key"


def test_checkpoints_of_another_key_fail(keyledger: Run, database: Path) -> None:
    other = SigningKey("keyledger/other", bytes(32))
    database.with_name("signing-key").write_text(other.reveal())
    check = checks(keyledger, code=1)["checkpoint file"]
    assert check["result"] == "fail"
    assert other.name in check["found"]
    assert "the matching key" in check["remedy"]


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "is empty"), (os.urandom(4096), "is not an SQLite database")],
)
def test_a_file_that_is_not_a_database_fails(
    keyledger: Run, database: Path, content: bytes, said: str
) -> None:
    database.write_bytes(content)
    found = checks(keyledger, code=1)["database"]
    assert found["result"] == "fail"
    assert said in found["found"]
    assert database.read_bytes() == content


def test_another_journal_mode_fails_and_stays_as_it_is(keyledger: Run, database: Path) -> None:
    execute(database, "PRAGMA journal_mode = delete")
    assert checks(keyledger, code=1)["journal"]["result"] == "fail"
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_a_damaged_file_fails(keyledger: Run, database: Path) -> None:
    with database.open("r+b") as file:
        # The header of the third page; the first holds the schema.
        file.seek(2 * 4096)
        file.write(b"\xff" * 4096)
    found = checks(keyledger, code=1)
    assert found["integrity_check"]["result"] == "fail"
    assert "restore a backup" in found["integrity_check"]["remedy"]


@pytest.mark.parametrize(
    ("statement", "check", "code", "said"),
    [
        ("UPDATE alembic_version SET version_num = '9999'", "schema", 1, "revision 9999"),
        ("DROP TABLE alembic_version", "schema", 1, "the database has no tables of a ledger"),
        (
            "UPDATE projection_states SET view_version = 0 WHERE table_name = 'key_list'",
            "key_list", 0, "version 0",
        ),
        (
            "UPDATE projection_states SET view_version = 99 WHERE table_name = 'key_list'",
            "key_list", 1, "version 99",
        ),
        (
            "UPDATE projection_states SET position = 0 WHERE table_name = 'key_list'",
            "key_list", 1, "lag 1",
        ),
        (
            "UPDATE projection_states SET position = 5 WHERE table_name = 'key_list'",
            "key_list", 1, "the last event is at 1",
        ),
        (
            "INSERT INTO projection_states VALUES ('key_list_rebuild', 1, 2, 0, NULL, 0)",
            "key_list", 0, "interrupted at 0",
        ),
    ],
)  # fmt: skip
def test_a_lagging_or_outdated_view_is_found(
    keyledger: Run, database: Path, *, statement: str, check: str, code: int, said: str
) -> None:
    execute(database, statement)
    found = checks(keyledger, code=code)[check]
    assert found["result"] == ("fail" if code else "warn")
    assert said in found["found"]
    assert found["remedy"]


@pytest.mark.parametrize(
    ("version", "result"),
    [
        ((3, 40, 1), "warn"),
        ((3, 44, 5), "warn"),
        ((3, 44, 6), "ok"),
        ((3, 45, 9), "warn"),
        ((3, 50, 6), "warn"),
        ((3, 50, 7), "ok"),
        ((3, 51, 2), "warn"),
        ((3, 51, 3), "ok"),
        ((3, 52, 0), "ok"),
        ((4, 0, 0), "ok"),
    ],
)
def test_sqlite_with_the_wal_reset_bug_gives_a_warning(
    version: tuple[int, int, int], result: str
) -> None:
    assert check_sqlite(version).result == result
