"""``keyledger keys``: the effect of each command, and its errors."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from api.command_line.local_ledger import local_caller
from domain.times import from_text
from tests.api.command_line.commands import Run
from tests.api.served import KEY_FIELDS

pytestmark = pytest.mark.only_on("sqlite")


def create(keyledger: Run, name: str, *options: str) -> str:
    made = keyledger("keys", "create", "--name", name, "--scopes", "mcp:read", *options, "--json")
    assert made.code == 0, made.err
    return str(made.json["key_id"])


def names(keyledger: Run, *filters: str) -> list[str]:
    listed = keyledger("keys", "list", *filters, "--json")
    assert listed.code == 0, listed.err
    return [key["name"] for key in listed.json["data"]]


def test_a_key_has_the_fields_of_the_http_api_in_their_order(keyledger: Run, key_id: str) -> None:
    assert list(keyledger("keys", "show", key_id, "--json").json) == KEY_FIELDS
    assert list(keyledger("keys", "list", "--json").json["data"][0]) == KEY_FIELDS
    rotated = keyledger("keys", "rotate", key_id, "--json").json
    assert list(rotated) == [*KEY_FIELDS, "token"]


def test_commands_record_the_account_as_actor(
    keyledger: Run, key_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USER", "mallory")
    monkeypatch.setenv("LOGNAME", "mallory")

    key = keyledger("keys", "revoke", key_id, "--yes", "--json").json

    account = {"type": "cli", "id": local_caller().actor.id}
    assert key["created_by"] == key["revoked_by"] == account
    assert account["id"] != "mallory"


def test_scopes_may_come_together_or_one_by_one(keyledger: Run) -> None:
    together = keyledger("keys", "create", "--name", "a", "--scopes", "a:b, c:d", "--json")
    apart = keyledger(
        "keys", "create", "--name", "a", "--scopes", "a:b", "--scopes", "c:d", "--json"
    )
    assert together.json["scopes"] == apart.json["scopes"] == ["a:b", "c:d"]


@pytest.mark.parametrize("options", [(), ("--expires-in", "never"), ("--expires-at", "never")])
def test_a_key_never_expires_unless_an_end_is_given(
    keyledger: Run, options: tuple[str, ...]
) -> None:
    key_id = create(keyledger, "ci", *options)
    assert keyledger("keys", "show", key_id, "--json").json["expires_at"] is None
    assert "Never" in keyledger("keys", "show", key_id).out


def test_a_duration_counts_from_the_creation(keyledger: Run) -> None:
    key = keyledger("keys", "show", create(keyledger, "ci", "--expires-in", "12h"), "--json").json
    lives = from_text(key["expires_at"]) - from_text(key["created_at"])
    assert lives == timedelta(hours=12)


def test_an_end_may_be_given_with_any_offset(keyledger: Run) -> None:
    key_id = create(keyledger, "ci", "--expires-at", "2199-01-01T02:00:00+02:00")
    shown = keyledger("keys", "show", key_id, "--json").json
    assert shown["expires_at"] == "2199-01-01T00:00:00.000000Z"


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (("--expires-in", "soon"), "--expires-in: use a number and a unit"),
        (("--expires-in", "99999999w"), "--expires-in: the time is after the year 9999"),
        (("--expires-at", "2030-01-01T00:00:00"), "--expires-at: use a time with its offset"),
        (("--expires-at", "2020-01-01T00:00:00Z"), "--expires-at: the time has passed"),
        (("--expires-at", "never", "--expires-in", "1d"), "not both"),
        (("--prefix", "Key"), "--prefix: not a valid prefix"),
        (("--workspace", "A b"), "--workspace: not a valid name"),
        (("--name", "\u202eevil"), "--name: the character U+202E is not allowed"),
        (("--scopes", "mcp"), "--scopes: 'mcp' is not a valid scope"),
        (("--scoops", "a:b"), "no such option: --scoops"),
        (("--name", "\udcff"), "is not valid UTF-8"),
    ],
)
def test_a_usage_error_exits_with_2_and_says_what_to_do(
    keyledger: Run, options: tuple[str, ...], hint: str
) -> None:
    ended = keyledger("keys", "create", "--name", "ci", "--scopes", "mcp:read", *options)

    assert ended.code == 2
    assert ended.out == ""
    assert "error: " in ended.err
    assert hint in ended.err
    assert "Traceback" not in ended.err


def test_an_invalid_value_names_its_field_in_json(keyledger: Run) -> None:
    ended = keyledger("keys", "create", "--name", " ", "--scopes", "mcp:read", "--json")
    assert (ended.code, ended.out) == (2, "")
    assert ended.error["code"] == "INVALID"
    assert [problem["field"] for problem in ended.error["errors"]] == ["name"]


def test_an_option_of_the_wrong_type_is_json_too_if_json_was_asked_for(keyledger: Run) -> None:
    ended = keyledger("keys", "list", "--limit", "many", "--json")
    assert (ended.code, ended.out) == (2, "")
    assert "--limit" in ended.error["detail"]


def test_an_invalid_setting_is_a_usage_error(
    keyledger: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYLEDGER_PROT", "80")
    ended = keyledger("keys", "list", "--json")
    assert ended.code == 2
    assert ended.error["code"] == "INVALID_SETTINGS"
    assert "KEYLEDGER_PORT" in ended.error["detail"]


def test_only_creating_a_key_makes_a_ledger(keyledger: Run, data_dir: Path) -> None:
    for arguments in (
        ["keys", "list"],
        ["keys", "show", "apikey_x"],
        ["keys", "revoke", "apikey_x"],
        ["projections", "status"],
        ["projections", "rebuild", "--all"],
    ):
        ended = keyledger(*arguments)
        assert ended.code == 1
        assert "there is no ledger at" in ended.err
        assert not data_dir.exists()


def test_the_folder_may_be_named_by_option(keyledger: Run, data_dir: Path, tmp_path: Path) -> None:
    create(keyledger, "elsewhere", "--data-dir", str(tmp_path / "other"))
    assert not data_dir.exists()
    assert names(keyledger, "--data-dir", str(tmp_path / "other")) == ["elsewhere"]


def test_a_workspace_sees_its_own_keys_alone(keyledger: Run, key_id: str) -> None:
    create(keyledger, "theirs", "--workspace", "acme")

    assert names(keyledger) == ["payments-api"]
    assert names(keyledger, "--workspace", "acme") == ["theirs"]
    for command in ("show", "history", "revoke", "rotate"):
        ended = keyledger("keys", command, key_id, "--workspace", "acme", "--json")
        assert (ended.code, ended.error["code"]) == (1, "KEY_NOT_FOUND")


def test_a_star_lists_the_keys_of_all_workspaces(keyledger: Run, key_id: str) -> None:
    create(keyledger, "theirs", "--workspace", "acme")

    assert key_id
    assert names(keyledger, "--workspace", "*") == ["theirs", "payments-api"]
    header, theirs, ours = keyledger("keys", "list", "--workspace", "*").out.splitlines()
    assert header.split()[0] == "WORKSPACE"
    assert (theirs.split()[0], ours.split()[0]) == ("acme", "default")
    for command in ("show", "history", "revoke", "rotate"):
        assert keyledger("keys", command, key_id, "--workspace", "*").code == 2


def test_workspaces_are_listed_with_the_numbers_of_their_keys(keyledger: Run, key_id: str) -> None:
    create(keyledger, "theirs", "--workspace", "acme")
    create(keyledger, "more", "--workspace", "acme")
    keyledger("keys", "revoke", key_id, "--yes")

    assert keyledger("workspaces", "list", "--json").json == {
        "data": [
            {"name": "acme", "keys": 2, "active_keys": 2},
            {"name": "default", "keys": 1, "active_keys": 0},
        ],
        "next_cursor": None,
    }
    lines = [line.split() for line in keyledger("workspaces", "list").out.splitlines()]
    assert lines == [["WORKSPACE", "KEYS", "ACTIVE"], ["acme", "2", "2"], ["default", "1", "0"]]


def test_a_list_is_newest_first_and_continues_at_its_cursor(keyledger: Run) -> None:
    for name in ("one", "two", "three"):
        create(keyledger, name)

    first = keyledger("keys", "list", "--limit", "2", "--json").json
    second = keyledger(
        "keys", "list", "--limit", "2", "--cursor", first["next_cursor"], "--json"
    ).json

    assert [key["name"] for key in first["data"]] == ["three", "two"]
    assert [key["name"] for key in second["data"]] == ["one"]
    assert second["next_cursor"] is None
    assert f"--cursor {first['next_cursor']}" in keyledger("keys", "list", "--limit", "2").err


def test_a_cursor_is_valid_only_for_its_own_filters(keyledger: Run) -> None:
    for name in ("one", "two"):
        create(keyledger, name)
    cursor = keyledger("keys", "list", "--limit", "1", "--json").json["next_cursor"]
    ended = keyledger("keys", "list", "-q", "o", "--cursor", cursor)
    assert ended.code == 2
    assert "--cursor: " in ended.err


def test_filters_narrow_a_list(keyledger: Run, key_id: str) -> None:
    create(keyledger, "ending", "--expires-in", "1d")
    create(keyledger, "gone")
    gone = keyledger("keys", "list", "-q", "gone", "--json").json["data"][0]["key_id"]
    keyledger("keys", "revoke", gone, "--yes")
    tomorrow = (datetime.now(UTC) + timedelta(days=2)).isoformat()

    assert names(keyledger, "--status", "revoked") == ["gone"]
    assert names(keyledger, "--text", "PAY") == ["payments-api"]
    assert names(keyledger, "-q", key_id[:20]) == ["payments-api"]
    assert names(keyledger, "--scope", "payments:read") == ["payments-api"]
    assert names(keyledger, "--created-by", "nobody") == []
    assert names(keyledger, "--expires-before", tomorrow) == ["ending"]


def test_an_empty_list_is_reported_as_empty(keyledger: Run, key_id: str) -> None:
    ended = keyledger("keys", "list", "-q", key_id[::-1])
    assert (ended.code, ended.out) == (0, "")
    assert "no keys found in the workspace default" in ended.err


def test_an_update_changes_all_that_is_asked_for_or_nothing(keyledger: Run, key_id: str) -> None:
    refused = keyledger("keys", "update", key_id, "--name", "new", "--scopes", "no scope", "--json")
    assert refused.code == 2
    assert names(keyledger) == ["payments-api"]

    key = keyledger(
        "keys", "update", key_id, "--name", "new", "--scopes", "a:b", "--expires-in", "1d", "--json"
    ).json
    assert (key["name"], key["scopes"], key["version"]) == ("new", ["a:b"], 4)
    assert key["expires_at"] is not None
    again = keyledger("keys", "update", key_id, "--never-expires", "--json").json
    assert again["expires_at"] is None


@pytest.mark.parametrize("options", [(), ("--never-expires", "--expires-in", "1d")])
def test_an_empty_or_contradictory_update_is_a_usage_error(
    keyledger: Run, key_id: str, options: tuple[str, ...]
) -> None:
    assert keyledger("keys", "update", key_id, *options).code == 2


@pytest.mark.parametrize(
    ("options", "status"), [((), "expired"), (("--grace", "0"), "expired"),
                            (("--grace", "1h"), "active")],
)  # fmt: skip
def test_a_rotated_key_works_through_its_grace_and_no_longer(
    keyledger: Run, key_id: str, options: tuple[str, ...], status: str
) -> None:
    successor = keyledger("keys", "rotate", key_id, *options, "--json").json
    old = keyledger("keys", "show", key_id, "--json").json
    assert successor["rotated_from"] == key_id
    assert (old["rotated_to"], old["status"]) == (successor["key_id"], status)


@pytest.mark.parametrize(
    ("options", "end"),
    [((), "2030-01-01"), (("--expires-at", "2031-02-03T00:00:00Z"), "2031-02-03"),
     (("--expires-in", "never"), None)],
)  # fmt: skip
def test_the_end_of_a_successor_can_be_chosen(
    keyledger: Run, options: tuple[str, ...], end: str | None
) -> None:
    key_id = create(keyledger, "ends", "--expires-at", "2030-01-01T00:00:00Z")
    successor = keyledger("keys", "rotate", key_id, *options, "--json").json
    expires_at = successor["expires_at"]
    assert expires_at is end is None or expires_at.startswith(end)


def test_a_key_that_cannot_be_rotated_is_left_alone(keyledger: Run, key_id: str) -> None:
    keyledger("keys", "revoke", key_id, "--yes")
    ended = keyledger("keys", "rotate", key_id, "--json")
    assert (ended.code, ended.error["code"]) == (1, "KEY_REVOKED")
    assert keyledger("keys", "rotate", key_id, "--grace", "x").code == 2


def test_revoking_twice_keeps_the_first_reason(keyledger: Run, key_id: str) -> None:
    first = keyledger("keys", "revoke", key_id, "--yes", "--reason", "leaked", "--json").json
    again = keyledger("keys", "revoke", key_id, "--yes", "--reason", "other", "--json")
    assert again.code == 0
    assert again.json == first
    assert first["revoke_reason"] == "leaked"


def test_a_history_has_every_event_with_its_position_first(keyledger: Run, key_id: str) -> None:
    keyledger(
        "keys", "revoke", key_id, "--yes", "--reason", "leaked", "--comment", "in a\nbuild log"
    )

    history = keyledger("keys", "history", key_id, "--json").json

    assert history["next_cursor"] is None
    assert [next(iter(event.items())) for event in history["data"]] == [
        ("position", 1),
        ("position", 2),
    ]
    assert [event["type"] for event in history["data"]] == ["ApiKey.Created", "ApiKey.Revoked"]
    assert "verifier" not in json.dumps(history).replace("verifier_sha256", "")
    assert r"comment=in a\nbuild log" in keyledger("keys", "history", key_id).out
