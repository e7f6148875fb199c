"""Tokens: the strings that clients present.

``<prefix>_<lookup id: 16><secret: 43><checksum: 6>``, everything but the prefix in base62. The
secret has 256 bits. The lookup id has 95 bits, is public and finds the key. The checksum is the
CRC-32 of both in base62, as in GitHub's tokens: it catches typing errors and lets a scanner for
leaked secrets check a hit offline. It is no security control.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from zlib import crc32

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
LOOKUP_ID_LENGTH = 16
SECRET_LENGTH = 43
CHECKSUM_LENGTH = 6
DISPLAYED_LENGTH = 8

RandomSource = Callable[[int], bytes]
"""Returns this many random bytes; in production `secrets.token_bytes`."""

_TOKEN = re.compile(
    rf"([a-z][a-z0-9]{{0,15}})_([0-9A-Za-z]{{{LOOKUP_ID_LENGTH}}})"
    rf"([0-9A-Za-z]{{{SECRET_LENGTH}}})([0-9A-Za-z]{{{CHECKSUM_LENGTH}}})",
    re.ASCII,
)
# No word and none of our ids is this long; a text of only hexadecimal digits is a hash.
_PERHAPS_SECRET = re.compile(
    r"(?<![0-9A-Za-z])(?![0-9a-f]+(?![0-9A-Za-z]))[0-9A-Za-z]{40,}", re.ASCII
)
_LONGEST = 16 + 1 + LOOKUP_ID_LENGTH + SECRET_LENGTH + CHECKSUM_LENGTH
_HIDDEN = SECRET_LENGTH + CHECKSUM_LENGTH
# 248 is the largest multiple of 62 in a byte: using only bytes below it makes every character
# equally likely.
_FAIR_BELOW = 248


@dataclass(frozen=True, slots=True)
class Token:
    """A parsed token; neither `repr` nor `str` shows the secret."""

    prefix: str
    lookup_id: str
    secret: str = field(repr=False)

    def __str__(self) -> str:
        """Return only the public part."""
        return self.display_prefix

    @property
    def display_prefix(self) -> str:
        """The form shown in lists: ``<prefix>_<first 8 of the lookup id>...``."""
        return display_prefix(self.prefix, self.lookup_id)

    def reveal(self) -> str:
        """Return the whole token, to be shown once to its owner."""
        checksum = _checksum(self.lookup_id, self.secret)
        return f"{self.prefix}_{self.lookup_id}{self.secret}{checksum}"


def display_prefix(prefix: str, lookup_id: str) -> str:
    """Return ``<prefix>_<first 8 of the lookup id>...``."""
    return f"{prefix}_{lookup_id[:DISPLAYED_LENGTH]}..."


def mint(prefix: str, random: RandomSource) -> Token:
    """Create a new token.

    Args:
        prefix: its prefix, already validated.
        random: source of the lookup id and the secret.
    """
    characters = _random_base62(LOOKUP_ID_LENGTH + SECRET_LENGTH, random)
    return Token(prefix, characters[:LOOKUP_ID_LENGTH], characters[LOOKUP_ID_LENGTH:])


def parse(text: str) -> Token | None:
    """Parse a presented token; return ``None`` if its form or checksum is wrong.

    There is no I/O, and the time does not depend on the length of the text: a few microseconds.
    """
    if len(text) > _LONGEST:
        return None
    match = _TOKEN.fullmatch(text)
    if match is None:
        return None
    prefix, lookup_id, secret, checksum = match.groups()
    if checksum != _checksum(lookup_id, secret):
        return None
    return Token(prefix, lookup_id, secret)


def split(text: str) -> tuple[str, str, str]:
    """Split a text as if it were a token, without checking that it is one.

    Returns:
        The public part, the secret, and the checksum.
    """
    return text[:-_HIDDEN], text[-_HIDDEN:-CHECKSUM_LENGTH], text[-CHECKSUM_LENGTH:]


def hide_secrets(text: str) -> str:
    """Return a message without anything in it that may be a secret.

    Someone may have put a token where an id or a scope belongs, and a message that quotes it would
    copy it into a log.
    """
    return _PERHAPS_SECRET.sub("(not shown)", text)


def _checksum(lookup_id: str, secret: str) -> str:
    number = crc32((lookup_id + secret).encode("ascii"))
    digits = ""
    while number:
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits.rjust(CHECKSUM_LENGTH, "0")


def _random_base62(length: int, random: RandomSource) -> str:
    characters = ""
    while len(characters) < length:
        fair = (byte for byte in random(length) if byte < _FAIR_BELOW)
        characters += "".join(ALPHABET[byte % len(ALPHABET)] for byte in fair)
    return characters[:length]
