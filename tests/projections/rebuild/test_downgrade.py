"""A program with another version of a view keeps the previous table, for a downgrade."""

from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import URL

from domain.key_ids import to_uuid
from domain.verdict import Code
from projections.rebuild.rebuild import build_outdated_views, check, rebuild
from projections.rebuild.status import projection_status
from projections.recorder import LedgerRecorder
from projections.views import entries, key_list
from projections.views.registry import VIEWS
from projections.views.view import View
from tests.conftest import NOON
from tests.engines import Engine, address_of, fresh_copy, sealed_database
from tests.projections.ledgers import (
    HOUR,
    Keys,
    Made,
    differing_rows,
    keys_in,
    use_batches_of,
)
from tests.projections.processes import die_at_statement, run_until_killed
from tests.raw_sql import Rows, rows_of, sql, tables_of

each_view = pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)


def of_version(view: View, *, later: int) -> View:
    return replace(view, version=view.version + later)


def some_life(keys: Keys) -> Made:
    """Append seven events, and return a key that is valid for a while."""
    first = keys.create("first", lives=9 * HOUR)
    for number in range(3):
        keys.create(f"{number}")
    keys.rename(first.key_id, "renamed")
    return keys.rotate(first.key_id)


def opened_with(keys: Keys, view: View) -> list[int]:
    """Build the view as at startup; return the number of events projected, if any."""
    reports = build_outdated_views(keys.database, [view], clock=lambda: NOON, downgrade=True)
    return [report.events for report in reports]


def rename_with(keys: Keys, view: View, made: Made) -> None:
    """Append an event like a program that has this view under the same name."""
    views = [view if each.name == view.name else each for each in VIEWS]
    program = LedgerRecorder(keys.database, views)
    events = program.select_events(to_uuid(made.key_id))
    # A first event says all that a renaming says, and more.
    renamed = replace(events[0], topic="ApiKey.Renamed", originator_version=len(events) + 1)
    program.insert_events([renamed])


def states_of(path: URL, view: View) -> Rows:
    """Return the version and the position of each table of a view."""
    return sql(
        path,
        "SELECT table_name, view_version, position FROM projection_states"
        " WHERE table_name LIKE ? ORDER BY table_name",
        f"{view.name}%",
    )


def indexes_of(path: URL, table: str) -> int:
    return len(sql(path, "SELECT name FROM pragma_index_list(?) WHERE origin = 'c'", table))


@each_view
def test_a_downgrade_reuses_the_previous_table_and_projects_only_newer_events(
    keys: Keys, view: View
) -> None:
    made = some_life(keys)
    name, previous = view.name, f"{view.name}_previous"
    newer = of_version(view, later=1)
    before = rows_of(keys.address, name)
    assert opened_with(keys, newer) == [7]
    assert states_of(keys.address, view) == [(name, newer.version, 7), (previous, view.version, 7)]
    assert rows_of(keys.address, previous) == before

    rename_with(keys, newer, made)
    assert opened_with(keys, newer) == []
    assert rows_of(keys.address, previous) == before
    assert opened_with(keys, view) == [1]
    assert states_of(keys.address, view) == [(name, view.version, 8), (previous, newer.version, 8)]
    assert check(keys.database, view).differing == 0

    keys.revoke(made.key_id)
    assert keys.verify(made.token) is Code.REVOKED
    keys.create("after the way back")
    assert opened_with(keys, newer) == [2]
    assert opened_with(keys, view) == [0]
    assert differing_rows(keys) == {}


@pytest.mark.usefixtures("small_batches")
@each_view
def test_a_downgrade_projects_in_batches(keys: Keys, view: View) -> None:
    made = some_life(keys)
    newer = of_version(view, later=1)
    opened_with(keys, newer)
    for _ in range(9):
        rename_with(keys, newer, made)
    told: list[int] = []
    (report,) = build_outdated_views(
        keys.database,
        [view],
        clock=lambda: NOON,
        progress=lambda _view, done, _last: told.append(done),
        downgrade=True,
    )
    assert (report.events, report.position, told) == (9, 16, [11, 15, 16])
    assert check(keys.database, view).differing == 0


@pytest.mark.only_on("sqlite")
@each_view
def test_no_table_loses_its_indexes_on_the_way(keys: Keys, view: View) -> None:
    some_life(keys)
    versions = [view, of_version(view, later=1)]
    tables = [view.name, f"{view.name}_previous"]
    indexes = len(view.table.indexes)
    for number in range(1, 4):
        for _ in range(number):
            rebuild(keys.database, versions[0], clock=lambda: NOON)
        for _ in range(number):
            versions.reverse()
            opened_with(keys, versions[0])
            assert [indexes_of(keys.address, table) for table in tables] == [indexes, indexes]


@each_view
def test_a_rebuild_drops_the_previous_table_and_a_check_does_not(keys: Keys, view: View) -> None:
    some_life(keys)
    newer = of_version(view, later=1)
    opened_with(keys, newer)
    opened_with(keys, view)
    kept = states_of(keys.address, view)
    assert len(kept) == 2
    check(keys.database, view)
    assert states_of(keys.address, view) == kept
    rebuild(keys.database, view, clock=lambda: NOON)
    assert states_of(keys.address, view) == kept[:1]
    assert f"{view.name}_previous" not in tables_of(keys.address)


@each_view
def test_of_three_versions_the_last_two_are_kept(keys: Keys, view: View) -> None:
    some_life(keys)
    second, third = (of_version(view, later=later) for later in (1, 2))
    for each in (second, third):
        assert opened_with(keys, each) == [7]
    versions = [version for _, version, _ in states_of(keys.address, view)]
    assert versions == [third.version, second.version]
    assert opened_with(keys, second) == [0]
    assert opened_with(keys, view) == [7]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE projection_states SET view_version = 0 WHERE table_name = 'key_list_previous'",
        "UPDATE projection_states SET position = 99 WHERE table_name = 'key_list_previous'",
        "DELETE FROM projection_states WHERE table_name = 'key_list_previous'",
        "DROP TABLE key_list_previous",
    ],
)
def test_an_unusable_previous_table_is_dropped(keys: Keys, change: str) -> None:
    some_life(keys)
    before = rows_of(keys.address, "key_list")
    opened_with(keys, of_version(key_list.VIEW, later=1))
    sql(keys.address, change)
    assert opened_with(keys, key_list.VIEW) == [7]
    assert rows_of(keys.address, "key_list") == before


def test_a_lost_live_table_is_restored_from_the_previous_one_but_not_without_its_state(
    keys: Keys,
) -> None:
    some_life(keys)
    newer = of_version(key_list.VIEW, later=1)
    opened_with(keys, newer)
    sql(keys.address, "DROP TABLE key_list")
    assert opened_with(keys, key_list.VIEW) == [0]
    opened_with(keys, newer)
    sql(keys.address, "DELETE FROM projection_states WHERE table_name = 'key_list'")
    assert opened_with(keys, key_list.VIEW) == [7]
    assert differing_rows(keys) == {}


def test_the_status_describes_only_the_live_table(keys: Keys) -> None:
    made = some_life(keys)
    before = projection_status(keys.database)
    for view in VIEWS:
        newer = of_version(view, later=1)
        opened_with(keys, newer)
        opened_with(keys, view)
    assert projection_status(keys.database) == before
    keys.revoke(made.key_id)
    assert {
        (status.lag, status.rebuild_position) for status in projection_status(keys.database)
    } == {(0, None)}


def go_back_until(data_dir: Path, number: int) -> None:
    use_batches_of(2)
    die_at_statement(number, when="before_cursor_execute")
    with closing(sealed_database(data_dir)) as database:
        build_outdated_views(database, VIEWS, clock=lambda: NOON, downgrade=True)


@pytest.mark.parametrize("view", [key_list.VIEW, entries.VIEW], ids=["by key", "in order"])
def test_a_killed_downgrade_is_resumed_when_the_ledger_is_opened(
    tmp_path: Path, engine: Engine, view: View
) -> None:
    newer = of_version(view, later=1)
    whole = engine.new_place(tmp_path / "whole")
    with keys_in(whole) as keys:
        made = some_life(keys)
        opened_with(keys, newer)
        for _ in range(5):
            rename_with(keys, newer, made)
    data_dir = engine.new_place(tmp_path / "data")
    for number in count(1, 7):
        address = address_of(fresh_copy(whole, data_dir))
        if not run_until_killed(go_back_until, data_dir, number):
            break
        database = sealed_database(data_dir)
        reports = build_outdated_views(database, VIEWS, clock=lambda: NOON, downgrade=True)
        database.close()
        assert sum(report.events for report in reports) <= 5, "none of the first seven"
        with keys_in(data_dir) as keys:
            assert states_of(address, view) == [
                (view.name, view.version, 12),
                (f"{view.name}_previous", newer.version, 12),
            ]
            assert keys.verify(made.token) is Code.VALID
            assert differing_rows(keys) == {}
    assert number > 50
