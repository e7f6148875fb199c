"""The checkpoints outside the database: a file that only grows, best on another volume.

It is what an owner of the database alone cannot change: notes, one after the other, with an empty
line between two.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from projections.store.private_files import FileOwner, open_private_file, sync_folder

_END = b"\n\n"
_SIGNATURE = "\N{EM DASH} ".encode()
"""How each line of the last paragraph of a note begins."""

_TAIL = 65_536
_LONGEST = 4_096
"""Of a note that we write; the tail is many times as long."""


def last_note_in(path: Path) -> str | None:
    """Return the last note that was written whole; ``None`` if the file has none, or is not there.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no file of notes.
    """
    try:
        _, tail = _read_tail(path)
    except FileNotFoundError:
        return None
    notes = _notes(_whole(tail))
    return notes[-1].decode() if notes else None


def notes_in(path: Path) -> Iterator[str]:
    """Yield all notes that were written whole, the oldest first; of any file, one at a time.

    What is between two notes and belongs to neither is given as a part of the second, whose
    signature is not for that.

    Raises:
        OSError, ValueError: as for `last_note_in`.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        lines: list[bytes] = []
        length = 0
        for line in _lines(file):
            lines.append(line)
            length += len(line)
            if length > _LONGEST:
                message = f"{path.name} is no file of checkpoints"
                raise ValueError(message)
            if line == b"\n" and lines[-2:-1] and lines[-2].startswith(_SIGNATURE):
                yield b"".join(lines[:-1]).decode()
                lines, length = [], 0


def append_note(path: Path, note: str, owner: FileOwner | None = None) -> None:
    """Write a note at the end; it is on the disk when this returns. One process at a time does it.

    What a crash has left of a note that was being written is written over; nothing else ever is.

    Args:
        owner: of a new file; ``None`` for the owner of its folder.

    Raises:
        OSError: it cannot be written.
        ValueError: it is no file of notes, or ends with something else than a note's beginning.
    """
    content = note.encode() + b"\n"
    handle = open_private_file(path, owner)
    with os.fdopen(handle, "r+b") as file:
        start, tail = _read_tail(path)
        whole = _whole(tail)
        _check_torn(tail[len(whole) :], content)
        file.truncate(start + len(whole))
        file.seek(start + len(whole))
        file.write(content)
        file.flush()
        os.fsync(handle)
    if not whole:
        sync_folder(path.parent)


def sync_notes(path: Path) -> None:
    """Let what is in the file be on the disk, whoever wrote it and was killed before it was.

    Raises:
        OSError: it cannot be done.
    """
    with path.open("rb") as file:
        os.fsync(file.fileno())
    sync_folder(path.parent)


def put_aside(path: Path, name: str) -> None:
    """Rename the file, if it is there, so that another log's can be begun.

    Raises:
        OSError: it cannot be renamed.
    """
    if path.exists():
        path.rename(path.with_name(f"{path.name}.{name}"))
        sync_folder(path.parent)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines that are there now; one that is too long for a note comes in parts."""
    # What is added while this goes on may take the place of the part of a note.
    rest = os.fstat(file.fileno()).st_size
    while line := file.readline(min(rest, _LONGEST + 1)):
        rest -= len(line)
        yield line


def _read_tail(path: Path) -> tuple[int, bytes]:
    """Read the end of the file, and tell where it begins.

    Raises:
        ValueError: there is more after the last note than a part of one.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - _TAIL)
        file.seek(start)
        tail = file.read()
    if len(tail) - len(_whole(tail)) > _LONGEST:
        message = f"{path.name} is no file of checkpoints"
        raise ValueError(message)
    return start, tail


def _check_torn(torn: bytes, note: bytes) -> None:
    """Hold what is to be written over to being the beginning of a note of the same log."""
    # Where a disk lost power there may be zeros that were never written.
    first_line = torn.partition(b"\n")[0].rstrip(b"\0")
    if not note.startswith(first_line):
        message = f"the file of checkpoints ends with something else: {first_line[:60]!r}"
        raise ValueError(message)


def _whole(content: bytes) -> bytes:
    """Cut off what does not end as a note does: by a line of a signature and an empty line."""
    while content:
        end = content.rfind(_END)
        if end < 0:
            return b""
        content = content[: end + len(_END)]
        if content[:end].rpartition(b"\n")[2].startswith(_SIGNATURE):
            return content
        # The empty line in the middle of a note.
        content = content[: end + 1]
    return content


def _notes(content: bytes) -> list[bytes]:
    """Take whole notes apart; of the first one the beginning may be missing."""
    texts = content.removesuffix(_END).split(_END)
    return [
        b"%b\n\n%b\n" % (text, signatures)
        for text, signatures in zip(texts[-2::-2], texts[-1::-2], strict=False)
    ][::-1]
