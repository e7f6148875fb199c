"""A rebuild keeps writers to an SQLite file waiting only briefly."""

import struct
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import event

from projections.rebuild.rebuild import rebuild
from projections.views import auth_lookup
from projections.views.registry import VIEWS
from projections.views.view import View
from tests.conftest import NOON
from tests.projections.ledgers import Keys
from tests.raw_sql import sql

pytestmark = pytest.mark.only_on("sqlite")

each_view = pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)


def frames_to_be_copied(path: Path) -> int:
    """Return how many pages are in the log and not yet in the file.

    Read from the index of the log: mxFrame and nBackfill, in the machine's order of bytes (SQLite
    documentation, "WAL-mode File Format", section 2).
    """
    index = path.with_name(f"{path.name}-shm").read_bytes()
    (last,) = struct.unpack_from("=I", index, 16)
    (copied,) = struct.unpack_from("=I", index, 96)
    return int(last - copied)


@pytest.mark.usefixtures("small_batches")
@each_view
def test_no_commit_has_to_empty_the_log_least_of_all_the_one_that_cuts_over(
    keys: Keys, view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.store.sqlite.LONG_WAL", 0)
    for number in range(9):
        keys.create(f"{number}")
    waiting = [frames_to_be_copied(keys.database.path)]
    assert waiting[0] > 0

    def look(*_: object) -> None:
        waiting.append(frames_to_be_copied(keys.database.path))

    def clock() -> datetime:
        look()
        return NOON

    rebuild(keys.database, view, clock=clock, progress=look)
    assert len(waiting) > 4
    assert set(waiting[1:]) == {0}


def left_after_each_commit(keys: Keys, view: View) -> list[tuple[int, int]]:
    """Rebuild a view; return how many indexes and rows the old table had at each commit."""
    name = f"{view.name}_previous"
    left: list[tuple[int, int]] = []

    def look(_connection: object) -> None:
        if sql(keys.address, "SELECT 1 FROM sqlite_schema WHERE name = ?", name):
            ((indexes,),) = sql(
                keys.address, "SELECT count(*) FROM pragma_index_list(?) WHERE origin = 'c'", name
            )
            ((rows,),) = sql(keys.address, f"SELECT count(*) FROM {name}")  # noqa: S608
            left.append((indexes, rows))

    # The event comes before the commit, so that what is seen is what the one before it left.
    event.listen(keys.database.writer, "commit", look)
    rebuild(keys.database, view, clock=lambda: NOON)
    event.remove(keys.database.writer, "commit", look)
    return left


@pytest.mark.parametrize(
    "view", [view for view in VIEWS if view is not auth_lookup.VIEW], ids=lambda view: view.name
)
def test_a_replaced_table_is_dropped_an_index_at_a_time_then_some_rows_at_a_time(
    keys: Keys, view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        keys.create(f"{number}")
    monkeypatch.setattr("projections.rebuild.view_tables.ROWS", 4)
    left = left_after_each_commit(keys, view)
    indexes = len(view.table.indexes)
    assert left[0] == (indexes, 9)
    assert left[-1] == (0, 0), "the table itself is dropped when nothing is in it"
    seen = list(dict.fromkeys(left))
    assert seen == [*((number, 9) for number in range(indexes, -1, -1)), (0, 5), (0, 1), (0, 0)]


def test_a_table_with_an_index_that_has_to_stay_is_dropped_at_once(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        keys.create(f"{number}")
    monkeypatch.setattr("projections.rebuild.view_tables.ROWS", 4)
    assert {rows for _, rows in left_after_each_commit(keys, auth_lookup.VIEW)} == {9}


def test_dropped_pages_are_not_overwritten(keys: Keys) -> None:
    # Some builds of SQLite do it unless told otherwise, and a million rows then take seconds.
    with keys.database.writer.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA secure_delete").scalar() == 0
