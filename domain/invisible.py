"""Find invisible characters in displayed text.

Two texts that look the same must be the same; otherwise a key could get a name that looks like
another key's. So an invisible character is rejected, unless a script or an emoji needs it.

Invisible are the characters with the property Default_Ignorable_Code_Point (Unicode Standard Annex
#44, DerivedCoreProperties.txt; for the reason see Unicode Technical Standard #39, section 3.1), and
a few others without a visible glyph. `unicodedata` does not have the property, so the ranges are
listed here. They include code points that are reserved for such characters, so they do not change
with new versions of Unicode.

Not found here: different letters of the same shape (Latin and Cyrillic `a`), which names in several
scripts need; and joined emoji that no font draws as one.
"""

import unicodedata
from collections.abc import Iterable

_DEFAULT_IGNORABLE = (
    (0x00AD, 0x00AD),  # soft hyphen
    (0x034F, 0x034F),  # combining grapheme joiner
    (0x061C, 0x061C),  # Arabic letter mark
    (0x115F, 0x1160),  # Hangul fillers
    (0x17B4, 0x17B5),  # Khmer inherent vowels
    (0x180B, 0x180F),  # Mongolian variation selectors and vowel separator
    (0x200B, 0x200F),  # zero-width space, joiners, direction marks
    (0x202A, 0x202E),  # direction embeddings and overrides
    (0x2060, 0x206F),  # word joiner, invisible operators, isolates, deprecated controls
    (0x3164, 0x3164),  # Hangul filler
    (0xFE00, 0xFE0F),  # variation selectors
    (0xFEFF, 0xFEFF),  # zero-width no-break space
    (0xFFA0, 0xFFA0),  # half-width Hangul filler
    (0xFFF0, 0xFFF8),  # reserved
    (0x1BCA0, 0x1BCA3),  # shorthand format controls
    (0x1D173, 0x1D17A),  # musical format controls
    (0xE0000, 0xE0FFF),  # tags, variation selectors supplement, reserved
)
_NO_GLYPH = (
    (0x2800, 0x2800),  # Braille pattern blank
    (0xFFF9, 0xFFFC),  # interlinear annotation, object replacement
    (0x13441, 0x13442),  # hieroglyph blanks
    (0x16FE4, 0x16FE4),  # Khitan filler
    (0x1D159, 0x1D159),  # musical null notehead
)


def _all_of(ranges: Iterable[tuple[int, int]]) -> frozenset[str]:
    return frozenset(chr(each) for first, last in ranges for each in range(first, last + 1))


DEFAULT_IGNORABLE = _all_of(_DEFAULT_IGNORABLE)
INVISIBLE = DEFAULT_IGNORABLE | _all_of(_NO_GLYPH)

_NON_JOINER, _JOINER, _EMOJI_STYLE, _KEYCAP = "\u200c", "\u200d", "\ufe0f", "\u20e3"
_VIRAMA = 9
"""Combining class of signs that join two consonants (UAX #44, Canonical_Combining_Class)."""

# Arabic letters that join only with the preceding letter, or with none
# (ArabicShaping.txt, Joining_Type R and U).
_NOT_JOINING_ONWARDS = _all_of(
    [
        (0x0621, 0x0625), (0x0627, 0x0627), (0x0629, 0x0629), (0x062F, 0x0632), (0x0648, 0x0648),
        (0x0671, 0x0677), (0x0688, 0x0699), (0x06C0, 0x06C0), (0x06C3, 0x06CB), (0x06CD, 0x06CD),
        (0x06CF, 0x06CF), (0x06D2, 0x06D3), (0x06D5, 0x06D5), (0x06EE, 0x06EF),
    ]
)  # fmt: skip
_NOT_JOINING_BACK = frozenset("\u0621\u0674")
_EMOJI = _all_of([(0x2190, 0x21FF), (0x2600, 0x27BF), (0x2B00, 0x2BFF), (0x1F000, 0x1FAFF)])
_EMOJI_BY_STYLE = _EMOJI | frozenset(
    "\u00a9\u00ae\u203c\u2049\u2122\u2139\u231a\u231b\u2328\u23cf\u24c2\u3030\u303d\u3297\u3299"
)
_EMOJI_BY_STYLE |= _all_of([(0x23E9, 0x23FA), (0x25AA, 0x25FE), (0x2934, 0x2935)])


def first_invisible(text: str) -> str | None:
    """Return the first invisible character that no script or emoji needs, or ``None``.

    Needed are (RFC 5892, appendix A, for the first two):

    - a joiner or non-joiner between a virama and a letter, as in Hindi and Sinhala;
    - a non-joiner between two Arabic letters that would join, as in Persian;
    - a joiner between two emoji, and the selector of the coloured form after an emoji.
    """
    for place, character in enumerate(text):
        if character in INVISIBLE and not _is_needed(character, text, place):
            return character
    return None


def shows_something(text: str) -> bool:
    """Return whether at least one character of the text is a letter, number, mark or symbol."""
    return any(
        unicodedata.category(character)[0] in "LNPS" and character not in INVISIBLE
        for character in text
    )


def _is_needed(character: str, text: str, place: int) -> bool:
    before, after = text[:place], text[place + 1 :]
    if character in (_NON_JOINER, _JOINER) and _joins_consonants(before, after):
        return True
    match character:
        case "\u200c":
            return _parts_arabic_letters(before, after)
        case "\u200d":
            return _joins_emoji(before, after)
        case "\ufe0f":
            return _styles_emoji(before, after)
    return False


def _joins_consonants(before: str, after: str) -> bool:
    return (
        unicodedata.combining(before[-1:] or " ") == _VIRAMA
        and unicodedata.category(after[:1] or " ") == "Lo"
    )


def _parts_arabic_letters(before: str, after: str) -> bool:
    last, first = _base(reversed(before)), _base(after)
    return (
        _is_arabic_letter(last)
        and last not in _NOT_JOINING_ONWARDS
        and _is_arabic_letter(first)
        and first not in _NOT_JOINING_BACK
    )


def _base(characters: Iterable[str]) -> str:
    """Return the first character that is not a combining mark; a space if there is none."""
    return next((each for each in characters if unicodedata.category(each) != "Mn"), " ")


def _is_arabic_letter(character: str) -> bool:
    return "\u0620" <= character <= "\u06ff" and unicodedata.category(character) == "Lo"


def _joins_emoji(before: str, after: str) -> bool:
    last = before.removesuffix(_EMOJI_STYLE)[-1:]
    return bool(last) and last in _EMOJI and after[:1] in _EMOJI


def _styles_emoji(before: str, after: str) -> bool:
    last = before[-1:]
    if after.startswith(_KEYCAP):
        return bool(last) and last in "0123456789#*"
    return bool(last) and last in _EMOJI_BY_STYLE
