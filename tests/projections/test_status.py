"""How far projections have come, as it is told."""

import sqlite3
from contextlib import closing

from api.composition import OpenLedger
from domain.caller import Caller
from projections.rebuild import rebuild
from projections.status import ProjectionStatus, projection_status
from projections.views import view_named
from tests.conftest import NOON, SettableClock


def create_key(opened: OpenLedger, admin: Caller) -> str:
    return opened.ledger.create_key(
        workspace="default",
        name="ci",
        scopes=["mcp:read"],
        expires_at=None,
        token_prefix="key",
        by=admin,
        at=opened.clock(),
    ).key_id


def status_of(opened: OpenLedger, name: str) -> ProjectionStatus:
    return next(each for each in projection_status(opened.database) if each.name == name)


def execute(opened: OpenLedger, statement: str) -> None:
    with closing(sqlite3.connect(opened.database.path)) as connection, connection:
        connection.execute(statement)


def test_an_empty_ledger_is_up_to_date(opened: OpenLedger) -> None:
    for status in projection_status(opened.database):
        assert (status.position, status.last_position, status.lag, status.rows) == (0, 0, 0, 0)
        assert status.completed_at == NOON
        assert status.rebuild_position is None


def test_projections_keep_up_with_every_event(opened: OpenLedger, admin: Caller) -> None:
    key_id = create_key(opened, admin)
    create_key(opened, admin)
    opened.ledger.revoke_key(
        key_id, workspace="default", reason=None, comment=None, by=admin, at=opened.clock()
    )
    for status in projection_status(opened.database):
        assert (status.position, status.last_position, status.lag, status.rows) == (3, 3, 0, 2)


def test_a_lag_counts_events_and_not_the_gaps_between_positions(
    opened: OpenLedger, admin: Caller
) -> None:
    create_key(opened, admin)
    create_key(opened, admin)
    execute(opened, "UPDATE events SET id = 40 WHERE id = 2")
    execute(opened, "UPDATE projection_states SET position = 1 WHERE table_name = 'key_list'")
    status = status_of(opened, "key_list")
    assert (status.position, status.last_position, status.lag) == (1, 40, 1)


def test_a_rebuild_says_when_it_was_completed(opened: OpenLedger, clock: SettableClock) -> None:
    later = clock.advance(hours=1)
    rebuild(opened.database, view_named("key_list"), clock=clock)
    assert status_of(opened, "key_list").completed_at == later
    assert status_of(opened, "auth_lookup").completed_at == NOON


def test_a_projection_that_was_never_built_has_version_0(opened: OpenLedger, admin: Caller) -> None:
    create_key(opened, admin)
    execute(opened, "DELETE FROM projection_states WHERE table_name = 'key_list'")
    status = status_of(opened, "key_list")
    assert (status.view_version, status.lag, status.completed_at) == (0, 1, None)


def test_a_rebuild_that_stopped_half_way_says_where(opened: OpenLedger) -> None:
    execute(
        opened, "INSERT INTO projection_states VALUES ('auth_lookup_rebuild', 1, 2, 7000, NULL)"
    )
    assert status_of(opened, "auth_lookup").rebuild_position == 7000
    assert status_of(opened, "key_list").rebuild_position is None
