"""Detect tokens in free text.

People paste tokens into the wrong field: a name, a reason, a search, a request id. A text with a
token must not be stored or logged. Tokens are detected in the forms in which they are usually
pasted:

- by form: ``_`` followed by 40 or more base62 characters, in any letter case and with any prefix.
  This also finds truncated and mistyped tokens. Hexadecimal digests do not match.
- by checksum: 65 characters of which the last 6 are the checksum of the first 59. This finds a
  token without its prefix, and one that is broken by line breaks, spaces, quotes or any other
  character outside base62.

Both are searched in the text itself, in its compatibility form (NFKC, for full-width letters),
after removing percent-encoding, HTML references and backslash escapes, and in what its runs of
base64 and hexadecimal digits encode.
"""

import base64
import html
import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote
from zlib import crc32

from domain.tokens import (
    ALPHABET,
    CHECKSUM_LENGTH,
    LOOKUP_ID_LENGTH,
    SECRET_LENGTH,
    hide_secrets,
)

MAX_CHECKED = 10_000
"""Length up to which searching a text for tokens is cheap: a few milliseconds."""
NOT_SHOWN = "(not shown)"
_MOST_OF_A_TOKEN = 40
_SHORTEST = _MOST_OF_A_TOKEN + 1
_CHECKED = LOOKUP_ID_LENGTH + SECRET_LENGTH
_LENGTH = _CHECKED + CHECKSUM_LENGTH
# Hexadecimal digests have at most 128 digits; a token also contains other letters.
_BY_FORM = re.compile(
    rf"_(?!(?:[0-9a-f]+|[0-9A-F]+)(?![0-9A-Za-z]))[0-9A-Za-z]{{{_MOST_OF_A_TOKEN},}}", re.ASCII
)
_NOT_BASE62 = re.compile(rb"[^0-9A-Za-z]+")
_ESCAPE = re.compile(
    r"\\(?:u\{([0-9A-Fa-f]{1,6})\}|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|x([0-9A-Fa-f]{2}))"
)
_ENCODED = re.compile(r"[^\x00-\x7f]|[%&\\]")
_BASE64_RUN = re.compile(rb"[0-9A-Za-z+/_-]{54,}")
_HEX_RUN = re.compile(rb"[0-9A-Fa-f]{82,}")
_MOST_ENCODINGS = 4
_BASE = len(ALPHABET)
_VALUES = {ord(character): value for value, character in enumerate(ALPHABET)}
_LARGEST_CRC = 0xFFFF_FFFF


def contains_token(text: str) -> bool:
    """Return whether a text contains a token, as it is or encoded.

    The time is proportional to the length of the text, about a microsecond for each character;
    a text that is too short for a token takes less than a microsecond.
    """
    if len(text) < _SHORTEST:
        return False
    if len(text) < _LENGTH and not _ENCODED.search(text):
        return _BY_FORM.search(text) is not None
    return any(_has_token(form) for form in _forms(text))


def hide_tokens(text: str) -> str:
    """Return a message or log line without the tokens in it, in any form.

    Each long base62 string is replaced, as in `hide_secrets`. If a token in another form remains,
    the whole text is replaced. A text of more than `MAX_CHECKED` characters is cut.
    """
    hidden = hide_secrets(text)
    if len(hidden) > MAX_CHECKED:
        hidden = hidden[: MAX_CHECKED - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return NOT_SHOWN if contains_token(hidden) else hidden


def _has_token(text: str) -> bool:
    return _BY_FORM.search(text) is not None or _has_checked_run(text)


def _has_checked_run(text: str) -> bool:
    """Return whether 65 base62 characters in a row, ignoring others, end with their checksum."""
    run = _NOT_BASE62.sub(b"", text.encode("ascii", "replace"))
    largest = _BASE**CHECKSUM_LENGTH
    checksum = 0
    for end, character in enumerate(run, start=1):
        checksum = (checksum * _BASE + _VALUES[character]) % largest
        # Most 6 characters encode more than 32 bits; the CRC is computed only for the others.
        if (
            end >= _LENGTH
            and checksum <= _LARGEST_CRC
            and crc32(run[end - _LENGTH : end - CHECKSUM_LENGTH]) == checksum
        ):
            return True
    return False


def _forms(text: str) -> Iterator[str]:
    """Yield the text, the text without its escapes, and what its encoded runs decode to."""
    form = text
    for _ in range(_MOST_ENCODINGS):
        yield form
        yield from _encoded_in(form.encode("ascii", "replace"))
        plain = _unescaped(form)
        if plain == form:
            return
        form = plain
    yield form


def _unescaped(text: str) -> str:
    plain = unicodedata.normalize("NFKC", html.unescape(unquote(text, errors="replace")))
    return _ESCAPE.sub(_character, plain)


def _character(escape: re.Match[str]) -> str:
    number = int(next(group for group in escape.groups() if group is not None), 16)
    return chr(number) if number <= 0x10FFFF else ""  # noqa: PLR2004 - the last of Unicode


def _encoded_in(text: bytes) -> Iterator[str]:
    for run in _HEX_RUN.findall(text):
        for start in range(2):
            digits = run[start : start + (len(run) - start) // 2 * 2]
            yield bytes.fromhex(digits.decode()).decode("latin-1")
    for run in _BASE64_RUN.findall(text):
        standard = run.replace(b"-", b"+").replace(b"_", b"/")
        for start in range(4):
            digits = standard[start:]
            if len(digits) % 4 == 1:
                digits = digits[:-1]
            yield base64.b64decode(digits + b"=" * (-len(digits) % 4)).decode("latin-1")
