"""``keyledger audit fork``: a ledger whose log differs from the signed one, and its repair."""

from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from tests.api.command_line.commands import Run
from tests.engines import address_of
from tests.raw_sql import lose_events, sql

CREATE = ("keys", "create", "--name", "c", "--scopes", "a:b")


@pytest.fixture
def ledger(data_dir: Path, keyledger: Run) -> Path:
    """The folder of a ledger with three keys."""
    for name in ("a", "b", "lost"):
        assert keyledger("keys", "create", "--name", name, "--scopes", "a:b").code == 0
    return data_dir


def lost_the_end(data_dir: Path) -> None:
    lose_events(data_dir, after=2)


def lost_the_checkpoints(data_dir: Path) -> None:
    (data_dir / "checkpoints.txt").unlink()


def lost_the_key(data_dir: Path) -> None:
    (data_dir / "signing-key").unlink()


each_damage = pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lost_the_end, "entry 2 and all after it are missing"),
        pytest.param(
            lost_the_checkpoints,
            "the checkpoint file is missing or empty",
            # On a server, another machine may have signed what this one's file does not have.
            marks=pytest.mark.only_on("sqlite"),
        ),
        (lost_the_key, "was not signed by the key of keyledger/"),
    ],
)


@each_damage
def test_refused_changes_exit_with_1_the_reason_and_a_remedy(
    keyledger: Run, ledger: Path, damage: Callable[[Path], None], said: str
) -> None:
    damage(ledger)
    for_people = keyledger(*CREATE)
    assert (for_people.code, for_people.out) == (1, "")
    assert said in for_people.err
    assert "restore" in for_people.err
    assert "keyledger audit fork --reason WHY" in for_people.err
    for_programs = keyledger(*CREATE, "--json")
    assert (for_programs.code, for_programs.out) == (1, "")
    assert for_programs.error["code"] == "HISTORY_IN_DOUBT"
    assert said in for_programs.error["detail"]


@each_damage
def test_queries_are_answered_as_before(
    keyledger: Run, ledger: Path, damage: Callable[[Path], None], said: str
) -> None:
    damage(ledger)
    listed = keyledger("keys", "list", "--json")
    assert listed.code == 0
    key = listed.json["data"][-1]
    assert key["name"] == "a"
    assert keyledger("keys", "history", key["key_id"], "--json").code == 0
    assert "no checkpoint was signed: " in listed.err
    assert said in listed.err


@each_damage
def test_signing_continues_after_a_fork(
    keyledger: Run, ledger: Path, damage: Callable[[Path], None], said: str
) -> None:
    damage(ledger)
    forked = keyledger("audit", "fork", "--yes", "--reason", f"for good: {said}")
    assert forked.code == 0
    origin, *_ = (ledger / "checkpoints.txt").read_text().splitlines()
    assert f"The new log is {origin}." in forked.out
    assert f"Public key: {origin}+" in forked.out
    assert "restart the servers" in forked.out
    assert keyledger(*CREATE).code == 0


def test_it_requires_confirmation(keyledger: Run, terminal: Run, ledger: Path) -> None:
    lost_the_end(ledger)
    before = {file.name: file.read_bytes() for file in ledger.glob("[!k]*")}
    refused = keyledger("audit", "fork", "--reason", "by mistake", "--json")
    assert (refused.code, refused.out) == (2, "")
    assert "use --yes" in refused.error["detail"]
    asked = terminal("audit", "fork", "--reason", "by mistake", answer="n\n", columns=2000)
    assert asked.code == 1
    assert "entry 2 and all after it are missing" in asked.out
    assert f"a new one with a new key in {ledger}?" in asked.out
    assert "nothing was changed" in asked.out
    assert {file.name: file.read_bytes() for file in ledger.glob("[!k]*")} == before
    meant = terminal("audit", "fork", "--reason", "a drill", answer="y\n", columns=2000)
    assert (meant.code, "The new log is" in meant.out) == (0, True)


@pytest.mark.usefixtures("ledger")
def test_an_event_has_the_same_json_as_in_the_http_api(keyledger: Run) -> None:
    event = keyledger("audit", "fork", "--yes", "--reason", "a drill", "--json").json
    assert (event["type"], event["key_id"], event["version"]) == ("AuditLog.Forked", None, 1)
    assert event["actor"]["type"] == "cli"
    assert (event["data"]["reason"], event["data"]["previous_size"]) == ("a drill", 3)


@pytest.mark.parametrize("reason", ["", "  ", "w" * 201, "two\nlines"])
def test_it_wants_a_reason(keyledger: Run, ledger: Path, reason: str) -> None:
    before = sorted(file.name for file in ledger.iterdir())
    refused = keyledger("audit", "fork", "--yes", "--reason", reason, "--json")
    assert (refused.code, refused.out) == (2, "")
    assert [each["field"] for each in refused.error["errors"]] == ["reason"]
    assert sorted(file.name for file in ledger.iterdir()) == before


def test_there_is_nothing_to_fork_where_there_is_no_ledger(keyledger: Run, data_dir: Path) -> None:
    refused = keyledger("audit", "fork", "--yes", "--reason", "a drill", "--json")
    assert (refused.code, refused.error["code"]) == (1, "LEDGER_NOT_FOUND")
    assert not data_dir.exists()


def test_its_id_is_not_a_key_id(keyledger: Run, ledger: Path) -> None:
    keyledger("audit", "fork", "--yes", "--reason", "a drill")
    query = "SELECT originator_id FROM events WHERE topic = 'AuditLog.Forked'"
    ((stored,),) = sql(address_of(ledger), query)
    key_id = f"apikey_{UUID(bytes=stored)}"
    for command in ("show", "revoke", "rotate", "history"):
        refused = keyledger("keys", command, key_id, "--workspace", "root", "--json")
        assert (refused.code, refused.error["code"]) == (1, "KEY_NOT_FOUND"), command
