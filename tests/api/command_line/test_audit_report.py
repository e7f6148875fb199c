"""``keyledger audit report``: for people, for spreadsheets and for programs."""

import csv
import io
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.api.command_line.commands import Run
from tests.engines import address_of, fresh_copy
from tests.projections.ledgers import HOUR, keys_in
from tests.raw_sql import sql


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A ledger that is only read, and one of its keys; it has two keys in one workspace."""
    folder = tmp_path_factory.mktemp("reported") / "keyledger-data"
    now = datetime.now(UTC)
    with keys_in(folder, now=now) as keys:
        key_id = keys.create("payments-api", scopes=("payments:read", "payments:write")).key_id
        keys.create('=HYPERLINK("x")', scopes=("*",))
        keys.create("-1", workspace="acme", lives=24 * HOUR)
        keys.revoke(keys.create("gone").key_id)
    return folder, key_id


@pytest.fixture
def data_dir(reported: tuple[Path, str]) -> Path:
    return reported[0]


@pytest.fixture
def key_id(reported: tuple[Path, str]) -> str:
    return reported[1]


def test_the_default_output_is_a_table(keyledger: Run, key_id: str) -> None:
    ended = keyledger("audit", "report")
    assert ended.code == 0
    assert key_id in ended.out
    assert "gone" not in ended.out
    assert "3 active keys as of " in ended.err


def test_a_spreadsheet_gets_no_formula(keyledger: Run, key_id: str) -> None:
    ended = keyledger("audit", "report", "--format", "csv")
    assert (ended.code, ended.err) == (0, "")
    rows = list(csv.DictReader(io.StringIO(ended.out)))
    assert [row["workspace"] for row in rows] == ["acme", "default", "default"]
    assert {row["name"][:2] for row in rows} == {"'-", "'=", "pa"}
    (payments,) = (row for row in rows if row["key_id"] == key_id)
    assert payments["scopes"] == "payments:read payments:write"
    assert payments["status"] == "active"
    assert payments["expires_at"] == payments["last_used_at"] == ""
    assert payments["created_by"] == payments["changed_by"]
    assert payments["created_by"].startswith("cli:")


def test_programs_get_json(keyledger: Run, key_id: str) -> None:
    for form in (["--json"], ["--format", "json"]):
        document = keyledger("audit", "report", "--workspace", "default", *form).json
        assert list(document) == ["as_of", "review", "data", "next_cursor"]
        keys = {key["key_id"]: key for key in document["data"]}
        assert len(keys) == 2
        assert keys[key_id]["changed_at"] == keys[key_id]["created_at"]
        assert keys[key_id]["changed_by"]["type"] == "cli"


def test_no_key_is_active_before_its_creation(keyledger: Run) -> None:
    document = keyledger("audit", "report", "--at", "2001-01-01T00:00:00Z", "--json").json
    assert document == {
        "as_of": "2001-01-01T00:00:00.000000Z", "review": None, "data": [], "next_cursor": None
    }  # fmt: skip
    assert keyledger("audit", "report", "--at", "2001-01-01T00:00:00Z").out == ""


@pytest.mark.parametrize(
    ("review", "count"),
    [
        (["no-expiry"], 2),
        (["expiring"], 1),
        (["expiring", "--within", "2h"], 0),
        (["unused", "--since", "2001-01-01T00:00:00Z"], 0),
        (["never-used"], 3),
        (["full-access"], 1),
        (["rotated-late"], 0),
        (["rotated-late", "--older-than", "0s"], 3),
    ],
)
def test_a_review_has_its_keys_alone(keyledger: Run, review: list[str], count: int) -> None:
    document = keyledger("audit", "report", "--review", *review, "--json").json
    assert document["review"] == review[0]
    assert len(document["data"]) == count


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--at", "yesterday"], "--at: use a time"),
        (["--at", "9999-01-01T00:00:00Z"], "the time is in the future"),
        (
            ["--at", "2001-01-01T00:00:00Z", "--review", "never-used"],
            "--at: past uses are not recorded",
        ),
        (["--review", "unused"], "--since: this review needs a time"),
        (["--review", "expiring", "--within", "soon"], "--within: use a number"),
        (
            ["--review", "rotated-late", "--older-than", "999999999w"],
            "--older-than: the duration is too long",
        ),
        (
            ["--review", "rotated-late", "--older-than", "999999d"],
            "--older-than: the duration is too long",
        ),
        (["--review", "everything"], "review"),
        (["--workspace", "Not One"], "workspace"),
    ],
)
def test_invalid_parameters_are_reported(keyledger: Run, arguments: list[str], said: str) -> None:
    ended = keyledger("audit", "report", *arguments)
    assert ended.code == 2
    assert said in ended.err


@pytest.mark.parametrize("form", ["text", "csv", "json"])
def test_after_an_event_was_deleted_it_says_so_and_writes_no_part_of_a_report(
    keyledger: Run, data_dir: Path, key_id: str, tmp_path: Path, form: str
) -> None:
    damaged = fresh_copy(data_dir, tmp_path / "damaged" / "keyledger-data")
    sql(address_of(damaged), "DELETE FROM events WHERE id = 1")
    ended = keyledger("audit", "report", "--format", form, "--data-dir", str(damaged))
    assert (ended.code, ended.out) == (1, "")
    assert key_id in ended.err
    assert "keyledger audit verify" in ended.err
