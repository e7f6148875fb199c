"""Write an audit pack: the whole history in one file, which an auditor verifies without the ledger.

`projections.tlog.offline_verifier` defines the format, also for this writer, and how a pack is
verified; a copy of it is part of every pack. The same history, checkpoints and reports give the
same file, byte for byte.
"""

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

from projections.tlog import offline_verifier
from projections.tlog.checkpoint import Checkpoint, open_checkpoint
from projections.tlog.merkle import CompactRange
from projections.tlog.notes import SigningKey, sign_note
from projections.tlog.offline_verifier import (
    FIXED_NAMES,
    MANIFEST,
    MAX_MEMBERS,
    REPORT_NAME,
    Member,
    directory,
    manifest_text,
)

VERIFIER = Path(offline_verifier.__file__)
HOW_TO_CHECK = Path(__file__).with_name("HOW-TO-CHECK.md")


def write_pack(
    target: BinaryIO,
    *,
    entries: Iterable[bytes],
    checkpoints: Iterable[str],
    key: SigningKey,
    reports: Mapping[str, Iterable[bytes]],
) -> Checkpoint:
    """Write a pack; memory use does not depend on the number of entries.

    Args:
        target: an empty file, writable and seekable.
        entries: all entries, without line ends.
        checkpoints: signed notes, oldest first; the last one covers all the entries.
        key: the ledger's signing key, which signed the checkpoints.
        reports: contents of additional files by name, such as ``keys.csv``.

    Returns:
        The last checkpoint.

    Raises:
        ValueError: the last checkpoint does not cover these entries, or a report has a name that
            is not allowed in a pack. What was written is not a valid pack.
    """
    names = [f"reports/{name}" for name in sorted(reports)]
    refused = [name for name in names if not REPORT_NAME.fullmatch(name)]
    if refused or len(names) + len(FIXED_NAMES) + 1 > MAX_MEMBERS:
        message = (
            f"a pack has less than {MAX_MEMBERS - len(FIXED_NAMES)} reports, named in the"
            f" characters a-z 0-9 . _ -; not: {', '.join(refused) or len(names)}"
        )
        raise ValueError(message)
    pack = _Pack(target)
    history, signed = _History(entries), _Signed(checkpoints)
    contents: list[Iterable[bytes]] = [
        history.lines(),
        signed.notes(),
        [f"{key.verifier_key}\n".encode()],
        [HOW_TO_CHECK.read_bytes()],
        [VERIFIER.read_bytes()],
        *(reports[name] for name in sorted(reports)),
    ]
    for name, content in zip([*FIXED_NAMES, *names], contents, strict=True):
        pack.add(name, content)
    checkpoint = Checkpoint(key.name, history.tree.size, history.tree.root())
    if signed.last is None or not _is_of(checkpoint, signed.last, key):
        message = f"the last checkpoint does not cover the {checkpoint.size} entries given"
        raise ValueError(message)
    manifest = manifest_text(key.name, checkpoint.size, checkpoint.root, pack.digests)
    pack.add(MANIFEST, [sign_note(manifest, key).encode()])
    pack.finish()
    return checkpoint


class _History:
    """Yield the lines of the entries, and build their Merkle tree at the same time."""

    def __init__(self, entries: Iterable[bytes]) -> None:
        self._entries = entries
        self.tree = CompactRange(0, lambda _nodes: [])

    def lines(self) -> Iterator[bytes]:
        for entry in self._entries:
            self.tree.append(entry)
            yield entry + b"\n"


class _Signed:
    """Yield the notes of checkpoints, separated by empty lines, and keep the last one."""

    def __init__(self, checkpoints: Iterable[str]) -> None:
        self._checkpoints = checkpoints
        self.last: str | None = None

    def notes(self) -> Iterator[bytes]:
        for note in self._checkpoints:
            if self.last is not None:
                yield b"\n"
            yield note.encode()
            self.last = note


class _Pack:
    """Write members one after the other, each in one pass."""

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self._members: list[Member] = []
        self.digests: list[tuple[str, str]] = []

    def add(self, name: str, content: Iterable[bytes]) -> None:
        begin = self._target.tell()
        # A placeholder: the length of a header depends only on the name.
        self._target.write(Member(name, 0, 0).header())
        crc, size, sha = 0, 0, sha256()
        for part in content:
            self._target.write(part)
            crc, size = crc32(part, crc), size + len(part)
            sha.update(part)
        end = self._target.tell()
        member = Member(name, crc, size)
        self._target.seek(begin)
        self._target.write(member.header())
        self._target.seek(end)
        self._members.append(member)
        self.digests.append((name, sha.hexdigest()))

    def finish(self) -> None:
        self._target.write(directory(self._members))


def _is_of(checkpoint: Checkpoint, note: str, key: SigningKey) -> bool:
    said = open_checkpoint(note, [key.verifier_key])
    return (said.size, said.root) == (checkpoint.size, checkpoint.root)
