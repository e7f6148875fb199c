"""``keyledger projections``: state, rebuilds and checks."""

from pathlib import Path
from uuid import UUID

import pytest

from projections.views.registry import VIEWS
from tests.api.command_line.commands import Run
from tests.engines import address_of
from tests.raw_sql import seal_events, sql

NAMES = [view.name for view in VIEWS]


def change(data_dir: Path, statement: str) -> None:
    sql(address_of(data_dir), statement)


def plant_poison(data_dir: Path) -> None:
    sql(
        address_of(data_dir),
        "INSERT INTO events (originator_id, originator_version, topic, state)"
        " VALUES (?, 1, 'ApiKey.Unheard', x'7b7d')",
        UUID(int=0),
    )
    seal_events(data_dir)


def test_status_shows_the_position_of_each_projection(keyledger: Run, key_id: str) -> None:
    keyledger("keys", "revoke", key_id, "--yes")

    status = keyledger("projections", "status", "--json")

    assert status.code == 0
    assert status.json["next_cursor"] is None
    assert [each["name"] for each in status.json["data"]] == NAMES
    for each in status.json["data"]:
        assert list(each) == [
            "name", "view_version", "position", "last_position", "lag", "rows", "completed_at",
            "rebuild_position",
        ]  # fmt: skip
        assert (each["position"], each["last_position"], each["lag"]) == (2, 2, 0)
        assert each["rows"] == (1 if each["name"] in {"key_list", "auth_lookup"} else 2)
    shown = keyledger("projections", "status").out
    assert [name for name in NAMES if name in shown] == NAMES


def test_checking_sound_projections_exits_with_0(keyledger: Run, key_id: str) -> None:
    ended = keyledger("projections", "check")
    assert ended.code == 0
    assert key_id not in ended.out
    assert ended.out.count("no row differs from the events") == len(VIEWS)


def test_a_check_shows_each_differing_column_and_exits_with_1(
    keyledger: Run, key_id: str, data_dir: Path
) -> None:
    change(data_dir, "UPDATE key_list SET name = '[red]hacked[/red]', version = 7")

    people = keyledger("projections", "check", "key_list")
    programs = keyledger("projections", "check", "key_list", "--json")

    assert people.code == programs.code == 1
    for line in (("name", "[red]hacked[/red]", "payments-api"), ("version", "7", "1")):
        assert any(
            all(word in shown for word in (key_id, "different", *line))
            for shown in people.out.splitlines()
        )
    assert "run: keyledger projections rebuild key_list" in people.out
    assert programs.err == ""
    assert programs.json["name"] == "key_list"
    assert programs.json["differences"] == [
        {
            "key_id": key_id,
            "problem": "different",
            "columns": {
                "name": {"live": "[red]hacked[/red]", "right": "payments-api"},
                "version": {"live": 7, "right": 1},
            },
        }
    ]


def test_a_check_shows_rows_that_are_missing_or_too_many(
    keyledger: Run, key_id: str, data_dir: Path
) -> None:
    change(data_dir, "UPDATE key_list SET position = 99")
    ended = keyledger("projections", "check", "--json")
    assert ended.code == 1
    assert [report["differing"] for report in ended.json["data"]] == [2, *[0] * (len(VIEWS) - 1)]
    problems = {each["problem"] for each in ended.json["data"][0]["differences"]}
    assert problems == {"missing", "unexpected"}
    assert keyledger("projections", "check").out.count(key_id) == 2


@pytest.mark.only_on("sqlite")
def test_values_that_json_does_not_have_are_shown_all_the_same(
    keyledger: Run, key_id: str, data_dir: Path
) -> None:
    change(data_dir, "UPDATE key_list SET name = X'00FF', version = 9e999")
    (difference,) = keyledger("projections", "check", "key_list", "--json").json["differences"]
    assert difference["key_id"] == key_id
    assert difference["columns"]["name"]["live"] == r"b'\x00\xff'"
    assert difference["columns"]["version"]["live"] == "inf"


def test_a_verifier_is_never_shown(keyledger: Run, key_id: str, data_dir: Path) -> None:
    change(data_dir, "UPDATE auth_lookup SET verifier = '$argon2id$planted'")
    for ended in (
        keyledger("projections", "check"),
        keyledger("projections", "check", "auth_lookup", "--json"),
    ):
        assert ended.code == 1
        assert key_id in ended.out
        assert "argon2" not in ended.out


def test_a_rebuild_repairs_rows_and_reports_their_number(
    keyledger: Run, key_id: str, data_dir: Path
) -> None:
    change(data_dir, "UPDATE key_list SET name = 'hacked'")

    people = keyledger("projections", "rebuild", "key_list")

    assert people.code == 0
    assert "rows that differed from the events, now corrected: 1" in people.out
    assert keyledger("projections", "check").code == 0
    assert keyledger("keys", "show", key_id, "--json").json["name"] == "payments-api"


def test_rebuilding_all_gives_a_list_and_rebuilding_one_gives_its_report(
    keyledger: Run, key_id: str
) -> None:
    assert key_id
    every = keyledger("projections", "rebuild", "--all", "--json").json
    one = keyledger("projections", "rebuild", "auth_lookup", "--json").json
    assert [report["name"] for report in every["data"]] == NAMES
    assert (one["name"], one["events"], one["differing"]) == ("auth_lookup", 1, 0)


def test_a_rebuild_must_name_a_projection(keyledger: Run, key_id: str) -> None:
    assert key_id
    assert keyledger("projections", "rebuild").code == 2
    assert keyledger("projections", "rebuild", "key_list", "--all").code == 2
    unknown = keyledger("projections", "rebuild", "keylist")
    assert unknown.code == 1
    assert f"use {', '.join(NAMES)}" in unknown.err


def test_a_poison_event_is_named_by_its_position(
    keyledger: Run, key_id: str, data_dir: Path
) -> None:
    plant_poison(data_dir)

    for command in (["rebuild", "--all"], ["check"]):
        people = keyledger("projections", *command)
        assert people.code == 1
        assert "error: the event at position 2 cannot be projected" in people.err
        programs = keyledger("projections", *command, "--json")
        assert (programs.code, programs.out) == (1, "")
        assert programs.error["code"] == "POISON_EVENT"
        assert programs.error["position"] == 2
    assert keyledger("keys", "show", key_id).code == 0


def test_status_shows_where_a_rebuild_was_interrupted(
    keyledger: Run, key_id: str, data_dir: Path
) -> None:
    assert key_id
    plant_poison(data_dir)
    keyledger("projections", "rebuild", "key_list")

    status = keyledger("projections", "status", "--json").json["data"]

    positions = {each["name"]: each["rebuild_position"] for each in status}
    assert positions == dict.fromkeys(NAMES) | {"key_list": 0}
    assert {each["lag"] for each in status} == {1}
    assert "at 0" in keyledger("projections", "status").out


def test_a_program_that_is_older_than_a_projection_does_nothing_but_a_downgrade(
    keyledger: Run, key_id: str, data_dir: Path
) -> None:
    change(data_dir, "UPDATE projection_states SET view_version = 99 WHERE table_name = 'key_list'")
    for arguments in (
        ["projections", "status"],
        ["projections", "rebuild", "key_list"],
        ["projections", "rebuild", "entries"],
        ["keys", "revoke", key_id, "--yes"],
        ["audit", "verify"],
    ):
        refused = keyledger(*arguments)
        assert refused.code == 1, arguments
        assert "key_list is at version 99" in " ".join(refused.err.split()), arguments
        assert "keyledger projections downgrade" in " ".join(refused.err.split()), arguments
    assert keyledger("projections", "downgrade").code == 0
    assert keyledger("projections", "check").code == 0
    assert keyledger("keys", "revoke", key_id, "--yes").code == 0
