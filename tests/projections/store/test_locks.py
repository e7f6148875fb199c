import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import pytest

from projections.store.database import Database, open_database
from projections.store.locks import task_lock
from tests.projections.processes import CONTEXT, start


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(f"sqlite:///{tmp_path}/ledger.sqlite3")
    yield database
    database.close()


def test_one_holds_it_and_the_next_is_told_at_once(database: Database) -> None:
    with task_lock(database, "task") as first:
        with task_lock(database, "task") as second:
            assert (first, second) == (True, False)
        # A second one that ends does not end the first one's.
        with task_lock(database, "task") as third:
            assert not third
    with task_lock(database, "task") as fourth:
        assert fourth


def test_different_tasks_and_databases_have_different_locks(
    database: Database, tmp_path: Path
) -> None:
    other = open_database(f"sqlite:///{tmp_path}/other.sqlite3")
    with (
        task_lock(database, "task") as first,
        task_lock(database, "other task") as second,
        task_lock(other, "task") as third,
    ):
        assert first
        assert second
        assert third
    other.close()


def test_threads_exclude_each_other_too(database: Database) -> None:
    told: list[bool] = []

    def ask() -> None:
        with task_lock(database, "task") as held:
            told.append(held)

    with task_lock(database, "task"):
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join(10)
    ask()
    assert told == [False, True]


def test_it_ends_with_an_error_inside(database: Database) -> None:
    def fail() -> None:
        with task_lock(database, "task"):
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    with task_lock(database, "task") as held:
        assert held


def hold(url: str, told: Pipe) -> None:
    with task_lock(open_database(url), "task") as held:
        told.send(held)
        told.recv()


def test_it_ends_with_the_process_however_that_ends(database: Database, tmp_path: Path) -> None:
    ours, theirs = CONTEXT.Pipe()
    with start(hold, f"sqlite:///{tmp_path}/ledger.sqlite3", theirs) as holder:
        assert ours.recv()
        with task_lock(database, "task") as held:
            assert not held
        holder.kill()
        with task_lock(database, "task") as held:
            assert held
