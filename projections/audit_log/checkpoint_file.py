"""The checkpoint file outside the database: append-only, best on another volume.

Someone who controls only the database cannot change it. It holds notes, one after the other, with
an empty line between two.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from projections.store.private_files import FileOwner, open_private_file, sync_folder

_END = b"\n\n"
_SIGNATURE = "\N{EM DASH} ".encode()
"""Prefix of each signature line, which are the last paragraph of a note."""

_TAIL = 65_536
_LONGEST = 4_096
"""Maximum length of a note that we write; the tail that is read is many times as long."""


def last_note_in(path: Path) -> str | None:
    """Return the last complete note; ``None`` if the file has none or does not exist.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a file of notes.
    """
    try:
        _, tail = _read_tail(path)
    except FileNotFoundError:
        return None
    notes = _notes(_whole(tail))
    return notes[-1].decode() if notes else None


def notes_in(path: Path) -> Iterator[str]:
    """Yield all complete notes, oldest first; read a file of any size one note at a time.

    Bytes between two notes that belong to neither become part of the second one, whose signature
    is then invalid.

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
                message = f"{path.name} is not a checkpoint file"
                raise ValueError(message)
            if line == b"\n" and lines[-2:-1] and lines[-2].startswith(_SIGNATURE):
                yield b"".join(lines[:-1]).decode()
                lines, length = [], 0


def append_note(path: Path, note: str, owner: FileOwner | None = None) -> None:
    """Append a note and sync it to disk; only one process may do this at a time.

    A partial note that a crash left at the end is overwritten; nothing else ever is.

    Args:
        owner: owner of a new file; ``None`` for the owner of its folder.

    Raises:
        OSError: the file cannot be written.
        ValueError: it is not a file of notes, or does not end with a note or the beginning of one.
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
    """Sync the file to disk, in case its writer was killed before it did.

    Raises:
        OSError: the file cannot be synced.
    """
    with path.open("rb") as file:
        os.fsync(file.fileno())
    sync_folder(path.parent)


def set_aside(path: Path, name: str) -> None:
    """Rename the file, if it exists, so that the file of a new log can be started.

    Raises:
        OSError: the file cannot be renamed.
    """
    if path.exists():
        path.rename(path.with_name(f"{path.name}.{name}"))
        sync_folder(path.parent)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines that exist now; a line that is too long for a note comes in parts."""
    # What is appended meanwhile may overwrite a partial note.
    rest = os.fstat(file.fileno()).st_size
    while line := file.readline(min(rest, _LONGEST + 1)):
        rest -= len(line)
        yield line


def _read_tail(path: Path) -> tuple[int, bytes]:
    """Return the end of the file, and the offset at which it begins.

    Raises:
        ValueError: more follows the last note than part of a note.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - _TAIL)
        file.seek(start)
        tail = file.read()
    if len(tail) - len(_whole(tail)) > _LONGEST:
        message = f"{path.name} is not a checkpoint file"
        raise ValueError(message)
    return start, tail


def _check_torn(torn: bytes, note: bytes) -> None:
    """Verify that what will be overwritten is the beginning of a note of the same log."""
    # After a power failure, blocks that were never written may read as zeros.
    first_line = torn.partition(b"\n")[0].rstrip(b"\0")
    if not note.startswith(first_line):
        message = f"the checkpoint file does not end with a checkpoint: {first_line[:60]!r}"
        raise ValueError(message)


def _whole(content: bytes) -> bytes:
    """Cut off what follows the last complete note: a signature line and an empty line end one."""
    while content:
        end = content.rfind(_END)
        if end < 0:
            return b""
        content = content[: end + len(_END)]
        if content[:end].rpartition(b"\n")[2].startswith(_SIGNATURE):
            return content
        # This is the empty line in the middle of a note.
        content = content[: end + 1]
    return content


def _notes(content: bytes) -> list[bytes]:
    """Split complete notes; the beginning of the first one may be missing."""
    texts = content.removesuffix(_END).split(_END)
    return [
        b"%b\n\n%b\n" % (text, signatures)
        for text, signatures in zip(texts[-2::-2], texts[-1::-2], strict=False)
    ][::-1]
