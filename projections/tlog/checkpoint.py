"""Checkpoints: size and root of the tree, as a text to be signed (C2SP ``tlog-checkpoint``).

Someone who keeps a signed checkpoint can verify at any later time that the ledger still has the
same history up to it: the root depends on every entry.
"""

import re
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Iterable
from dataclasses import dataclass

from projections.tlog.merkle import HASH_LENGTH
from projections.tlog.notes import SigningKey, VerifierKey, open_note, sign_note

_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_FIXED_LINES = 3


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Size and root of a log.

    Args:
        origin: name of the log, which is the name of its key.
        size: number of entries.
        root: root hash of the Merkle tree over the entries.
        extensions: further lines; they are kept and not interpreted.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the text to be signed.

        Raises:
            ValueError: the text would not parse to the same checkpoint.
        """
        lines = [self.origin, str(self.size), b64encode(self.root).decode(), *self.extensions]
        text = "".join(f"{line}\n" for line in lines)
        if Checkpoint.from_text(text) != self:
            message = "the origin and the extensions of a checkpoint are one line each"
            raise ValueError(message)
        return text

    @classmethod
    def from_text(cls, text: str) -> "Checkpoint":
        """Parse the text of a checkpoint.

        Raises:
            ValueError: the text is not a checkpoint.
        """
        *lines, after_the_last = text.split("\n")
        if len(lines) < _FIXED_LINES or after_the_last or not all(lines):
            message = "a checkpoint has at least three lines, and none of them is empty"
            raise ValueError(message)
        origin, size, encoded_root, *extensions = lines
        if not _SIZE.fullmatch(size):
            message = f"the second line of a checkpoint is a size in digits, not {size[:60]!r}"
            raise ValueError(message)
        return cls(origin, int(size), _decoded_root(encoded_root), tuple(extensions))


def sign_checkpoint(checkpoint: Checkpoint, key: SigningKey) -> str:
    """Return the note of a checkpoint, signed with its log's key.

    Raises:
        ValueError: the key belongs to another log, or the checkpoint cannot be written as text.
    """
    if checkpoint.origin != key.name:
        message = f"the key of {key.name} does not sign for {checkpoint.origin}"
        raise ValueError(message)
    return sign_note(str(checkpoint), key)


def open_checkpoint(note: str, keys: Iterable[VerifierKey]) -> Checkpoint:
    """Return the checkpoint in a note that its log signed with one of the keys.

    Raises:
        ValueError: as for `open_note`; or the text is not a checkpoint; or its origin is not the
            name of a key that signed it.
    """
    text, signed_by = open_note(note, keys)
    checkpoint = Checkpoint.from_text(text)
    if checkpoint.origin not in {key.name for key in signed_by}:
        others = ", ".join(sorted(key.name for key in signed_by))
        message = f"only {others} signed this checkpoint of {checkpoint.origin}"
        raise ValueError(message)
    return checkpoint


def _decoded_root(text: str) -> bytes:
    try:
        root = b64decode(text, validate=True)
    except NotBase64:
        root = b""
    if len(root) != HASH_LENGTH or b64encode(root).decode() != text:
        message = f"the third line of a checkpoint is 32 bytes in base64, not {text[:60]!r}"
        raise ValueError(message)
    return root
