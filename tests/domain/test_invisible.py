"""Texts that look the same are the same: unneeded invisible characters are refused."""
# ruff: noqa: RUF001 - the letters of other scripts are meant

import sys
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis.strategies import sampled_from

from domain.errors import Invalid
from domain.invisible import INVISIBLE, first_invisible, shows_something
from domain.names import checked_comment, checked_name, checked_reason
from tests.domain.builders import PATIENT

Check = Callable[[str], str | None]

NEEDED = {
    "Persian": "کلید می\u200cخواهم",
    "Persian with vowel marks": "مِی\u200cخواهم",
    "Hindi": "क्\u200dष और क्\u200cष",
    "Sinhala": "ක්\u200dරමය",
    "family": "👨\u200d👩\u200d👧\u200d👦",
    "skin tone": "👩🏽\u200d🚀",
    "pirate": "🏴\u200d☠\ufe0f",
    "rainbow flag": "🏳\ufe0f\u200d🌈",
    "heart": "❤\ufe0f",
    "key cap": "1\ufe0f\u20e3",
    "copyright": "©\ufe0f",
}
LOOK_ALIKES = {
    "zero-width space": "pay\u200broll",
    "joiner between Latin letters": "pay\u200droll",
    "non-joiner between Latin letters": "pay\u200croll",
    "joiner at the end": "payroll\u200d",
    "joiner at the beginning": "\u200dpayroll",
    "joiner behind an emoji": "👩\u200d",
    "two joiners between emoji": "👩\u200d\u200d🚀",
    "non-joiner behind a letter that does not join": "ا\u200cب",
    "non-joiner before a letter that does not join": "ب\u200cء",
    "two non-joiners": "می\u200c\u200cخواهم",
    "non-joiner behind the end of a word": "می\u200c خواهم",
    "joiner between Arabic letters": "ب\u200dب",
    "joiner behind a virama at the end": "क्\u200d",
    "emoji style of a letter": "a\ufe0f",
    "emoji style of a digit that is no key cap": "1\ufe0f",
    "emoji style twice": "❤\ufe0f\ufe0f",
    "text style": "❤\ufe0e",
    "soft hyphen": "pay\u00adroll",
    "word joiner": "pay\u2060roll",
    "byte order mark": "pay\ufeffroll",
    "grapheme joiner": "pay\u034froll",
    "tag": "pay\U000e0061roll",
    "variation selector": "葛\U000e0100",
    "Mongolian selector": "pay\u180broll",
    "Hangul filler": "pay\u3164roll",
    "Braille blank": "pay\u2800roll",
}
NOTHING = [
    "\u3164", "\u2800", "\u115f", "\u1160", "\uffa0", "\u200b", "\u200c", "\u200d", "\u200b\u200c",
    "\u2060", "\ufeff", "\u00ad", "\u034f", "\u180e", "\ufe0f", "\U000e0020", "\u17b4", "\ufffc",
    "\u2800 \u2800", "\u0301", "\u20dd",
]  # fmt: skip


@pytest.mark.parametrize("check", [checked_name, checked_reason, checked_comment])
@pytest.mark.parametrize("text", NEEDED.values(), ids=NEEDED)
def test_an_invisible_character_that_a_script_or_an_emoji_needs_is_allowed(
    check: Check, text: str
) -> None:
    assert check(text) == text


@pytest.mark.parametrize("check", [checked_name, checked_reason, checked_comment])
@pytest.mark.parametrize("text", LOOK_ALIKES.values(), ids=LOOK_ALIKES)
def test_a_look_alike_is_refused_and_the_character_named(check: Check, text: str) -> None:
    with pytest.raises(Invalid, match=r"the character U\+[0-9A-F]{4,6} is not allowed"):
        check(text)


@pytest.mark.parametrize("text", NOTHING, ids=ascii)
def test_a_name_that_shows_nothing_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        checked_name(text)
    assert not shows_something(text)


@given(character=sampled_from(sorted(INVISIBLE)))
@PATIENT
def test_no_invisible_character_makes_a_second_name_of_a_word(character: str) -> None:
    for text in (f"pay{character}roll", f"{character}payroll", f"payroll{character}"):
        with pytest.raises(Invalid):
            checked_name(text)
        assert first_invisible(text) == character


def test_the_table_has_every_format_character_that_shows_nothing() -> None:
    """`unicodedata` has the category Cf, most of the property; visible ones are listed here."""
    shown = {
        *range(0x0600, 0x0606), 0x06DD, 0x070F, 0x0890, 0x0891, 0x08E2, 0x110BD, 0x110CD,
        *range(0x13430, 0x13440),
    }  # fmt: skip
    formats = {
        each for each in range(sys.maxunicode + 1) if unicodedata.category(chr(each)) == "Cf"
    }
    assert formats - shown == {each for each in formats if chr(each) in INVISIBLE}
