import stat
from collections.abc import Callable
from itertools import count
from multiprocessing.synchronize import Barrier
from pathlib import Path
from secrets import token_bytes

import pytest

from domain.errors import LedgerUnavailable
from projections.auth.pepper_file import read_or_make_pepper
from tests.projections.processes import CONTEXT, die_at_system_call, run, run_until_killed, start


def no_more_randomness(_length: int) -> bytes:
    pytest.fail("a pepper that is there is not made anew")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pepper"


def test_a_pepper_is_made_once_and_read_ever_after(path: Path) -> None:
    made = read_or_make_pepper(path, lambda length: bytes(range(length)))
    assert made.value == path.read_bytes() == bytes(range(32))
    assert read_or_make_pepper(path, no_more_randomness) == made
    assert [file.name for file in path.parent.iterdir()] == ["pepper"]


def mode_with_an_open_umask(path: Path) -> int:
    import os  # noqa: PLC0415 - the mask is this process's own

    os.umask(0)
    read_or_make_pepper(path, token_bytes)
    return stat.S_IMODE(path.stat().st_mode)


def test_only_its_owner_can_read_it_whatever_the_umask(path: Path) -> None:
    assert run(mode_with_an_open_umask, path) == 0o600


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_file_of_another_length_is_refused_and_left_alone(path: Path, length: int) -> None:
    path.write_bytes(b"p" * length)
    with pytest.raises(
        LedgerUnavailable, match=f"a pepper has 32 bytes; this one has {length}"
    ) as e:
        read_or_make_pepper(path, no_more_randomness)
    assert str(path) in str(e.value)
    assert "restore the file, which the ledger is sealed with" in str(e.value)
    assert path.read_bytes() == b"p" * length


def in_place_of_the_file(path: Path) -> None:
    path.mkdir()


def in_place_of_the_folder(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_bytes(b"")


def without_the_folder(path: Path) -> None:
    path.parent.rmdir()


@pytest.mark.parametrize(
    "obstacle", [in_place_of_the_file, in_place_of_the_folder, without_the_folder]
)
def test_an_unreadable_file_is_refused(path: Path, obstacle: Callable[[Path], None]) -> None:
    obstacle(path)
    with pytest.raises(LedgerUnavailable, match="cannot read or make the pepper's file: "):
        read_or_make_pepper(path, token_bytes)


def make_together(path: Path, barrier: Barrier) -> bytes:
    def drawn_together(length: int) -> bytes:
        # All have found that there is no file, and all will try to put theirs there.
        barrier.wait(30)
        return token_bytes(length)

    return read_or_make_pepper(path, drawn_together).value


def test_processes_that_make_it_at_once_end_up_with_one(path: Path) -> None:
    number = 5
    barrier = CONTEXT.Barrier(number)
    running = [start(make_together, path, barrier) for _ in range(number)]
    peppers = set()
    for each in running:
        with each:
            peppers.add(each.result())
    assert peppers == {path.read_bytes()}
    assert [file.name for file in path.parent.iterdir()] == ["pepper"]


def make_until(path: Path, number: int) -> None:
    die_at_system_call(number)
    read_or_make_pepper(path, token_bytes)


def test_a_kill_leaves_a_complete_pepper_or_none(tmp_path: Path) -> None:
    left_whole = []
    for number in count(1):
        path = tmp_path / str(number) / "pepper"
        path.parent.mkdir()
        if not run_until_killed(make_until, path, number):
            break
        left_whole.append(path.exists())
        found = path.read_bytes() if path.exists() else None
        pepper = read_or_make_pepper(path, token_bytes)
        assert found in (None, pepper.value)
        assert path.read_bytes() == pepper.value
        # What a killed process leaves beside it is as private as the pepper itself.
        assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    assert True in left_whole
    assert left_whole.count(False) > 3
