"""Inspecting a database without changing it."""

from contextlib import closing
from pathlib import Path

import pytest

from api.composition import OpenLedger
from projections.integrity.inspection import contents_of, inspect_file, kind_of_file
from projections.store.schema import HEAD
from projections.store.sqlite_driver import driver as sqlite3
from projections.views.registry import VIEWS


@pytest.mark.parametrize(("mode", "kind"), [("wal", "wal"), ("delete", "rollback journal")])
def test_a_file_tells_its_journal_mode_by_its_header(tmp_path: Path, mode: str, kind: str) -> None:
    path = tmp_path / "ledger.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute("CREATE TABLE something (id)")
    assert kind_of_file(path) == kind


def test_a_file_that_is_not_a_database_is_recognized_without_opening_it(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    assert kind_of_file(path) == "absent"
    path.touch()
    assert kind_of_file(path) == "empty"
    path.write_text("something else")
    assert kind_of_file(path) == "foreign"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.only_on("sqlite")
def test_a_ledger_is_found_as_it_is(opened: OpenLedger) -> None:
    file = inspect_file(opened.database)
    assert (file.synchronous, file.problems) == (2, ())
    found = contents_of(opened.database)
    assert (found.revision, found.events) == (HEAD, 0)
    assert [each.name for each in found.projections] == [view.name for view in VIEWS]


@pytest.mark.only_on("sqlite")
def test_tables_of_another_revision_are_not_counted(opened: OpenLedger) -> None:
    with closing(sqlite3.connect(opened.database.path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.execute("DROP TABLE projection_states")
    found = contents_of(opened.database)
    assert (found.revision, found.projections) == ("9999", ())
