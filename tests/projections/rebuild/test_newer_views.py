"""A program never replaces a view of a newer version, unless it is told to downgrade."""

from collections.abc import Callable

import pytest

from domain.errors import LedgerUnavailable
from projections.rebuild.rebuild import build_outdated_views, check, rebuild
from projections.views.registry import VIEWS
from projections.views.view import View
from tests.conftest import NOON
from tests.projections.ledgers import Keys, keys_in
from tests.raw_sql import sql, tables_of


def open_it(keys: Keys, _view: View) -> None:
    with keys_in(keys.data_dir):
        pass


def build_all(keys: Keys, _view: View) -> None:
    build_outdated_views(keys.database, VIEWS, clock=lambda: NOON)


def rebuild_one(keys: Keys, view: View) -> None:
    rebuild(keys.database, view, clock=lambda: NOON)


def check_one(keys: Keys, view: View) -> None:
    check(keys.database, view)


def append(keys: Keys, _view: View) -> None:
    keys.create("refused")


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_everything_that_would_build_or_compare_a_view_of_a_newer_version_is_refused(
    keys: Keys, view: View
) -> None:
    keys.create("a")
    # Another view is older, so that there is something to build.
    older = next(each for each in VIEWS if each is not view)
    set_version = "UPDATE projection_states SET view_version = ? WHERE table_name = ?"
    sql(keys.address, set_version, view.version + 1, view.name)
    sql(keys.address, set_version, older.version - 1, older.name)
    states = "SELECT * FROM projection_states ORDER BY table_name"
    before = sql(keys.address, states), tables_of(keys.address)
    attempts: list[Callable[[Keys, View], None]]
    attempts = [open_it, build_all, rebuild_one, check_one, append]
    for attempt in attempts:
        with pytest.raises(LedgerUnavailable) as caught:
            attempt(keys, view)
        if attempt is not append:
            said = f"{view.name} is at version {view.version + 1}, and this program has version"
            assert said in str(caught.value), attempt
        assert (sql(keys.address, states), tables_of(keys.address)) == before, attempt


def test_a_table_that_becomes_newer_during_a_rebuild_is_not_replaced(keys: Keys) -> None:
    keys.create("a")
    view = VIEWS[0]
    newer = view.version + 1

    def upgrade(*_: object) -> None:
        statement = "UPDATE projection_states SET view_version = ? WHERE table_name = ?"
        sql(keys.address, statement, newer, view.name)

    with pytest.raises(LedgerUnavailable, match="is at version"):
        rebuild(keys.database, view, clock=lambda: NOON, progress=upgrade)
    ((version,),) = sql(
        keys.address, "SELECT view_version FROM projection_states WHERE table_name = ?", view.name
    )
    assert version == newer
