"""Checkpoints: size and root of the tree, as a text to be signed (C2SP ``tlog-checkpoint``).

Who keeps a signed checkpoint can tell, at any later time, whether the ledger still has the same
history up to there: the root stands for every entry that there was.
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
    """What a log says of itself.

    Args:
        origin: which log it is; the name of its key.
        size: how many entries it has.
        root: the root of the Merkle tree over them.
        extensions: further lines, which mean nothing here and are kept.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the text that is signed.

        Raises:
            ValueError: a value cannot be written so that it could be read again.
        """
        lines = [self.origin, str(self.size), b64encode(self.root).decode(), *self.extensions]
        text = "".join(f"{line}\n" for line in lines)
        if Checkpoint.from_text(text) != self:
            message = "the origin and the extensions of a checkpoint are one line each"
            raise ValueError(message)
        return text

    @classmethod
    def from_text(cls, text: str) -> "Checkpoint":
        """Read the text of a checkpoint.

        Raises:
            ValueError: it does not have the form of one.
        """
        *lines, after_the_last = text.split("\n")
        if len(lines) < _FIXED_LINES or after_the_last or not all(lines):
            message = "a checkpoint has at least three lines, of which none is empty"
            raise ValueError(message)
        origin, size, encoded_root, *extensions = lines
        if not _SIZE.fullmatch(size):
            message = f"the second line of a checkpoint is a size in digits, not {size[:60]!r}"
            raise ValueError(message)
        return cls(origin, int(size), _decoded_root(encoded_root), tuple(extensions))


def sign_checkpoint(checkpoint: Checkpoint, key: SigningKey) -> str:
    """Return the note of a checkpoint, signed by its log.

    Raises:
        ValueError: the key is another log's, or a value of the checkpoint cannot be written.
    """
    if checkpoint.origin != key.name:
        message = f"the key of {key.name} does not sign for {checkpoint.origin}"
        raise ValueError(message)
    return sign_note(str(checkpoint), key)


def open_checkpoint(note: str, keys: Iterable[VerifierKey]) -> Checkpoint:
    """Return the checkpoint in a note that its log has signed with one of the keys.

    Raises:
        ValueError: as for `open_note`; or it is no checkpoint; or of the keys only others than
            its log's have signed it.
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
