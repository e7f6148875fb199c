"""``keyledger audit verify``: no findings in an unchanged ledger, and findings in a changed one."""

from pathlib import Path

from tests.api.command_line.commands import Run
from tests.engines import address_of
from tests.raw_sql import sql


def test_a_sound_ledger_exits_with_0(keyledger: Run, key_id: str) -> None:
    keyledger("keys", "revoke", key_id, "--yes")

    people = keyledger("audit", "verify")
    programs = keyledger("audit", "verify", "--json")

    assert (people.code, programs.code) == (0, 0)
    assert "verified 2 events of 1 key, 4 checkpoints" in people.out
    assert "no findings" in people.out
    document = programs.json
    assert list(document) == [
        "sound", "position", "events", "entries", "keys", "checkpoints", "root", "findings",
        "not_listed", "seconds",
    ]  # fmt: skip
    assert document["sound"] is True
    assert (document["position"], document["events"], document["entries"]) == (2, 2, 2)
    assert document["findings"] == []
    assert programs.err == ""


def test_findings_are_listed_and_exit_with_1(keyledger: Run, key_id: str, data_dir: Path) -> None:
    keyledger("keys", "revoke", key_id, "--yes")
    sql(address_of(data_dir), "UPDATE auth_lookup SET revoked = false")
    sql(address_of(data_dir), "UPDATE entries SET entry = '[red]x' WHERE leaf_index = 1")

    people = keyledger("audit", "verify")
    programs = keyledger("audit", "verify", "--json")

    assert (people.code, programs.code) == (1, 1)
    lines = people.out.splitlines()
    assert any(f"the row of {key_id} in auth_lookup" in line for line in lines)
    assert any("entry 1" in line and "the entry was changed" in line for line in lines)
    assert "keyledger projections rebuild auth_lookup" in people.out
    assert "2 findings" in people.out
    assert programs.json["sound"] is False
    entry, projection = programs.json["findings"]
    assert (entry["about"], entry["leaf_index"], entry["position"]) == ("entry", 1, 2)
    assert (projection["about"], projection["key_id"]) == ("projection", key_id)
    assert projection["remedy"]


def test_a_missing_checkpoint_is_explained(keyledger: Run, key_id: str, data_dir: Path) -> None:
    assert key_id
    sql(address_of(data_dir), "DELETE FROM checkpoints")
    (data_dir / "checkpoints.txt").unlink()
    ended = keyledger("audit", "verify")
    assert ended.code == 0
    assert "There is no checkpoint to compare with" in ended.out


def test_a_missing_ledger_is_not_created(keyledger: Run, data_dir: Path) -> None:
    assert keyledger("audit", "verify").code == 1
    assert not data_dir.exists()
