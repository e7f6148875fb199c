"""Text from people: what is accepted, and what could do harm where it is shown."""

import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis.strategies import characters, text

from domain.errors import Invalid
from domain.names import (
    checked_comment,
    checked_name,
    checked_reason,
    checked_token_prefix,
    checked_workspace,
)
from tests.domain.builders import PATIENT

HOSTILE = {
    "null": "\0",
    "escape": "\x1b[2J",
    "delete": "\x7f",
    "carriage return": "\r",
    "C1 control": "\x9b",
    "lone high surrogate": "\ud800",
    "lone low surrogate": "\udfff",
    "right-to-left override": "\u202e",
    "left-to-right embedding": "\u202a",
    "pop direction": "\u202c",
    "right-to-left mark": "\u200f",
    "left-to-right mark": "\u200e",
    "Arabic letter mark": "\u061c",
    "isolate": "\u2066",
    "pop isolate": "\u2069",
    "line separator": "\u2028",
    "paragraph separator": "\u2029",
}
BREAKS = {"line break": "\n", "tabulator": "\t"}
BLANK = ["", " ", "\t\n ", "\N{NO-BREAK SPACE}", "\N{IDEOGRAPHIC SPACE}"]
ANY_TEXT = text(characters(codec=None, exclude_categories=()), max_size=130)

Check = Callable[[str], str | None]
LONGEST: dict[Check, int] = {checked_name: 120, checked_reason: 200, checked_comment: 2000}
FIELDS: dict[Check, str] = {
    checked_name: "name",
    checked_reason: "reason",
    checked_comment: "comment",
}
every_text = pytest.mark.parametrize("check", FIELDS, ids=FIELDS.values())


@every_text
class TestText:
    @pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
    def test_unsafe_characters_are_refused_and_named(self, check: Check, hostile: str) -> None:
        with pytest.raises(Invalid, match=f"U\\+{ord(hostile[0]):04X} is not") as refusal:
            check(f"pay{hostile}roll")

        assert refusal.value.field == FIELDS[check]
        # The refusal itself can be shown safely.
        str(refusal.value).encode()

    def test_the_longest_is_as_long_as_it_says(self, check: Check) -> None:
        longest = "ж" * LONGEST[check]

        assert check(longest) == longest
        with pytest.raises(Invalid, match=f"at most {LONGEST[check]} characters") as refusal:
            check(longest + "ж")
        assert refusal.value.field == FIELDS[check]

    @pytest.mark.parametrize(
        "friendly",
        [
            "payments-api",
            "Zoë's key",
            "支払い",
            "مفتاح",
            "a\u00a0b",
            "👩‍💻 laptop",
            '<b>"&',
            "%s{0}",
        ],
    )
    def test_every_script_is_allowed(self, check: Check, friendly: str) -> None:
        assert check(friendly) == friendly

    def test_surrounding_whitespace_is_removed(self, check: Check) -> None:
        assert check("  \N{IDEOGRAPHIC SPACE}payroll\t\n") == "payroll"

    @given(typed=ANY_TEXT)
    @PATIENT
    def test_any_input_is_refused_or_safe(self, check: Check, typed: str) -> None:
        try:
            kept = check(typed)
        except Invalid:
            return
        if kept is None:
            assert check is not checked_name
            return
        assert kept == kept.strip()
        assert 0 < len(kept) <= LONGEST[check]
        assert check(kept) == kept
        for character in kept:
            if check is checked_comment and character in "\n\t":
                continue
            assert unicodedata.category(character) not in {"Cc", "Cs", "Zl", "Zp"}
            assert unicodedata.bidirectional(character) not in {
                *("LRE", "RLE", "LRO", "RLO", "PDF"),
                *("LRI", "RLI", "FSI", "PDI"),
            }


@pytest.mark.parametrize("blank", BLANK)
def test_a_name_cannot_be_blank(blank: str) -> None:
    with pytest.raises(Invalid, match="the name is empty"):
        checked_name(blank)


@pytest.mark.parametrize("check", [checked_reason, checked_comment])
@pytest.mark.parametrize("blank", [None, *BLANK])
def test_a_blank_reason_or_comment_is_none(
    check: Callable[[str | None], str | None], blank: str | None
) -> None:
    assert check(blank) is None


@pytest.mark.parametrize("check", [checked_name, checked_reason])
@pytest.mark.parametrize("line_break", BREAKS.values(), ids=BREAKS)
def test_a_name_and_a_reason_have_one_line(check: Check, line_break: str) -> None:
    with pytest.raises(Invalid):
        check(f"pay{line_break}roll")


def test_a_comment_may_have_several_lines() -> None:
    assert checked_comment("seen on a forum:\n\thttps://forum.example\n") == (
        "seen on a forum:\n\thttps://forum.example"
    )


class TestWorkspace:
    @pytest.mark.parametrize("name", ["root", "default", "acme.eu-1_test", "0", "a" * 63])
    def test_a_plain_name_is_kept(self, name: str) -> None:
        assert checked_workspace(name) == name

    @pytest.mark.parametrize(
        "name",
        [*BLANK, *HOSTILE.values(), "a" * 64, "Acme", "-a", ".a", "_a", "a/b", "a b", "a\n", "é"],
    )
    def test_anything_else_is_refused(self, name: str) -> None:
        with pytest.raises(Invalid) as refusal:
            checked_workspace(name)

        assert refusal.value.field == "workspace"


class TestTokenPrefix:
    @pytest.mark.parametrize("prefix", ["key", "blnk", "a", "a1", "a" * 16])
    def test_a_plain_prefix_is_kept(self, prefix: str) -> None:
        assert checked_token_prefix(prefix) == prefix

    @pytest.mark.parametrize(
        "prefix",
        [*BLANK, *HOSTILE.values(), "a" * 17, "Key", "1a", "a_b", "a-b", "key\n", "ſ"],  # noqa: RUF001
    )
    def test_anything_else_is_refused(self, prefix: str) -> None:
        with pytest.raises(Invalid) as refusal:
            checked_token_prefix(prefix)

        assert refusal.value.field == "prefix"
