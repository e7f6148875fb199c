"""Tokens: the string that a client presents.

``<prefix>_<lookup id: 16><secret: 43><checksum: 6>``, all but the prefix in base62. The secret
has 256 bits; the lookup id, 95 bits, is public and finds the key. The checksum is the CRC-32 of
both in base62, as GitHub's token formats do it: it stops typing mistakes and lets a scanner for
leaked secrets check a hit without asking anybody. It is no security control.
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
"""Gives that many random bytes; in production `secrets.token_bytes`."""

_TOKEN = re.compile(
    rf"([a-z][a-z0-9]{{0,15}})_([0-9A-Za-z]{{{LOOKUP_ID_LENGTH}}})"
    rf"([0-9A-Za-z]{{{SECRET_LENGTH}}})([0-9A-Za-z]{{{CHECKSUM_LENGTH}}})",
    re.ASCII,
)
# No word is so long and no id of ours; what is all in hexadecimal digits is somebody's hash.
_PERHAPS_SECRET = re.compile(
    r"(?<![0-9A-Za-z])(?![0-9a-f]+(?![0-9A-Za-z]))[0-9A-Za-z]{40,}", re.ASCII
)
_LONGEST = 16 + 1 + LOOKUP_ID_LENGTH + SECRET_LENGTH + CHECKSUM_LENGTH
_HIDDEN = SECRET_LENGTH + CHECKSUM_LENGTH
# 248 is the largest multiple of 62 in a byte: taking only bytes below it makes every character
# equally likely.
_FAIR_BELOW = 248


@dataclass(frozen=True, slots=True)
class Token:
    """A token in its parts; neither `repr` nor `str` shows the secret."""

    prefix: str
    lookup_id: str
    secret: str = field(repr=False)

    def __str__(self) -> str:
        """Return the public part alone."""
        return self.display_prefix

    @property
    def display_prefix(self) -> str:
        """What lists show: ``<prefix>_<first 8 of the lookup id>...``."""
        return display_prefix(self.prefix, self.lookup_id)

    def reveal(self) -> str:
        """Return the whole token, to be shown once to whom it was made for."""
        checksum = _checksum(self.lookup_id, self.secret)
        return f"{self.prefix}_{self.lookup_id}{self.secret}{checksum}"


def display_prefix(prefix: str, lookup_id: str) -> str:
    """Return ``<prefix>_<first 8 of the lookup id>...``."""
    return f"{prefix}_{lookup_id[:DISPLAYED_LENGTH]}..."


def mint(prefix: str, random: RandomSource) -> Token:
    """Make a new token.

    Args:
        prefix: what it starts with; the caller has checked it.
        random: where the lookup id and the secret come from.
    """
    characters = _random_base62(LOOKUP_ID_LENGTH + SECRET_LENGTH, random)
    return Token(prefix, characters[:LOOKUP_ID_LENGTH], characters[LOOKUP_ID_LENGTH:])


def parse(text: str) -> Token | None:
    """Read a presented token; ``None`` if it cannot be one (form or checksum).

    It does no I/O and takes the same few microseconds however long the text is.
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
    """Take a text apart as if it were a token, without looking whether it is one.

    Returns:
        The part that everybody may see, the secret, and the checksum.
    """
    return text[:-_HIDDEN], text[-_HIDDEN:-CHECKSUM_LENGTH], text[-CHECKSUM_LENGTH:]


def hide_secrets(text: str) -> str:
    """Return a message without what may be a secret in it.

    Somebody may have put a token where an id or a scope belongs, and a message that quotes it
    would carry it on into a log.
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
