"""Signed notes: a text followed by signatures (C2SP ``signed-note``), with Ed25519 keys.

The note of a text of one line, signed with a key named ``example.com/log``, is::

    hello

    — example.com/log <base64 of the key id and the signature>

A public key is published as one line of text, ``<name>+<key id>+<base64>``. A private key is stored
as one line that begins with ``PRIVATE+KEY+``. Both are as in Go's ``golang.org/x/mod/sumdb/note``.
"""

import re
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SEED_LENGTH = 32
MAX_SIGNATURES = 64
"""Limit for one note; a note with more is rejected. The specification requires at least 16."""

_ED25519 = b"\x01"
_PUBLIC_KEY_LENGTH = 32
_PRIVATE = "PRIVATE+KEY+"
_ENCODED_KEY = re.compile(r"(?P<name>[^+]+)\+(?P<key_id>[0-9a-f]{8})\+(?P<key>[0-9A-Za-z+/=]+)")
_SIGNATURE = re.compile(r"— (?P<name>[^ +]+) (?P<signature>[0-9A-Za-z+/=]+)")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key.

    Args:
        name: name of the key; for the key of a log its origin, such as ``example.com/ledger``.
        public_key: 32 bytes, as in RFC 8032.
    """

    name: str
    public_key: bytes

    def __post_init__(self) -> None:
        """Reject a key that cannot be written into a note.

        Raises:
            ValueError: the name is empty or contains whitespace, control characters or a plus; or
                the public key does not have 32 bytes.
        """
        _check_name(self.name)
        if len(self.public_key) != _PUBLIC_KEY_LENGTH:
            message = f"an Ed25519 public key has 32 bytes; this one has {len(self.public_key)}"
            raise ValueError(message)

    def __str__(self) -> str:
        """Return the line of text in which the key is published."""
        return f"{self.name}+{self.key_id.hex()}+{_encoded(_ED25519 + self.public_key)}"

    @property
    def key_id(self) -> bytes:
        """The four bytes that identify the key, with its name, in each signature."""
        named = self.name.encode() + b"\n" + _ED25519 + self.public_key
        return sha256(named).digest()[:4]

    @classmethod
    def from_text(cls, text: str) -> "VerifierKey":
        """Parse the line that `str` returns.

        Raises:
            ValueError: the line is malformed, or the key is not an Ed25519 key.
        """
        name, key_id, public_key = _read_key(text, "public key", _PUBLIC_KEY_LENGTH)
        key = cls(name, public_key)
        _check_key_id(key_id, key)
        return key


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key.

    Args:
        name: as for `VerifierKey`.
        seed: 32 random bytes, the private key in RFC 8032.
    """

    name: str
    seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Reject a key that cannot sign.

        Raises:
            ValueError: as for `VerifierKey`, or the seed does not have 32 bytes.
        """
        _check_name(self.name)
        if len(self.seed) != SEED_LENGTH:
            message = f"the seed of a signing key has 32 bytes; this one has {len(self.seed)}"
            raise ValueError(message)

    @property
    def verifier_key(self) -> VerifierKey:
        """The public key."""
        private_key = Ed25519PrivateKey.from_private_bytes(self.seed)
        return VerifierKey(self.name, private_key.public_key().public_bytes_raw())

    def reveal(self) -> str:
        """Return the line of text in which the key is stored; it is secret."""
        key_id = self.verifier_key.key_id.hex()
        return f"{_PRIVATE}{self.name}+{key_id}+{_encoded(_ED25519 + self.seed)}"

    @classmethod
    def from_text(cls, text: str) -> "SigningKey":
        """Parse the line that `reveal` returns.

        Raises:
            ValueError: the line is malformed; the message contains nothing of the key.
        """
        if not text.startswith(_PRIVATE):
            message = f"a signing key is one line that begins with {_PRIVATE}"
            raise ValueError(message)
        name, key_id, seed = _read_key(text.removeprefix(_PRIVATE), "signing key", SEED_LENGTH)
        key = cls(name, seed)
        _check_key_id(key_id, key.verifier_key)
        return key


def sign_note(text: str, key: SigningKey) -> str:
    """Return a note of a text, with one signature.

    Raises:
        ValueError: the text does not end with a newline, or contains other control characters.
    """
    if not text.endswith("\n"):
        message = "the text of a note ends with a newline"
        raise ValueError(message)
    _check_characters(text)
    signature = Ed25519PrivateKey.from_private_bytes(key.seed).sign(text.encode())
    return f"{text}\n— {key.name} {_encoded(key.verifier_key.key_id + signature)}\n"


def open_note(note: str, keys: Iterable[VerifierKey]) -> tuple[str, frozenset[VerifierKey]]:
    """Return the text of a note, and which of the keys signed it; at least one did.

    Signatures by other keys are ignored, as the specification requires, so that others may add
    theirs.

    Raises:
        ValueError: it is not a note, none of the keys signed it, or a signature that names one of
            the keys is invalid.
    """
    text, signatures = _parse(note)
    known = {(key.name, key.key_id): key for key in keys}
    signed_by = set()
    for name, key_id, signature in signatures:
        key = known.get((name, key_id))
        if key is not None:
            _check_signature(text, key, signature)
            signed_by.add(key)
    if not signed_by:
        expected = ", ".join(map(str, known.values()))
        found = ", ".join(f"{name}+{key_id.hex()}" for name, key_id, _ in signatures)
        message = f"the note is signed by {found}, and not by {expected}"
        raise ValueError(message)
    return text, frozenset(signed_by)


def text_of(note: str) -> str:
    """Return the text of a note without verifying any signature.

    Raises:
        ValueError: it is not a note.
    """
    return _parse(note)[0]


def _parse(note: str) -> tuple[str, list[tuple[str, bytes, bytes]]]:
    _check_characters(note)
    text, blank_line, signed = note.rpartition("\n\n")
    lines = signed.split("\n")
    if not blank_line or lines.pop() != "" or not lines:
        message = "a note is a text, an empty line, and lines of signatures, each with its newline"
        raise ValueError(message)
    if len(lines) > MAX_SIGNATURES:
        message = f"a note has at most {MAX_SIGNATURES} signatures; this one has {len(lines)}"
        raise ValueError(message)
    return text + "\n", [_parsed_signature(line) for line in lines]


def _parsed_signature(line: str) -> tuple[str, bytes, bytes]:
    match = _SIGNATURE.fullmatch(line)
    if match is None:
        message = f"not a signature line (— NAME BASE64): {line[:200]!r}"
        raise ValueError(message)
    _check_name(match["name"])
    signature = _decoded(match["signature"])
    if len(signature) <= 4:  # noqa: PLR2004 - the bytes of a key id
        message = f"the signature of {match['name']} has no bytes after its key id"
        raise ValueError(message)
    return match["name"], signature[:4], signature[4:]


def _check_signature(text: str, key: VerifierKey, signature: bytes) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(key.public_key).verify(signature, text.encode())
    except InvalidSignature:
        message = f"the signature of {key.name} is invalid: the text or the signature was changed"
        raise ValueError(message) from None


def _read_key(text: str, what: str, length: int) -> tuple[str, str, bytes]:
    match = _ENCODED_KEY.fullmatch(text)
    if match is None:
        message = f"a {what} is one line of the form NAME+KEYID+BASE64, the key id in 8 hex digits"
        raise ValueError(message)
    key = _decoded(match["key"])
    if key[:1] != _ED25519 or len(key) != 1 + length:
        message = f"the {what} is not an Ed25519 key: byte 01 and {length} more, in base64"
        raise ValueError(message)
    return match["name"], match["key_id"], key[1:]


def _check_key_id(key_id: str, key: VerifierKey) -> None:
    if key_id != key.key_id.hex():
        message = f"the key of {key.name} has the id {key.key_id.hex()}, not {key_id}: a misprint?"
        raise ValueError(message)


def _check_name(name: str) -> None:
    if not name or "+" in name or any(character.isspace() for character in name):
        message = f"the name of a key is not empty and has no whitespace and no plus: {name!r}"
        raise ValueError(message)
    _check_characters(name)


def _check_characters(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        message = "a note is UTF-8, which has no lone surrogates"
        raise ValueError(message) from None
    if _CONTROL.search(text):
        message = "a note has no control characters except newlines"
        raise ValueError(message)


def _encoded(value: bytes) -> str:
    return b64encode(value).decode()


def _decoded(text: str) -> bytes:
    """Decode base64; accept only the canonical encoding (RFC 4648, section 4)."""
    try:
        value = b64decode(text, validate=True)
    except NotBase64:
        value = b""
    if _encoded(value) != text:
        # The value is not shown: it may be part of a signing key.
        message = "a value is not base64, or not in its canonical encoding"
        raise ValueError(message)
    return value
