"""``keyledger copy``: its output, and the errors that are found before it copies."""

import json
import re
from contextlib import closing
from pathlib import Path

import pytest

from projections.store.sqlite_driver import driver as sqlite3
from projections.views.registry import VIEWS
from tests.api.command_line.commands import Run
from tests.engines import SQLITE, database_file

pytestmark = pytest.mark.only_on(SQLITE)
"""Copies between engines are tested with the copying code."""


@pytest.fixture
def url(tmp_path: Path) -> str:
    """An empty database."""
    return f"sqlite:///{tmp_path / 'target.sqlite3'}"


def test_the_output_says_what_was_copied_and_what_to_do_next(
    keyledger: Run, key_id: str, url: str, data_dir: Path
) -> None:
    keyledger("keys", "revoke", key_id, "--yes")
    ended = keyledger("copy", "--to", url)
    assert ended.code == 0
    first, second, third, *rest = ended.out.splitlines()
    assert re.fullmatch(rf"copied 2 events in \d+\.\d\d s to {url}", first)
    assert second == (
        "2 events, the last at position 2, and 1 key digest, 0 last uses, 2 checkpoints,"
        " 1 ledger secret: identical in both databases, each event byte for byte"
    )
    assert re.fullmatch(r"root of 2 entries in both: [0-9A-Za-z+/]{43}=", third)
    said = "\n".join(rest)
    assert f"set KEYLEDGER_DATABASE_URL={url}\n" in said
    assert f"keep the folder {data_dir}:" in said
    assert "stop all servers of this ledger, and run the same command again" in said
    assert ended.err == f"ledger: sqlite:///{database_file(data_dir)}\n"


def test_programs_get_one_document(keyledger: Run, key_id: str, url: str, data_dir: Path) -> None:
    assert keyledger("copy", "--to", url, "--json").code == 0
    keyledger("keys", "revoke", key_id, "--yes")
    ended = keyledger("copy", "--to", url, "--json")
    assert (ended.code, ended.err) == (0, "")
    told = ended.json
    assert told.pop("seconds") > 0
    assert len(told.pop("root")) == 44
    assert told == {
        "source": f"sqlite:///{database_file(data_dir)}",
        "target": url,
        "copied": 1,
        "events": 2,
        "position": 2,
        "entries": 2,
        "projections": {"key_list": 1, "auth_lookup": 1, "entries": 2, "key_versions": 2},
        "key_digests": 1,
        "last_uses": 0,
        "checkpoints": 2,
        "ledger_secret": 1,
        "appended_since": 0,
    }
    assert list(told["projections"]) == [view.name for view in VIEWS]


def test_the_commands_go_on_with_the_copy_and_the_same_folder(
    keyledger: Run, key_id: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = keyledger("keys", "show", key_id, "--json").json
    keyledger("copy", "--to", url)
    monkeypatch.setenv("KEYLEDGER_DATABASE_URL", url)
    assert keyledger("keys", "show", key_id, "--json").json == before
    assert keyledger("keys", "revoke", key_id, "--yes").code == 0
    assert keyledger("audit", "verify").code == 0
    # What was left behind is not what was signed since.
    monkeypatch.delenv("KEYLEDGER_DATABASE_URL")
    ended = keyledger("keys", "create", "--name", "late", "--scopes", "a:b", "--json")
    assert (ended.code, ended.error["code"]) == (1, "HISTORY_IN_DOUBT")


def test_a_target_that_is_another_ledger_is_refused(
    keyledger: Run, key_id: str, url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert key_id
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("KEYLEDGER_DATA_DIR", str(tmp_path / "another"))
        elsewhere.setenv("KEYLEDGER_DATABASE_URL", url)
        keyledger("keys", "create", "--name", "other", "--scopes", "a:b")
    ended = keyledger("copy", "--to", url, "--json")
    assert (ended.code, ended.out, ended.error["code"]) == (1, "", "COPY_REFUSED")
    assert "use an empty database" in keyledger("copy", "--to", url).err


def test_a_copy_without_the_pepper_is_refused(
    keyledger: Run, key_id: str, url: str, data_dir: Path
) -> None:
    assert key_id
    (data_dir / "pepper").unlink()
    ended = keyledger("copy", "--to", url, "--json")
    assert (ended.code, ended.error["code"]) == (1, "OTHER_SECRET")
    assert not (data_dir / "pepper").exists()


@pytest.mark.parametrize(
    "wrong", ["mysql://host/db", "sqlite://", "sqlite:///:memory:", "nowhere", ""]
)
def test_a_target_that_is_not_a_database_is_a_usage_error(
    keyledger: Run, key_id: str, wrong: str
) -> None:
    assert key_id
    ended = keyledger("copy", "--to", wrong, "--json")
    assert (ended.code, ended.out) == (2, "")
    assert [each["field"] for each in ended.error["errors"]] == ["to"]
    assert "postgresql+psycopg://user@host/database" in keyledger("copy", "--to", wrong).err


def test_a_missing_target_is_a_usage_error(keyledger: Run) -> None:
    ended = keyledger("copy")
    assert ended.code == 2
    assert "missing option '--to'" in ended.err


def test_without_a_ledger_nothing_is_made(keyledger: Run, url: str, tmp_path: Path) -> None:
    ended = keyledger("copy", "--to", url, "--json")
    assert (ended.code, ended.error["code"]) == (1, "LEDGER_NOT_FOUND")
    assert not list(tmp_path.iterdir())


def test_a_file_with_another_journal_mode_is_left_unchanged(
    keyledger: Run, key_id: str, url: str, data_dir: Path
) -> None:
    assert key_id
    with closing(sqlite3.connect(database_file(data_dir))) as connection:
        connection.execute("PRAGMA journal_mode = delete")
    before = database_file(data_dir).read_bytes()
    ended = keyledger("copy", "--to", url)
    assert ended.code == 1
    assert "keyledger projections status, which turns it on" in ended.err
    assert database_file(data_dir).read_bytes() == before


def test_a_password_is_shown_nowhere(keyledger: Run, key_id: str) -> None:
    assert key_id
    url = "postgresql+psycopg://ada:correct-horse@127.0.0.1:1/ledger"
    for options in ([], ["--json"]):
        ended = keyledger("copy", "--to", url, *options)
        assert ended.code == 1
        assert "correct-horse" not in ended.out + ended.err
        assert "ada:***@127.0.0.1:1/ledger" in ended.err


def test_the_progress_is_shown_at_a_terminal_alone(
    terminal: Run, key_id: str, url: str, data_dir: Path
) -> None:
    assert key_id
    shown = terminal("copy", "--to", url, columns=200).out
    assert "copying" in shown
    assert json.dumps(str(data_dir)).strip('"') in shown
