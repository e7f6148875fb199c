"""The signing key file: created once, private, and never replaced."""

import stat
from collections.abc import Callable
from itertools import count
from multiprocessing.synchronize import Barrier
from pathlib import Path
from secrets import token_bytes

import pytest

from domain.errors import LedgerUnavailable
from projections.audit_log.signing_key_file import read_or_make_signing_key
from projections.tlog.notes import SigningKey
from tests.projections.processes import CONTEXT, die_at_system_call, run, run_until_killed, start


def no_more_randomness(_length: int) -> bytes:
    pytest.fail("a key that is there is not made anew")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "signing-key"


def test_a_key_is_made_once_and_read_ever_after(path: Path) -> None:
    made = read_or_make_signing_key(path, lambda length: bytes(range(length)))

    assert made == SigningKey("keyledger/0001020304050607", bytes(range(32)))
    assert path.read_text() == f"{made.reveal()}\n"
    assert read_or_make_signing_key(path, no_more_randomness) == made
    assert [file.name for file in path.parent.iterdir()] == ["signing-key"]


def test_no_other_ledger_is_called_the_same(tmp_path: Path) -> None:
    keys = [read_or_make_signing_key(tmp_path / str(number), token_bytes) for number in range(9)]
    assert len({key.name for key in keys}) == len({key.seed for key in keys}) == 9


def mode_with_an_open_umask(path: Path) -> int:
    import os  # noqa: PLC0415 - the mask is this process's own

    os.umask(0)
    read_or_make_signing_key(path, token_bytes)
    return stat.S_IMODE(path.stat().st_mode)


def test_only_its_owner_can_read_it_whatever_the_umask(path: Path) -> None:
    assert run(mode_with_an_open_umask, path) == 0o600


@pytest.mark.parametrize(
    "damage",
    [
        lambda _text: "",
        lambda text: text[:-2],
        lambda text: text.swapcase(),
        lambda text: text + text,
        lambda text: text.removeprefix("PRIVATE+KEY+"),
        lambda text: text.replace("keyledger/", "keyledger "),
        lambda text: f"{text}\udcff",
    ],
)
def test_a_damaged_file_is_refused_left_alone_and_not_shown(
    path: Path, damage: Callable[[str], str]
) -> None:
    key = read_or_make_signing_key(path, token_bytes)
    secret = key.reveal().split("+", 4)[4]
    damaged = damage(path.read_text()).encode(errors="surrogateescape")
    assert damaged != path.read_bytes()
    path.write_bytes(damaged)

    with pytest.raises(LedgerUnavailable) as caught:
        read_or_make_signing_key(path, no_more_randomness)

    assert str(path) in str(caught.value)
    assert "restore the file. If it is lost, remove it" in str(caught.value)
    assert "keyledger audit fork" in str(caught.value)
    assert secret[:20] not in str(caught.value)
    assert path.read_bytes() == damaged


def test_an_unreadable_file_is_refused(path: Path) -> None:
    path.mkdir()
    for place in (path, path.parent / "missing" / "signing-key"):
        with pytest.raises(LedgerUnavailable, match="cannot read or make the signing key's file: "):
            read_or_make_signing_key(place, token_bytes)


def make_together(path: Path, barrier: Barrier) -> str:
    waited = False

    def drawn_together(length: int) -> bytes:
        nonlocal waited
        if not waited:
            # All have found that there is no file, and all will try to create it.
            barrier.wait(30)
        waited = True
        return token_bytes(length)

    return read_or_make_signing_key(path, drawn_together).reveal()


def test_processes_that_make_it_at_once_end_up_with_one(path: Path) -> None:
    number = 4
    barrier = CONTEXT.Barrier(number)
    running = [start(make_together, path, barrier) for _ in range(number)]
    keys = set()
    for each in running:
        with each:
            keys.add(each.result())
    assert {f"{key}\n" for key in keys} == {path.read_text()}
    assert [file.name for file in path.parent.iterdir()] == ["signing-key"]


def make_until(path: Path, number: int) -> None:
    die_at_system_call(number)
    read_or_make_signing_key(path, token_bytes)


def test_a_kill_leaves_a_complete_signing_key_or_none(tmp_path: Path) -> None:
    left_whole = []
    for number in count(1):
        path = tmp_path / str(number) / "signing-key"
        path.parent.mkdir()
        if not run_until_killed(make_until, path, number):
            break
        left_whole.append(path.exists())
        found = path.read_text() if path.exists() else None
        key = read_or_make_signing_key(path, token_bytes)
        assert found in (None, f"{key.reveal()}\n")
        assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    assert True in left_whole
    assert False in left_whole
