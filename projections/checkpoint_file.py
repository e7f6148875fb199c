"""The checkpoints outside the database: a file that only grows, best on another volume.

It is what an owner of the database alone cannot change: notes, one after the other, with an empty
line between two.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from projections.private_file import make_private_file, sync_folder

_END = b"\n\n"
_TAIL = 65_536  # many times as long as the longest note


def last_note_in(path: Path) -> str | None:
    """Return the last note that was written whole; ``None`` if the file has none, or is not there.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no file of notes.
    """
    if not path.exists():
        return None
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL))
        whole = _whole(file.read())
    return _notes(whole)[-1].decode() if whole else None


def notes_in(path: Path) -> Iterator[str]:
    """Yield all notes that were written whole, the oldest first.

    Raises:
        OSError, ValueError: as for `last_note_in`.
    """
    if path.exists():
        yield from (note.decode() for note in _notes(_whole(path.read_bytes())))


def append_note(path: Path, note: str) -> None:
    """Write a note at the end; it is on the disk when this returns. One process at a time does it.

    What a crash has left of a note that was being written is written over.

    Raises:
        OSError: it cannot be written.
    """
    if not path.exists():
        make_private_file(path, b"")
    with path.open("r+b") as file:
        content_end = _end_of_whole(path)
        file.seek(content_end)
        file.write(note.encode() + b"\n")
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


def put_aside(path: Path, name: str) -> None:
    """Rename the file, if it is there, so that another log's can be begun.

    Raises:
        OSError: it cannot be renamed.
    """
    if path.exists():
        path.rename(path.with_name(f"{path.name}.{name}"))
        sync_folder(path.parent)


def _end_of_whole(path: Path) -> int:
    """Return where the last whole note ends."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - _TAIL)
        file.seek(start)
        return start + len(_whole(file.read()))


def _whole(content: bytes) -> bytes:
    """Cut off what does not end as a note does: by a line of a signature and an empty line."""
    while content:
        end = content.rfind(_END)
        if end < 0:
            return b""
        content = content[: end + len(_END)]
        if content[:end].rpartition(b"\n")[2].startswith("\N{EM DASH} ".encode()):
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
