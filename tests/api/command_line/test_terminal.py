"""Output at a terminal: colours, words, prompts, and lines that are not broken at any width."""

import re
from pathlib import Path

import pytest

from tests.api.command_line.commands import CTRL_C, Run

# None of these rules depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")

STYLES = re.compile(r"\x1b\[[0-9;]*m")
KEY_ID = re.compile(r"apikey_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def lines(shown: str) -> list[str]:
    return STYLES.sub("", shown).splitlines()


@pytest.mark.parametrize("columns", [40, 200])
def test_tokens_and_ids_are_never_broken(terminal: Run, columns: int) -> None:
    made = terminal(
        "keys", "create", "--name", "a name of several words", "--scopes", "mcp:read,mcp:write",
        columns=columns,
    )  # fmt: skip
    assert made.code == 0
    assert any(re.fullmatch(r"key_[0-9A-Za-z]{65}", line) for line in lines(made.out))
    found = KEY_ID.search(made.out)
    assert found is not None
    for command in (["list"], ["rotate", found[0]], ["history", found[0]]):
        shown = terminal("keys", *command, columns=columns)
        assert shown.code == 0
        for mention in re.finditer("apikey_", shown.out):
            assert KEY_ID.match(shown.out, mention.start())


@pytest.mark.parametrize("columns", [40, 100])
def test_nothing_is_cut_off_where_a_table_does_not_fit(
    terminal: Run, keyledger: Run, columns: int
) -> None:
    name = "a name that is longer than a narrow terminal is wide"
    keyledger("keys", "create", "--name", name, "--scopes", "mcp:read", "--expires-in", "3d")
    shown = lines(terminal("keys", "list", columns=columns).out)
    assert any(line.endswith(name) for line in shown)
    assert any(re.fullmatch(r" +status +active", line) for line in shown)
    assert any(re.fullmatch(r" +expires +\d{4}-\d\d-\d\d in 3 days", line) for line in shown)


def test_a_wide_terminal_has_a_line_for_each_key(terminal: Run, key_id: str) -> None:
    shown = lines(terminal("keys", "list", columns=200).out)
    assert shown[1].split()[:2] == ["KEY", "ID"]
    assert shown[2].startswith(f"{key_id}  payments-api  ")


def test_a_status_has_a_colour_and_a_word(terminal: Run, keyledger: Run, key_id: str) -> None:
    assert "\x1b[32mactive" in terminal("keys", "show", key_id).out
    keyledger("keys", "revoke", key_id, "--yes")
    assert "\x1b[31mrevoked" in terminal("keys", "show", key_id).out


def test_markup_is_shown_literally(terminal: Run, keyledger: Run) -> None:
    keyledger(
        "keys", "create", "--name", "[red]a[/red] [/] :boom: [link=x]", "--scopes", "mcp:read"
    )
    shown = "\n".join(lines(terminal("keys", "list").out))
    assert "[red]a[/red] [/] :boom: [link=x]" in shown


def test_terminal_control_characters_are_shown_escaped(terminal: Run, key_id: str) -> None:
    for arguments in (
        ("keys", "show", "apikey_\x1b]0;owned\x07"),
        ("audit", "replay", key_id, "--pack", "\x1b[2Jnowhere"),
    ):
        shown = terminal(*arguments)
        assert shown.code == 1
        assert "\\x1b" in shown.out
        assert "\x1b]" not in shown.out
        assert "\x1b[2J" not in shown.out


def test_an_error_is_a_red_line(terminal: Run, key_id: str) -> None:
    assert key_id
    shown = terminal("keys", "show", "apikey_x").out
    assert "\x1b[31merror: there is no key 'apikey_x'" in shown


@pytest.mark.parametrize(
    ("typed", "code", "status"),
    [
        ("y\n", 0, "revoked"),
        ("n\n", 1, "active"),
        ("\n", 1, "active"),
        ("\x04", 1, "active"),
        (CTRL_C, 130, "active"),
    ],
)
def test_revoking_asks_for_confirmation_at_a_terminal(
    terminal: Run, keyledger: Run, *, key_id: str, typed: str, code: int, status: str
) -> None:
    shown = terminal("keys", "revoke", key_id, answer=typed)
    assert shown.code == code
    assert "payments-api" in shown.out
    assert "Traceback" not in shown.out
    assert keyledger("keys", "show", key_id, "--json").json["status"] == status


def test_revoking_with_yes_does_not_ask(terminal: Run, key_id: str) -> None:
    shown = terminal("keys", "revoke", key_id, "--yes")
    assert shown.code == 0
    assert "[y/N]" not in shown.out


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_revoking_without_a_terminal_needs_yes(
    process: Run, keyledger: Run, *, key_id: str, options: tuple[str, ...]
) -> None:
    refused = process("keys", "revoke", key_id, *options)
    assert (refused.code, refused.out) == (2, "")
    assert "use --yes" in refused.err
    assert keyledger("keys", "show", key_id, "--json").json["status"] == "active"


def test_a_rebuild_shows_its_progress_and_clears_it(
    terminal: Run, key_id: str, data_dir: Path
) -> None:
    assert key_id
    assert data_dir.exists()
    shown = terminal("projections", "rebuild", "key_list")
    assert shown.code == 0
    assert "1/1" in shown.out
    assert "key_list: rebuilt 1 event in" in STYLES.sub("", shown.out)


def test_colours_can_be_switched_off(
    terminal: Run, key_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in terminal("keys", "show", key_id).out
