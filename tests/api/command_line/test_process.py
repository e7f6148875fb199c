"""The command as a process: exit statuses, streams and signals, from the first key on."""

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

from tests.api.command_line.commands import COMMAND, Run
from tests.system.ledgers import make_keys

# None of these rules depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")

TOKEN = re.compile(r"(?m)^[a-z][a-z0-9]*_[0-9A-Za-z]{65}$")
KEY_ID = re.compile(r"apikey_[0-9a-f-]{36}")


def test_the_history_of_a_key_is_readable_for_people(process: Run) -> None:
    made = process(
        "keys", "create", "--name", "payments-api", "--scopes", "payments:read,payments:write",
        "--expires-in", "30d", "--prefix", "blnk",
    )  # fmt: skip
    assert made.code == 0
    assert "shown only once" in made.out
    (token,) = TOKEN.findall(made.out)
    assert token.startswith("blnk_")
    (key_id,) = KEY_ID.findall(made.out)

    listed = process("keys", "list")
    assert listed.code == 0
    (line,) = [line for line in listed.out.splitlines() if key_id in line]
    assert "payments-api" in line
    assert "payments:read, payments:write" in line
    assert "active" in line
    assert "in 30 days" in line

    shown = process("keys", "show", key_id)
    assert shown.code == 0
    assert f"{token[:13]}..." in shown.out

    updated = process("keys", "update", key_id, "--name", "payments", "--never-expires")
    assert updated.code == 0
    assert "Never" in updated.out

    rotated = process("keys", "rotate", key_id, "--grace", "1h")
    assert rotated.code == 0
    assert TOKEN.findall(rotated.out) != [token]
    assert f"The old key {key_id} works until" in rotated.out

    revoked = process("keys", "revoke", key_id, "--yes", "--reason", "leaked in a log")
    assert revoked.code == 0
    assert "leaked in a log" in revoked.out

    told = process("keys", "history", key_id)
    assert told.code == 0
    assert re.findall(r"(?m)^([A-Z][A-Za-z]+[a-z]) ", told.out) == [
        "Created",
        "Renamed",
        "ExpirationChanged",
        "Rotated",
        "Revoked",
    ]

    for ended in (listed, shown, updated, revoked, told):
        assert token not in ended.out + ended.err
        assert "\x1b" not in ended.out + ended.err


def test_json_is_one_document_on_standard_output_and_nothing_else_anywhere(
    process: Run, keyledger: Run
) -> None:
    made = process("keys", "create", "--name", "ci", "--scopes", "mcp:read", "--json")
    assert (made.code, made.err) == (0, "")
    assert TOKEN.fullmatch(made.json["token"])
    key_id = made.json["key_id"]

    for run, *arguments in (
        (process, "keys", "list"),
        (keyledger, "keys", "show", key_id),
        (keyledger, "keys", "update", key_id, "--name", "other"),
        (keyledger, "keys", "rotate", key_id),
        (process, "keys", "revoke", key_id, "--yes"),
        (keyledger, "keys", "history", key_id),
        (keyledger, "projections", "status"),
        (process, "projections", "rebuild", "--all"),
        (process, "projections", "check"),
        (process, "doctor"),
    ):
        ended = run(*arguments, "--json")
        assert (ended.code, ended.err) == (0, ""), arguments
        assert isinstance(ended.json, dict), arguments


def test_a_refusal_with_json_is_one_document_on_standard_error(process: Run) -> None:
    process("keys", "create", "--name", "ci", "--scopes", "mcp:read")

    ended = process("keys", "show", "apikey_x", "--json")

    assert (ended.code, ended.out) == (1, "")
    assert ended.error["code"] == "KEY_NOT_FOUND"
    assert "apikey_x" in ended.error["detail"]


def test_the_ledger_in_use_is_named_on_standard_error(process: Run, data_dir: Path) -> None:
    process("keys", "create", "--name", "ci", "--scopes", "mcp:read")

    ended = process("keys", "list")

    assert ended.err == f"ledger: sqlite:///{data_dir}/keyledger.sqlite3\n"
    assert "sqlite" not in ended.out


def test_a_pipe_gets_one_line_per_key_at_any_terminal_width(process: Run) -> None:
    name = "a name that is longer than forty characters are"
    process("keys", "create", "--name", name, "--scopes", "mcp:read,mcp:write")

    _, line = process("keys", "list", COLUMNS="40").out.splitlines()

    assert KEY_ID.match(line)
    assert name in line
    assert "mcp:read, mcp:write" in line


def test_a_server_that_cannot_be_set_up_is_not_begun(process: Run, data_dir: Path) -> None:
    ended = process("serve", "--port", "99999")
    assert (ended.code, ended.out) == (2, "")
    assert "error: --port: use a whole number" in ended.err
    assert not data_dir.exists()


def test_a_ledger_that_cannot_be_opened_says_why_and_what_to_do(
    keyledger: Run, data_dir: Path
) -> None:
    data_dir.mkdir()
    (data_dir / "keyledger.sqlite3").write_bytes(b"no database at all" * 400)

    people = keyledger("keys", "list")
    programs = keyledger("keys", "list", "--json")

    assert people.code == programs.code == 1
    assert "file is not a database" in people.err
    assert "keyledger doctor" in people.err
    assert "Traceback" not in people.err
    assert programs.error["code"] == "LEDGER_UNAVAILABLE"


def test_a_folder_that_cannot_be_made_is_a_refusal(process: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = process(
        "keys", "create", "--name", "ci", "--scopes", "a:b", "--data-dir", str(tmp_path / "file")
    )
    assert (ended.code, ended.out) == (1, "")
    assert "Traceback" not in ended.err


def test_a_missing_command_shows_help_and_is_a_usage_error(keyledger: Run) -> None:
    for arguments in ([], ["keys"], ["projections"]):
        ended = keyledger(*arguments)
        assert (ended.code, ended.err) == (2, "")
        assert "Usage: keyledger" in ended.out
    assert keyledger("--help").code == 0


def test_the_version_is_shown_without_loading_database_libraries(process: Run) -> None:
    ended = process("--version", PYTHONPROFILEIMPORTTIME="1")

    assert ended.code == 0
    assert re.fullmatch(r"keyledger \d+\.\d+\.\d+\n", ended.out)
    assert "sqlalchemy" not in ended.err


def test_no_command_but_serve_waits_for_the_servers_libraries(process: Run) -> None:
    process("keys", "create", "--name", "ci", "--scopes", "mcp:read")

    ended = process("keys", "list", PYTHONPROFILEIMPORTTIME="1")

    imported = {line.rpartition("|")[2].strip() for line in ended.err.splitlines()}
    assert "sqlalchemy" in imported
    assert not imported & {"fastapi", "starlette", "uvicorn", "alembic", "prometheus_client"}


def test_the_first_key_makes_a_ledger_that_only_its_owner_can_open(
    process: Run, data_dir: Path
) -> None:
    process("keys", "create", "--name", "ci", "--scopes", "mcp:read")

    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in data_dir.iterdir()} == {0o600}


def test_a_closed_pipe_is_not_an_error(key_id: str) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as nobody_reads:
        ended = subprocess.run(
            [COMMAND, "keys", "show", key_id],
            stdout=nobody_reads,
            stderr=subprocess.PIPE,
            check=False,
            timeout=60,
        )
    assert b"Traceback" not in ended.stderr
    assert b"BrokenPipe" not in ended.stderr


def test_names_in_any_script_are_shown_where_the_locale_knows_ascii_alone(process: Run) -> None:
    made = process(
        "keys", "create", "--name", "κλειδί", "--scopes", "mcp:read", PYTHONIOENCODING="ascii"
    )
    as_json = process("keys", "list", "--json", PYTHONIOENCODING="ascii")

    assert made.code == 0
    assert as_json.json["data"][0]["name"] == "κλειδί"


@pytest.mark.parametrize("command", [["keys", "list"], ["audit", "report", "--format", "csv"]])
def test_a_reader_that_stops_early_gets_no_error(data_dir: Path, command: list[str]) -> None:
    # More than fits into a pipe.
    make_keys(data_dir, [f"a name of several words {number}" for number in range(600)])
    with subprocess.Popen(
        [COMMAND, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline()
        running.stdout.close()
        told = running.stderr.read()
    assert b"error" not in told
    assert b"database" not in told
