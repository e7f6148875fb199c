from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Table, select

from domain.errors import PoisonEvent, ProjectionInconsistent, ProjectionNotFound
from domain.pepper import Pepper
from domain.serialization import EVENT_CLASSES
from projections.store.events import Recorded, decode_rows, read_rows
from projections.store.seals import Seals
from projections.views import auth_lookup, key_list
from projections.views.registry import VIEWS, view_named
from projections.views.view import Handlers, View, copy_of
from tests.projections.ledgers import HOUR, KEY_VIEWS, Keys
from tests.raw_sql import Rows

# None of these rules depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")

each_view = pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
each_view_of_keys = pytest.mark.parametrize("view", KEY_VIEWS, ids=lambda view: view.name)


SEALS = Seals(Pepper(bytes(32)))


@pytest.mark.parametrize("handlers", [key_list.HANDLERS, auth_lookup.HANDLERS])
def test_a_view_has_a_handler_for_each_kind_of_event_and_no_other(handlers: Handlers) -> None:
    assert set(handlers) == set(EVENT_CLASSES.values())


@each_view
def test_each_row_of_a_view_knows_its_position_and_its_key(view: View) -> None:
    assert not view.table.c.position.nullable
    assert "key_id" in view.table.c


@each_view_of_keys
def test_a_view_of_keys_is_named_by_position(view: View) -> None:
    assert [column.name for column in view.table.primary_key] == ["position"]


def test_views_are_found_by_name_and_others_are_refused_with_the_names_there_are() -> None:
    assert [view_named(view.name) for view in VIEWS] == list(VIEWS)
    with pytest.raises(ProjectionNotFound, match=r"no projection 'kex_list'.* key_list, auth_loo"):
        view_named("kex_list")


def test_a_copy_has_the_same_columns_under_another_name() -> None:
    copy = copy_of(key_list.VIEW.table, "copied")
    assert copy.name == "copied"
    assert [repr(column.type) for column in copy.c] == [
        repr(column.type) for column in key_list.VIEW.table.c
    ]


@pytest.fixture
def recorded(keys: Keys) -> list[Recorded]:
    """A life with each kind of event, in which keys change in batches of their own and not."""
    first = keys.create("first", lives=9 * HOUR)
    second = keys.create("second", lives=HOUR)
    keys.rename(first.key_id, "renamed")
    keys.rename(second.key_id, "renamed too")
    keys.rotate(first.key_id, grace=2 * HOUR)
    keys.rename(first.key_id, "renamed again")
    keys.revoke(second.key_id)
    with keys.database.read() as connection:
        return decode_rows(read_rows(connection, after=0, limit=None))


@pytest.fixture
def writing(keys: Keys) -> Iterator[Connection]:
    with keys.database.write() as connection:
        yield connection


def rows_in(connection: Connection, table: Table) -> Rows:
    return [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))]


@each_view
@pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
def test_events_give_the_same_rows_however_they_are_parted(
    keys: Keys, recorded: list[Recorded], writing: Connection, view: View, size: int
) -> None:
    copy = copy_of(view.table, "parted")
    copy.create(writing)
    for start in range(0, len(recorded), size):
        view.project(writing, copy, recorded[start : start + size], keys.database.seals)
    assert rows_in(writing, copy) == rows_in(writing, view.table)
    assert len(rows_in(writing, copy)) >= 3, "one for each key, or more"


@each_view
def test_no_events_change_nothing(writing: Connection, view: View) -> None:
    view.project(writing, view.table, [], SEALS)
    assert rows_in(writing, view.table) == []


@each_view
@pytest.mark.parametrize("missing", [1, 2])
def test_changing_a_key_that_has_no_row_is_refused(
    recorded: list[Recorded], writing: Connection, view: View, missing: int
) -> None:
    copy = copy_of(view.table, "incomplete")
    copy.create(writing)
    rest = [each for each in recorded if each.position > 2]
    view.project(writing, copy, [each for each in recorded[:2] if each.position != missing], SEALS)
    with pytest.raises(ProjectionInconsistent, match=r"1 (of . )?keys have no .* in incomplete"):
        view.project(writing, copy, rest, SEALS)


@each_view_of_keys
def test_an_event_that_a_handler_fails_on_is_named(
    recorded: list[Recorded], writing: Connection, view: View
) -> None:
    broken = recorded[2]
    del vars(broken.event)["name"]
    with pytest.raises(PoisonEvent, match=f"{view.name} fails on it") as caught:
        view.project(writing, view.table, recorded, SEALS)
    assert caught.value.position == 3


def test_the_auth_lookup_alone_has_the_verifier() -> None:
    assert [view for view in VIEWS if "verifier" in view.table.c] == [auth_lookup.VIEW]
