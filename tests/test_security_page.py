"""SECURITY.md names only existing tests, pages, settings, codes, metrics and commands."""

import re
from itertools import chain
from pathlib import Path

import pytest

import domain.errors
from api.settings import Settings
from domain.errors import LedgerError

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "SECURITY.md").read_text()
SOURCE = "\n".join(path.read_text() for path in (ROOT / "api").rglob("*.py"))
ATTACKERS = (
    "network, without a credential",
    "holder of a narrow key",
    "Another workspace",
    "hostile proxy",
    "stolen console session",
    "reads the database or a backup",
    "writes to the database",
    "rolls the database back",
    "has the pepper",
    "has the signing key",
    "operator",
)

named_tests = sorted(set(re.findall(r"`(tests/[\w/]+\.py)`", PAGE)))
named_pages = sorted(set(re.findall(r"\]\(([\w./-]+)", PAGE)))


def rows() -> list[list[str]]:
    """Return the cells of each row of the threat tables."""
    threats = PAGE.partition("## Threats")[2].partition("## What an operator")[0]
    lines = [line for line in threats.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[0] != "attacker" and set(row[0]) != {"-"}]


@pytest.mark.parametrize("name", named_tests)
def test_each_test_that_it_names_exists(name: str) -> None:
    assert "def test_" in (ROOT / name).read_text()


@pytest.mark.parametrize("name", named_pages)
def test_each_linked_page_exists(name: str) -> None:
    assert (ROOT / name).is_file()


def test_each_threat_says_what_stops_it_what_shows_it_and_what_remains() -> None:
    for attacker, tries, stopped, shown, remains in rows():
        assert all((tries, stopped, remains)), attacker
        assert "`tests/" in shown
    attackers = [row[0] for row in rows()]
    for attacker in ATTACKERS:
        assert any(attacker in each for each in attackers), attacker
    assert len(named_tests) > 30


def test_each_setting_code_metric_and_command_that_it_names_exists() -> None:
    for setting in re.findall(r"KEYLEDGER_([A-Z_]+)", PAGE):
        assert setting.lower() in Settings.model_fields
    codes = {each.code for each in vars(domain.errors).values() if is_refusal(each)}
    assert set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", PAGE.replace("KEYLEDGER_", "k"))) <= codes
    logged = re.findall(r"`(keyledger_\w+)`", PAGE)
    assert len(logged) >= 5
    for metric in logged:
        assert f'"{metric}"' in SOURCE
    commands = set(re.findall(r"`keyledger ((?:[a-z]+ ?[a-z-]*)(?<! ))(?: --[a-z]+)?`", PAGE))
    assert commands >= {"audit verify", "doctor", "audit seal", "audit fork"}
    for name in chain.from_iterable(command.split() for command in commands):
        assert f'"{name}"' in SOURCE


def is_refusal(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, LedgerError) and value is not LedgerError


def test_the_readme_links_it() -> None:
    assert "(SECURITY.md)" in (ROOT / "README.md").read_text()
