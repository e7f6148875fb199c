"""A rebuild that is killed at any statement leaves the old table or the new one, and is resumed."""

from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import URL

import projections.rebuild.view_tables
from domain.verdict import Code
from projections.rebuild.rebuild import check, rebuild
from projections.store.schema import metadata
from projections.views import auth_lookup, entries, key_list
from projections.views.registry import VIEWS, view_named
from projections.views.view import View
from tests.conftest import NOON
from tests.engines import Engine, address_of, fresh_copy
from tests.projections.ledgers import HOUR, Keys, keys_in, use_batches_of
from tests.projections.processes import die_at_statement, run_until_killed
from tests.raw_sql import Rows, count_events, edit_rows, rows_of, seal_auth_rows, sql, tables_of

# Kills of rebuilds on a server are among those of test_rebuild.
pytestmark = pytest.mark.only_on("sqlite")

BATCH = 4

each_view = pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)


@pytest.fixture(scope="module")
def tokens_and_ledger(
    engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Code], Path]:
    """A ledger of eleven events, and what its tokens are good for."""
    data_dir = engine.new_place(tmp_path_factory.mktemp("whole") / "data")
    with keys_in(data_dir) as keys:
        first = keys.create("first", lives=9 * HOUR)
        others = [keys.create(f"{number}") for number in range(3)]
        keys.rename(first.key_id, "renamed")
        successor = keys.rotate(first.key_id)
        keys.revoke(others[0].key_id)
        keys.rename(others[1].key_id, "renamed as well")
        keys.revoke(others[2].key_id)
        last = keys.create("last")
        assert count_events(keys.address) == 11
    return {
        first.token: Code.EXPIRED,
        others[0].token: Code.REVOKED,
        others[1].token: Code.VALID,
        others[2].token: Code.REVOKED,
        successor.token: Code.VALID,
        last.token: Code.VALID,
    }, data_dir


def rebuild_until(data_dir: Path, view: str, number: int, when: str) -> None:
    use_batches_of(BATCH)
    projections.rebuild.view_tables.ROWS = BATCH
    with keys_in(data_dir) as keys:
        die_at_statement(number, when=when)
        rebuild(keys.database, view_named(view), clock=lambda: NOON)


def events_in_what_is_left(address: URL, view: View) -> int:
    """Return how many events were projected by the rebuild that was killed; 0 if it had ended."""
    states = sql(
        address,
        "SELECT position, filled_to FROM projection_states WHERE table_name = ?",
        f"{view.name}_rebuild",
    )
    if not states:
        return 0
    position, filled_to = states[0]
    if view.in_order:
        return int(position)
    # Two keys at a time, the first two of which have five events, and the next two four.
    return {0: 0, 2: 5, 4: 9}.get(filled_to, 11)


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize(
    ("when", "view"),
    [
        pytest.param("before_cursor_execute", key_list.VIEW, id="before"),
        pytest.param("after_cursor_execute", auth_lookup.VIEW, id="after"),
        pytest.param("before_cursor_execute", entries.VIEW, id="before, in order"),
    ],
)
def test_a_rebuild_killed_at_any_statement_can_be_resumed(
    tokens_and_ledger: tuple[dict[str, Code], Path], tmp_path: Path, when: str, view: View
) -> None:
    tokens, whole = tokens_and_ledger
    right = rows_of(address_of(whole), view.name)
    # Rows that a rebuild heals tell the old table from the new one.
    wrong_dir = fresh_copy(whole, tmp_path / "wrong")
    wrong_value = {"name" if view is auth_lookup.VIEW else "key_id": "wrong"}
    edit_rows(address_of(wrong_dir), view.name, **wrong_value)
    seal_auth_rows(wrong_dir)
    wrong = rows_of(address_of(wrong_dir), view.name)

    data_dir = tmp_path / "data"
    live: list[Rows] = []
    resumed_at: set[int] = set()
    for number in count(1):
        address = address_of(fresh_copy(wrong_dir, data_dir))
        if not run_until_killed(rebuild_until, data_dir, view.name, number, when):
            break
        live.append(rows_of(address, view.name))
        assert live[-1] in (wrong, right)
        left = events_in_what_is_left(address, view)
        with keys_in(data_dir) as keys:
            assert {token: keys.verify(token) for token in tokens} == tokens
            report = rebuild(keys.database, view, clock=lambda: NOON)
            check_healthy(keys, view, right)
        swapped = live[-1] == right
        assert report.events == 11 - left
        assert report.differing == (0 if swapped else len(right))
        resumed_at.add(left)

    # It was killed at so many places that each state in between was met.
    assert resumed_at == ({0, 4, 8, 11} if view.in_order else {0, 5, 9, 11})
    assert wrong in live
    assert right in live or when == "after_cursor_execute"
    first_new = live.index(right) if right in live else len(live)
    assert live == [wrong] * first_new + [right] * (len(live) - first_new)
    assert rows_of(address, view.name) == right


def check_healthy(keys: Keys, view: View, right: Rows) -> None:
    """See that the view is right, goes on being kept, and that nothing is left over."""
    assert rows_of(keys.address, view.name) == right
    made = keys.create("after the kill")
    assert keys.verify(made.token) is Code.VALID
    assert rows_of(keys.address, view.name)[:-1] == right
    views = {view.name for view in VIEWS}
    assert tables_of(keys.address) == {"alembic_version", *metadata.tables, *views}


def check_until(data_dir: Path, view: str, number: int, when: str) -> None:
    use_batches_of(BATCH)
    with keys_in(data_dir) as keys:
        die_at_statement(number, when=when)
        check(keys.database, view_named(view))


@pytest.mark.usefixtures("small_batches")
@each_view
def test_a_killed_comparison_leaves_the_live_table_and_the_next_one_cleans_up(
    tokens_and_ledger: tuple[dict[str, Code], Path], tmp_path: Path, view: View
) -> None:
    _, whole = tokens_and_ledger
    right = rows_of(address_of(whole), view.name)
    data_dir = tmp_path / "data"
    for number in count(1, 11):
        address = address_of(fresh_copy(whole, data_dir))
        if not run_until_killed(check_until, data_dir, view.name, number, "before_cursor_execute"):
            break
        assert rows_of(address, view.name) == right
        with keys_in(data_dir) as keys:
            assert check(keys.database, view).differing == 0
            check_healthy(keys, view, right)
    assert number > 50


def open_until(data_dir: Path, number: int, when: str) -> None:
    use_batches_of(BATCH)
    die_at_statement(number, when=when)
    with keys_in(data_dir):
        pass


@pytest.mark.usefixtures("small_batches")
def test_an_opening_killed_while_building_views_is_resumed(
    tokens_and_ledger: tuple[dict[str, Code], Path], tmp_path: Path
) -> None:
    tokens, whole = tokens_and_ledger
    expected = {view.name: rows_of(address_of(whole), view.name) for view in VIEWS}
    without = fresh_copy(whole, tmp_path / "without")
    for view in VIEWS:
        sql(address_of(without), f"DROP TABLE {view.name}")
    sql(address_of(without), "DELETE FROM projection_states")
    data_dir = tmp_path / "data"
    for number in count(1, 11):
        fresh_copy(without, data_dir)
        if not run_until_killed(open_until, data_dir, number, "before_cursor_execute"):
            break
        with keys_in(data_dir) as keys:
            assert {view.name: rows_of(keys.address, view.name) for view in VIEWS} == expected
            assert {token: keys.verify(token) for token in tokens} == tokens
    assert number > 40
