from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from multiprocessing.connection import Connection as Pipe
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from domain.errors import (
    HistoryInDoubt,
    LedgerUnavailable,
    PoisonEvent,
    RebuildRunning,
    RowNotSealed,
)
from domain.verdict import Code
from projections.rebuild.rebuild import ReplayReport, build_outdated_views, check, rebuild
from projections.rebuild.shadow_table import Shadow
from projections.store.database import Database
from projections.store.schema import metadata
from projections.views import auth_lookup, key_list
from projections.views.registry import VIEWS, view_named
from projections.views.view import View
from tests.conftest import NOON, SettableClock
from tests.projections.ledgers import HOUR, KEY_VIEWS, Keys, differing_rows, keys_in, use_batches_of
from tests.projections.processes import CONTEXT, start
from tests.raw_sql import (
    count_events,
    delete_rows,
    dump,
    edit_rows,
    rewrite,
    rows_of,
    seal_events,
    sql,
    tables_of,
    view_rows,
    with_field,
    without_field,
)

each_view = pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
each_view_of_keys = pytest.mark.parametrize("view", KEY_VIEWS, ids=lambda view: view.name)
each_view_in_order = pytest.mark.parametrize(
    "view", [view for view in VIEWS if view.in_order], ids=lambda view: view.name
)

TABLES = {"alembic_version", *metadata.tables, *(view.name for view in VIEWS)}


def noon() -> datetime:
    return NOON


def some_life(keys: Keys) -> None:
    """Make twelve events, from the last of which the first cannot be guessed."""
    first = keys.create("first", lives=9 * HOUR)
    for number in range(5):
        keys.create(f"{number}")
    keys.rename(first.key_id, "renamed")
    keys.rotate(first.key_id)
    keys.create("revoked")
    keys.revoke(first.key_id)
    keys.create("last")


def state_of(keys: Keys, table: str) -> tuple[Any, ...]:
    (row,) = sql(keys.address, "SELECT * FROM projection_states WHERE table_name = ?", table)
    return row


@each_view
def test_a_rebuilt_table_is_equal_and_its_state_records_the_rebuild(
    keys: Keys, clock: SettableClock, view: View
) -> None:
    some_life(keys)
    before = view_rows(keys.address)
    generation = state_of(keys, view.name)[2]
    clock.now = datetime(2026, 3, 9, 9, 9, 9, 123456, tzinfo=UTC)
    report = rebuild(keys.database, view, clock=clock)
    assert (report.view, report.events, report.position) == (view.name, 12, 12)
    assert (report.differing, report.differences) == (0, ())
    assert 0 < report.locked_seconds < report.seconds < 60
    assert view_rows(keys.address) == before
    assert state_of(keys, view.name) == (
        view.name,
        view.version,
        generation + 1,
        12,
        "2026-03-09T09:09:09.123456Z",
        None,
    )
    assert tables_of(keys.address) == TABLES


@each_view
def test_an_empty_ledger_can_be_rebuilt(keys: Keys, view: View) -> None:
    report = rebuild(keys.database, view, clock=noon)
    assert (report.events, report.position, report.differing) == (0, 0, 0)
    keys.create()
    assert check(keys.database, view).differing == 0


@pytest.mark.only_on("sqlite")
def test_views_are_maintained_after_repeated_rebuilds(keys: Keys) -> None:
    for number in range(4):
        made = keys.create(f"{number}")
        for view in VIEWS:
            rebuild(keys.database, view, clock=noon)
        keys.rename(made.key_id, "renamed")
        assert keys.verify(made.token) is Code.VALID
    assert [key.name for key in [keys.show(made.key_id)]] == ["renamed"]
    assert differing_rows(keys) == {}
    assert tables_of(keys.address) == TABLES
    indexes = "SELECT count(*) FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"
    of_views = sum(len(view.table.indexes) for view in VIEWS)
    assert sql(keys.address, indexes) == [(of_views + 1,)], (
        "those of the views, and one of the events"
    )


@each_view
def test_a_rebuild_leaves_events_digests_and_the_other_views_alone(keys: Keys, view: View) -> None:
    some_life(keys)
    others = [each.name for each in VIEWS if each is not view]
    untouched = ("events", "key_digests", *others)
    before = [rows_of(keys.address, table) for table in untouched]
    rebuild(keys.database, view, clock=noon)
    assert [rows_of(keys.address, table) for table in untouched] == before


@pytest.mark.usefixtures("small_batches")
@each_view
def test_progress_is_told_after_each_batch(keys: Keys, view: View) -> None:
    some_life(keys)
    told: list[tuple[str, int, int]] = []
    rebuild(keys.database, view, clock=noon, progress=lambda *step: told.append(step))
    batches = (4, 8, 12, 12, 12) if view.in_order else (2, 4, 6, 10, 12, 12, 12)
    assert told == [(view.name, done, 12) for done in batches]


@pytest.mark.usefixtures("small_batches")
@each_view
def test_events_between_batches_are_in_the_new_table(keys: Keys, view: View) -> None:
    some_life(keys)
    made = [keys.create(f"{number}") for number in range(6)]

    def append(_view: str, done: int, _last: int) -> None:
        if made:
            key = made.pop()
            keys.rename(key.key_id, f"renamed at {done}")
            keys.revoke(key.key_id)

    report = rebuild(keys.database, view, clock=noon, progress=append)
    assert report.differing == 0
    assert report.events == report.position == count_events(keys.address) == 12 + 6 + 12
    assert check(keys.database, view).differing == 0


# On PostgreSQL, the swap waits for whoever reads.
@pytest.mark.only_on("sqlite")
@each_view
def test_a_reader_during_the_swap_sees_the_complete_old_table(keys: Keys, view: View) -> None:
    for number in range(9):
        keys.create(f"{number}")
    edit_rows(keys.address, view.name, key_id="old")
    count = f"SELECT count(*), count(DISTINCT key_id) FROM {view.name}"  # noqa: S608
    with keys.database.read() as connection:
        assert connection.exec_driver_sql(count).one() == (9, 1)
        rebuild(keys.database, view, clock=noon)
        assert connection.exec_driver_sql(count).one() == (9, 1)
    with keys.database.read() as connection:
        assert connection.exec_driver_sql(count).one() == (9, 9)


@each_view
def test_a_dropped_table_is_rebuilt(keys: Keys, view: View, data_dir: Path) -> None:
    some_life(keys)
    before = view_rows(keys.address)
    sql(keys.address, f"DROP TABLE {view.name}")
    with pytest.raises(LedgerUnavailable):
        keys.create()
    assert rebuild(keys.database, view, clock=noon).events == 12
    assert view_rows(keys.address) == before
    sql(keys.address, f"DROP TABLE {view.name}")
    with keys_in(data_dir) as again:
        assert view_rows(again.address) == before


@each_view
def test_a_table_without_its_state_is_rebuilt(keys: Keys, view: View) -> None:
    some_life(keys)
    before = view_rows(keys.address)
    sql(keys.address, "DELETE FROM projection_states")
    with pytest.raises(LedgerUnavailable, match="restart it"):
        keys.create()
    rebuilt = build_outdated_views(keys.database, VIEWS, clock=noon)
    assert [report.view for report in rebuilt] == [view.name for view in VIEWS]
    assert view_rows(keys.address) == before
    assert build_outdated_views(keys.database, VIEWS, clock=noon) == []
    assert check(keys.database, view).differing == 0


def open_together(data_dir: Path, barrier: Barrier) -> str:
    barrier.wait(30)
    with keys_in(data_dir) as keys:
        return keys.create().token


@pytest.mark.parametrize("how", ["new", "dropped"])
def test_processes_that_open_a_ledger_at_once_wait_for_the_one_that_makes_its_views(
    data_dir: Path, how: str
) -> None:
    made = 0
    if how == "dropped":
        with keys_in(data_dir) as keys:
            some_life(keys)
            made = len(rows_of(keys.address, "key_list"))
            for view in VIEWS:
                sql(keys.address, f"DROP TABLE {view.name}")
    number = 4
    barrier = CONTEXT.Barrier(number)
    running = [start(open_together, data_dir, barrier) for _ in range(number)]
    tokens = []
    for each in running:
        with each:
            tokens.append(each.result())
    with keys_in(data_dir) as keys:
        assert [keys.verify(token) for token in tokens] == [Code.VALID] * number
        assert len(rows_of(keys.address, "key_list")) == made + number
        assert differing_rows(keys) == {}


def paused_rebuild(data_dir: Path, view: str, pipe: Pipe) -> int:
    with keys_in(data_dir) as keys:

        def wait(_view: str, _done: int, _last: int) -> None:
            pipe.send("paused")
            pipe.recv()

        use_batches_of(1000)
        return rebuild(keys.database, view_named(view), clock=noon, progress=wait).events


@each_view
def test_of_two_rebuilds_at_once_one_is_told_that_the_other_runs(keys: Keys, view: View) -> None:
    some_life(keys)
    other = next(each for each in VIEWS if each is not view)
    ours, theirs = CONTEXT.Pipe()
    with start(paused_rebuild, keys.data_dir, view.name, theirs) as running:
        assert ours.recv() == "paused"
        before = dump(keys.address)
        with pytest.raises(RebuildRunning, match=f"a rebuild of {view.name} is already running"):
            rebuild(keys.database, view, clock=noon)
        assert dump(keys.address) == before
        # Another view, a check of the same one, and the service are not in its way.
        assert rebuild(keys.database, other, clock=noon).differing == 0
        assert check(keys.database, view).differing == 0
        made = keys.create("meanwhile")
        assert keys.verify(made.token) is Code.VALID
        # After the batch of what was appended meanwhile, and after the comparison.
        for _ in range(1 if view.in_order else 2):
            ours.send("go on")
            assert ours.recv() == "paused"
        ours.send("go on")
        assert running.result() == 13
    assert check(keys.database, view).differing == 0
    assert rebuild(keys.database, view, clock=noon).events == 13


@each_view
def test_a_killed_rebuild_does_not_block_the_next_one(keys: Keys, view: View) -> None:
    some_life(keys)
    ours, theirs = CONTEXT.Pipe()
    with start(paused_rebuild, keys.data_dir, view.name, theirs) as running:
        assert ours.recv() == "paused"
        running.kill()
    assert rebuild(keys.database, view, clock=noon).differing == 0


def rebuild_until_batch(data_dir: Path, view: str, batches: int, pipe: Pipe) -> None:
    use_batches_of(4)

    def wait(_view: str, _done: int, _last: int) -> None:
        nonlocal batches
        batches -= 1
        if not batches:
            pipe.send("paused")
            pipe.recv()

    with keys_in(data_dir) as keys:
        rebuild(keys.database, view_named(view), clock=noon, progress=wait)


def kill_after_batches(keys: Keys, view: View, batches: int) -> None:
    ours, theirs = CONTEXT.Pipe()
    with start(rebuild_until_batch, keys.data_dir, view.name, batches, theirs) as running:
        assert ours.recv() == "paused"
        running.kill()


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize(("batches", "filled_to", "done"), [(1, 2, 5), (2, 4, 7), (3, 6, 9)])
@each_view_of_keys
def test_a_killed_rebuild_is_resumed_where_it_was(
    keys: Keys, view: View, batches: int, filled_to: int, done: int
) -> None:
    some_life(keys)
    before = view_rows(keys.address)
    kill_after_batches(keys, view, batches)
    assert state_of(keys, f"{view.name}_rebuild")[3:] == (12, None, filled_to)
    assert view_rows(keys.address) == before
    report = rebuild(keys.database, view, clock=noon)
    assert (report.events, report.position, report.differing) == (12 - done, 12, 0)
    assert view_rows(keys.address) == before
    assert tables_of(keys.address) == TABLES
    assert rebuild(keys.database, view, clock=noon).events == 12


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize(("batches", "done"), [(1, 4), (2, 8), (3, 12)])
@each_view_in_order
def test_a_killed_rebuild_in_event_order_is_resumed_where_it_was(
    keys: Keys, view: View, batches: int, done: int
) -> None:
    some_life(keys)
    before = view_rows(keys.address)
    kill_after_batches(keys, view, batches)
    assert state_of(keys, f"{view.name}_rebuild")[3:] == (done, None, None)
    assert view_rows(keys.address) == before
    report = rebuild(keys.database, view, clock=noon)
    assert (report.events, report.position, report.differing) == (12 - done, 12, 0)
    assert view_rows(keys.address) == before
    assert tables_of(keys.address) == TABLES
    assert rebuild(keys.database, view, clock=noon).events == 12


@pytest.mark.usefixtures("small_batches")
@each_view
def test_events_after_the_kill_are_in_the_table(keys: Keys, view: View) -> None:
    some_life(keys)
    kill_after_batches(keys, view, 2)
    made = keys.create("later")
    (early,) = sql(keys.address, "SELECT key_id FROM key_list WHERE position = 2")
    keys.revoke(early[0])
    keys.rename(made.key_id, "renamed")
    live = view_rows(keys.address)
    report = rebuild(keys.database, view, clock=noon)
    done = 8 if view.in_order else 7
    assert (report.events, report.differing) == (15 - done, 0)
    assert view_rows(keys.address) == live


@pytest.mark.usefixtures("small_batches")
def test_a_comparison_leaves_an_interrupted_rebuild_resumable(keys: Keys) -> None:
    some_life(keys)
    kill_after_batches(keys, key_list.VIEW, 2)
    assert check(keys.database, key_list.VIEW).differing == 0
    assert rebuild(keys.database, key_list.VIEW, clock=noon).events == 12 - 7


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE projection_states SET view_version = 0 WHERE table_name = 'key_list_rebuild'",
        "UPDATE projection_states SET generation = 9 WHERE table_name = 'key_list_rebuild'",
        "DELETE FROM projection_states WHERE table_name = 'key_list_rebuild'",
        "UPDATE projection_states SET position = 99 WHERE table_name = 'key_list_rebuild'",
        "DROP TABLE key_list_rebuild",
    ],
)
def test_an_unusable_interrupted_shadow_is_dropped(keys: Keys, change: str) -> None:
    some_life(keys)
    before = view_rows(keys.address)
    kill_after_batches(keys, key_list.VIEW, 2)
    sql(keys.address, change)
    report = rebuild(keys.database, key_list.VIEW, clock=noon)
    assert (report.events, report.differing) == (12, 0)
    assert view_rows(keys.address) == before
    assert tables_of(keys.address) == TABLES


@pytest.mark.usefixtures("small_batches")
def test_a_rebuild_can_be_resumed_after_the_database_was_unavailable(keys: Keys) -> None:
    some_life(keys)

    def break_the_events(_view: str, done: int, _last: int) -> None:
        if done == 6:
            sql(keys.address, "ALTER TABLE events RENAME TO elsewhere")

    with pytest.raises(LedgerUnavailable):
        rebuild(keys.database, key_list.VIEW, clock=noon, progress=break_the_events)
    sql(keys.address, "ALTER TABLE elsewhere RENAME TO events")
    assert rebuild(keys.database, key_list.VIEW, clock=noon).events == 12 - 9


NOBODYS = UUID("00112233-4455-6677-8899-aabbccddeeff")

Poison = tuple[str, Callable[[Any], object]]

POISONS: dict[str, Poison] = {
    "text": ("state", lambda _: b"garbage"),
    "bytes": ("state", lambda _: b"\x00\xff"),
    "no object": ("state", lambda _: b"[1]"),
    "unknown topic": ("topic", lambda _: "ApiKey.Loved"),
    "a topic that names code": ("topic", lambda _: "os:system"),
    "no time": ("state", with_field("timestamp", "noon")),
    "a number for a time": ("state", with_field("expires_at", 7)),
    "a change of no key": ("originator_id", lambda _: NOBODYS),
}
"""What may be wrong with the last of ten events, of which it renames the first key."""

TOO_LARGE = "a number that is too large"

UNFIT_NAMES: dict[str, Poison] = {
    "missing field": ("state", without_field("name")),
    "an object for a name": ("state", with_field("name", {})),
    TOO_LARGE: ("state", with_field("name", 18_446_744_073_709_551_615)),
}
"""What is no name, and so has no place in the views that have a column for it."""


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize(
    ("view", "poison"),
    [
        pytest.param(
            view,
            poison,
            id=f"{view.name}-{name}",
            # PostgreSQL takes any number for a text.
            marks=[pytest.mark.only_on("sqlite")] if name == TOO_LARGE else [],
        )
        for views, poisons in ((VIEWS, POISONS), (KEY_VIEWS, UNFIT_NAMES))
        for view in views
        for name, poison in poisons.items()
    ],
)
def test_a_poison_event_stops_a_rebuild_and_nothing_else(
    keys: Keys, view: View, poison: Poison
) -> None:
    made = [keys.create(f"{number}") for number in range(9)]
    keys.rename(made[0].key_id, "renamed")
    keys.create("after it")
    ((topic, state, uuid),) = sql(
        keys.address, "SELECT topic, state, originator_id FROM events WHERE id = 10"
    )
    rewrite(keys.address, "events", *poison, where="id = 10")
    seal_events(keys.data_dir)
    before = view_rows(keys.address)
    for _ in range(2):
        with pytest.raises(PoisonEvent, match="the event at position 10 cannot be projected") as e:
            rebuild(keys.database, view, clock=noon)
        assert e.value.position == 10
        with pytest.raises(PoisonEvent):
            check(keys.database, view)
    assert view_rows(keys.address) == before

    # Keys, all but the one with the poison in its history, are made, changed and verified.
    if poison[0] == "originator_id":
        with pytest.raises(RowNotSealed):
            keys.verify(made[0].token)
    else:
        assert keys.verify(made[0].token) is Code.VALID
    keys.revoke(made[1].key_id)
    assert keys.verify(made[1].token) is Code.REVOKED
    late = keys.create("late")
    assert keys.verify(late.token) is Code.VALID

    sql(
        keys.address,
        "UPDATE events SET topic = ?, state = ?, originator_id = ? WHERE id = 10",
        topic,
        state,
        UUID(bytes=uuid),
    )
    seal_events(keys.data_dir)
    live = view_rows(keys.address)
    report = rebuild(keys.database, view, clock=noon)
    # In their order, eight events were projected before the poison was met.
    done = 8 if view.in_order else 0
    assert (report.events, report.position, report.differing) == (13 - done, 13, 0)
    assert view_rows(keys.address) == live
    assert check(keys.database, view).differing == 0
    assert tables_of(keys.address) == TABLES


@pytest.mark.only_on("sqlite")
@pytest.mark.usefixtures("small_batches")
@each_view
@pytest.mark.parametrize(
    "poison",
    [
        "topic = CAST(x'41ff' AS TEXT)",
        "state = CAST(x'7bff' AS TEXT)",
        "originator_id = CAST(x'00112233445566778899aabbccddeeff' AS TEXT)",
    ],
)
@pytest.mark.parametrize("position", [2, 10])
def test_an_event_with_a_text_that_is_no_utf_8_is_named(
    keys: Keys, view: View, poison: str, position: int
) -> None:
    made = [keys.create(f"{number}") for number in range(9)]
    keys.rename(made[0].key_id, "renamed")
    sql(keys.address, f"UPDATE events SET {poison} WHERE id = {position}")  # noqa: S608 - from above
    for replay in (check, partial(rebuild, clock=noon)):
        with pytest.raises(PoisonEvent) as caught:
            replay(keys.database, view)
        assert caught.value.position == position


@pytest.mark.usefixtures("small_batches")
@each_view
def test_a_second_first_event_of_a_key_is_poison(keys: Keys, view: View) -> None:
    keys.create("first")
    for number in range(8):
        keys.create(f"{number}")
    sql(
        keys.address,
        "INSERT INTO events"
        " SELECT 10, originator_id, 2, topic, state, seal FROM events WHERE id = 1",
    )
    seal_events(keys.data_dir)
    with pytest.raises(PoisonEvent) as caught:
        rebuild(keys.database, view, clock=noon)
    assert caught.value.position == 10
    assert "$argon2" not in str(caught.value)


@pytest.mark.usefixtures("small_batches")
def test_a_lookup_id_that_two_keys_share_is_poison_where_it_has_to_be_unique(keys: Keys) -> None:
    for number in range(9):
        keys.create(f"{number}")
    sql(
        keys.address,
        "INSERT INTO events SELECT 10, ?, 1, topic, state, seal FROM events WHERE id = 1",
        NOBODYS,
    )
    seal_events(keys.data_dir)
    with pytest.raises(PoisonEvent) as caught:
        rebuild(keys.database, auth_lookup.VIEW, clock=noon)
    assert caught.value.position == 10
    assert rebuild(keys.database, key_list.VIEW, clock=noon).differing == 1


@pytest.mark.usefixtures("small_batches")
@each_view
def test_poison_that_arrives_during_the_swap_keeps_the_old_table(keys: Keys, view: View) -> None:
    some_life(keys)
    before = view_rows(keys.address)

    def poison_at_the_end(_view: str, done: int, last: int) -> None:
        if done == last:
            sql(
                keys.address,
                "INSERT INTO events VALUES (20, ?, 1, 'ApiKey.Loved', x'7b7d', NULL)"
                " ON CONFLICT DO NOTHING",
                NOBODYS,
            )
            seal_events(keys.data_dir)

    with pytest.raises(PoisonEvent) as caught:
        rebuild(keys.database, view, clock=noon, progress=poison_at_the_end)
    assert caught.value.position == 20
    assert view_rows(keys.address) == before
    delete_events(keys, 20)
    assert rebuild(keys.database, view, clock=noon).differing == 0


def delete_events(keys: Keys, *positions: int) -> None:
    for position in positions:
        sql(keys.address, "DELETE FROM events WHERE id = ?", position)


def found_by_check(keys: Keys) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for view in VIEWS:
        for difference in check(keys.database, view).differences:
            found.setdefault(difference.key_id, []).append(
                f"{view.name}: {difference.problem} {sorted(difference.columns)}"
            )
    return found


@pytest.mark.only_on("sqlite")
def test_a_deleted_last_event_is_found_and_nothing_is_appended_after_it(keys: Keys) -> None:
    first, second = keys.create("first"), keys.create("second")
    keys.revoke(first.key_id)
    delete_events(keys, 3)
    # A process that has seen the event would refuse to answer without it.
    with keys_in(keys.data_dir) as other:
        with pytest.raises(HistoryInDoubt, match="entry 2, of position 3, has no event"):
            other.rename(second.key_id, "renamed")
        revocation = ["revoked_at", "revoked_by_id", "revoked_by_type", "status", "version"]
        assert found_by_check(other)[first.key_id] == [
            f"key_list: different {revocation}",
            "auth_lookup: different ['revoked', 'seal', 'version']",
            "entries: unexpected []",
            "key_versions: different ['held_until']",
            "key_versions: unexpected []",
        ]
        with pytest.raises(RowNotSealed):
            other.verify(first.token)


@pytest.mark.only_on("sqlite")
def test_a_deleted_last_key_is_found_and_a_rebuild_removes_its_rows(keys: Keys) -> None:
    keys.create("first")
    last = keys.create("last")
    delete_events(keys, 2)
    # A process that has seen the event would refuse to answer without it.
    with keys_in(keys.data_dir) as other:
        assert found_by_check(other) == {
            last.key_id: [f"{view.name}: unexpected []" for view in VIEWS]
        }
        with pytest.raises(HistoryInDoubt, match="entry 1, of position 2, has no event"):
            other.create("next")
        for view in VIEWS:
            assert rebuild(other.database, view, clock=noon).differing == 1
        assert other.verify(last.token) is Code.NOT_FOUND


@pytest.mark.only_on("sqlite")
def test_a_last_key_that_is_deleted_everywhere_leaves_nothing_for_a_check_to_find(
    keys: Keys,
) -> None:
    # Rows and events are what a check compares. That an event is gone from both is for the
    # audit trail to notice.
    keys.create("first")
    keys.create("last")
    delete_events(keys, 2)
    for view in VIEWS:
        delete_rows(keys.address, view.name, 2)
    assert found_by_check(keys) == {}
    keys.create("in its place")
    assert [row[0] for row in rows_of(keys.address, "events")] == [1, 2]
    assert found_by_check(keys) == {}


@pytest.mark.usefixtures("small_batches")
@each_view
def test_a_first_event_that_was_deleted_from_the_middle_is_missed_by_the_next_one_of_its_key(
    keys: Keys, view: View
) -> None:
    some_life(keys)
    delete_events(keys, 1)
    with pytest.raises(PoisonEvent) as caught:
        rebuild(keys.database, view, clock=noon)
    assert caught.value.position == 7


def leave_a_shadow(database: Database, view: View, purpose: str) -> None:
    Shadow(database, view, purpose).begin(resume=False)


@each_view
def test_left_over_tables_are_tidied_up(keys: Keys, view: View) -> None:
    some_life(keys)
    for purpose in ("check", "rebuild", "previous"):
        leave_a_shadow(keys.database, view, purpose)
    assert check(keys.database, view).differing == 0
    assert rebuild(keys.database, view, clock=noon).differing == 0
    assert tables_of(keys.address) == TABLES


@pytest.mark.parametrize("replay", [check, lambda *args: rebuild(*args, clock=noon)])
def test_a_failing_progress_display_leaves_the_live_table(
    keys: Keys, replay: Callable[..., ReplayReport]
) -> None:
    some_life(keys)
    before = view_rows(keys.address)

    def fail(*_: object) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        check(keys.database, key_list.VIEW, progress=fail)
    assert view_rows(keys.address) == before
    assert replay(keys.database, key_list.VIEW).differing == 0
