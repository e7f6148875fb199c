"""The checkpoint file: whatever tears it, exactly the complete notes before stay."""

import os
import stat
import tracemalloc
from itertools import accumulate
from pathlib import Path

import pytest

from projections.audit_log import checkpoint_file
from projections.audit_log.checkpoint_file import append_note, last_note_in, notes_in, set_aside
from projections.tlog.checkpoint import Checkpoint, sign_checkpoint
from projections.tlog.notes import SigningKey
from tests.projections.processes import run

KEY = SigningKey("ledger.example/log", bytes(range(32)))
ANOTHER = SigningKey("another.example/log", bytes(range(32)))
NOTES = [
    sign_checkpoint(Checkpoint(KEY.name, size, bytes([size]) * 32), KEY) for size in (1, 9, 10, 123)
]
ENDS = list(accumulate(len(note.encode()) + 1 for note in NOTES))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints.txt"


def filled(path: Path) -> bytes:
    for note in NOTES:
        append_note(path, note)
    return path.read_bytes()


def test_notes_are_read_as_they_were_written(path: Path) -> None:
    filled(path)
    assert list(notes_in(path)) == NOTES
    assert last_note_in(path) == NOTES[-1]


def test_a_missing_file_has_no_notes(path: Path) -> None:
    assert list(notes_in(path)) == []
    assert last_note_in(path) is None
    assert not path.exists()


def test_it_is_a_text_with_an_empty_line_after_each_note(path: Path) -> None:
    assert filled(path).decode() == "".join(f"{note}\n" for note in NOTES)


def test_a_file_cut_at_any_byte_keeps_its_complete_notes_and_can_be_appended_to(path: Path) -> None:
    content = filled(path)
    assert ENDS[-1] == len(content)
    for cut in range(len(content) + 1):
        path.write_bytes(content[:cut])
        whole = [note for note, end in zip(NOTES, ENDS, strict=True) if end <= cut]

        assert list(notes_in(path)) == whole, cut
        assert last_note_in(path) == (whole[-1] if whole else None), cut

        append_note(path, NOTES[-1])
        assert list(notes_in(path)) == [*whole, NOTES[-1]], cut
        assert path.read_bytes() == "".join(f"{note}\n" for note in notes_in(path)).encode(), cut


def test_of_a_long_one_no_more_than_a_note_is_in_memory(path: Path) -> None:
    number = 20_000
    path.write_bytes(filled(path) * (number // len(NOTES)))
    found = notes_in(path)
    next(found)

    tracemalloc.start()
    rest = sum(1 for _ in found)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert rest == number - 1
    assert most < 100_000 < path.stat().st_size // 20


def test_notes_appended_during_reading_are_left_out(path: Path) -> None:
    filled(path)
    found = notes_in(path)
    assert next(found) == NOTES[0]
    append_note(path, NOTES[0])
    assert list(found) == NOTES[1:]


@pytest.mark.parametrize("junk", [b"junk\n", b"junk\n\n", b"\n", b"a\n\nb\n\nc\n\n"])
def test_bytes_between_two_notes_invalidate_only_the_second(path: Path, junk: bytes) -> None:
    content = filled(path)
    path.write_bytes(content[: ENDS[0]] + junk + content[ENDS[0] :])
    assert list(notes_in(path)) == [NOTES[0], junk.decode() + NOTES[1], *NOTES[2:]]


@pytest.mark.parametrize("window", range(400, 900, 37))
def test_only_the_end_is_read_of_a_long_one(
    path: Path, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = filled(path) * 9
    monkeypatch.setattr(checkpoint_file, "_TAIL", window)
    for torn in (0, 1, 50, ENDS[0] - 1):
        path.write_bytes(content + content[:torn])

        assert last_note_in(path) == NOTES[-1]

        append_note(path, NOTES[0])
        assert path.read_bytes() == content + NOTES[0].encode() + b"\n"


def test_a_note_torn_by_a_power_failure_is_overwritten(path: Path) -> None:
    content = filled(path)
    for left in (b"\0" * 300, KEY.name[:5].encode() + b"\0" * 300, KEY.name.encode() + b"\n\0\0"):
        path.write_bytes(content + left)

        append_note(path, NOTES[0])

        assert list(notes_in(path)) == [*NOTES, NOTES[0]]


@pytest.mark.parametrize(
    "content",
    [
        b"PATH=/usr/bin\n",
        b"a file that somebody may want\n\nback\n",
        b"x" * 5_000,
        b"x" * 100_000,
        b"\0" * 100_000,
        sign_checkpoint(Checkpoint(ANOTHER.name, 1, bytes(32)), ANOTHER)[:-9].encode(),
    ],
)
@pytest.mark.parametrize("after", [0, len(NOTES)])
def test_bytes_that_are_not_part_of_a_note_are_never_overwritten(
    path: Path, content: bytes, after: int
) -> None:
    for note in NOTES[:after]:
        append_note(path, note)
    with path.open("ab") as file:
        file.write(content)
    before = path.read_bytes()

    with pytest.raises(ValueError, match="checkpoint file"):
        append_note(path, NOTES[0])

    assert path.read_bytes() == before


def test_a_large_file_without_notes_is_not_treated_as_empty(path: Path) -> None:
    path.write_bytes(b"x" * 100_000)
    for read in (last_note_in, lambda path: list(notes_in(path))):
        with pytest.raises(ValueError, match=r"checkpoints.txt is not a checkpoint file"):
            read(path)


def mode_with_an_open_umask(path: Path) -> int:
    os.umask(0)
    append_note(path, NOTES[0])
    return stat.S_IMODE(path.stat().st_mode)


def test_only_its_owner_can_read_it_whatever_the_umask(path: Path) -> None:
    assert run(mode_with_an_open_umask, path) == 0o600


def test_a_database_without_a_folder_cannot_be_created(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        append_note(path.parent / "not mounted" / path.name, NOTES[0])


def test_a_file_set_aside_is_complete_under_its_new_name(path: Path) -> None:
    content = filled(path)
    set_aside(path, "before-0a1b2c3d")
    set_aside(path, "before-0a1b2c3d")
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == {
        "checkpoints.txt.before-0a1b2c3d": content
    }
