from datetime import UTC, datetime

import pytest

from projections.rebuild.rebuild import rebuild
from projections.rebuild.status import ProjectionStatus, projection_status
from projections.views import auth_lookup, key_list
from projections.views.registry import VIEWS
from tests.conftest import NOON, SettableClock
from tests.projections.ledgers import Keys
from tests.raw_sql import rows_of, sql


def status_of(keys: Keys, name: str) -> ProjectionStatus:
    (status,) = (each for each in projection_status(keys.database) if each.name == name)
    return status


def test_live_views_are_never_behind(keys: Keys, clock: SettableClock) -> None:
    first = keys.create("first")
    keys.create("second")
    keys.rename(first.key_id, "renamed")
    assert status_of(keys, "key_list").rows == 2
    for view in VIEWS:
        assert status_of(keys, view.name) == ProjectionStatus(
            name=view.name,
            view_version=view.version,
            position=3,
            last_position=3,
            lag=0,
            rows=len(rows_of(keys.address, view.name)),
            completed_at=clock.now,
            rebuild_position=None,
        )


def test_a_rebuild_records_its_completion_time(keys: Keys, clock: SettableClock) -> None:
    keys.create()
    clock.now = datetime(2026, 3, 9, 9, tzinfo=UTC)
    rebuild(keys.database, key_list.VIEW, clock=clock)
    assert status_of(keys, "key_list").completed_at == clock.now
    assert status_of(keys, "auth_lookup").completed_at == NOON


@pytest.mark.usefixtures("small_batches")
def test_a_running_rebuild_shows_its_progress(keys: Keys, clock: SettableClock) -> None:
    for _ in range(6):
        keys.create()
    seen: list[int | None] = []

    def look(*_: object) -> None:
        seen.append(status_of(keys, "auth_lookup").rebuild_position)
        assert status_of(keys, "key_list").rebuild_position is None

    rebuild(keys.database, auth_lookup.VIEW, clock=clock, progress=look)
    assert seen == [2, 4, 6, 6, 6, 6]
    assert status_of(keys, "auth_lookup").rebuild_position is None


def test_a_lag_counts_events_and_not_positions(keys: Keys) -> None:
    for _ in range(5):
        keys.create()
    sql(keys.address, "DELETE FROM events WHERE id = 4")
    sql(keys.address, "UPDATE projection_states SET position = 3 WHERE table_name = 'key_list'")
    status = status_of(keys, "key_list")
    assert (status.position, status.last_position, status.lag) == (3, 5, 1)


@pytest.mark.parametrize("state", ["lost", "left behind"])
def test_a_view_that_has_no_table_has_nothing_and_does_not_hide_the_others(
    keys: Keys, state: str
) -> None:
    keys.create()
    sql(keys.address, "DROP TABLE key_list")
    if state == "lost":
        sql(keys.address, "DELETE FROM projection_states WHERE table_name = 'key_list'")
    assert status_of(keys, "key_list") == ProjectionStatus(
        name="key_list",
        view_version=0,
        position=0,
        last_position=1,
        lag=1,
        rows=0,
        completed_at=None,
        rebuild_position=None,
    )
    assert status_of(keys, "auth_lookup").rows == 1
