"""A copy has everything that the ledger has, is verified, and replaces nothing else."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import cache
from pathlib import Path

import pytest
from sqlalchemy import Connection, event

from domain.errors import PoisonEvent
from projections.audit_log.checkpoint_file import notes_in
from projections.integrity.verify import check_integrity
from projections.ledger_copy.copy import BESIDE_EVENTS, CopyRunning, copy_ledger
from projections.ledger_copy.verify_copy import CopyDiffers, CopyRefused
from projections.store.database import open_database
from projections.store.locks import task_lock
from projections.store.schema import UnknownSchema, metadata
from projections.views import entries
from projections.views.registry import VIEWS
from tests.conftest import NOON
from tests.engines import (
    POSTGRESQL,
    SQLITE,
    Engine,
    address_of,
    database_file,
    engine_called,
    fresh_copy,
    sealed_database,
)
from tests.postgresql import initdb
from tests.programs import needs
from tests.projections.ledger_copy.copies import at_call, content_of, copy, live_in, move_in
from tests.projections.ledgers import HOUR, differing_rows, keys_in
from tests.raw_sql import (
    count_events,
    delete_rows,
    dump,
    edit_rows,
    lose_events,
    rows_of,
    sql,
    tables_of,
)

on_postgresql = needs(initdb(), "postgresql")
to_postgresql = pytest.param(SQLITE, POSTGRESQL, id="to PostgreSQL", marks=on_postgresql)
to_sqlite = pytest.param(POSTGRESQL, SQLITE, id="to SQLite", marks=on_postgresql)
between_files = pytest.param(SQLITE, SQLITE, id="between files")
each_way = pytest.mark.parametrize(("source_engine", "target_engine"), [to_postgresql, to_sqlite])
of_files = pytest.mark.parametrize(("source_engine", "target_engine"), [between_files])
each_target = pytest.mark.parametrize(
    ("source_engine", "target_engine"), [to_postgresql, between_files]
)


@pytest.fixture(scope="module")
def engine_of() -> Iterator[Callable[[str], Engine]]:
    """Yield a function that returns an engine by name, started at its first use."""
    with ExitStack() as running:
        yield cache(lambda name: running.enter_context(engine_called(name)))


@pytest.fixture(scope="module")
def made_by(
    engine_of: Callable[[str], Engine], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Give the folder of a ledger with three keys, kept by an engine; it is to be copied."""

    @cache
    def make(engine: str) -> Path:
        data_dir = engine_of(engine).new_place(tmp_path_factory.mktemp(engine) / "made")
        with keys_in(data_dir) as keys:
            for name in ("first", "second", "third"):
                keys.create(name)
            keys.opened.signer.sign()
        return data_dir

    return make


@pytest.fixture
def source(made_by: Callable[[str], Path], source_engine: str, tmp_path: Path) -> Path:
    """The folder of a ledger with three keys."""
    return fresh_copy(made_by(source_engine), tmp_path / "source")


@pytest.fixture
def target(engine_of: Callable[[str], Engine], target_engine: str, tmp_path: Path) -> Path:
    """The folder of a ledger whose database is empty."""
    folder = tmp_path / "target"
    folder.mkdir()
    return engine_of(target_engine).new_place(folder)


@each_way
def test_a_copy_and_its_copy_back_have_every_row_that_the_ledger_has(
    engine_of: Callable[[str], Engine],
    source_engine: str,
    target_engine: str,
    tmp_path: Path,
) -> None:
    full_ledger, there, back = (
        engine_of(engine).new_place(tmp_path / name)
        for name, engine in (
            ("full_ledger", source_engine),
            ("there", target_engine),
            ("back", source_engine),
        )
    )
    there.mkdir()
    back.mkdir()
    live_in(full_ledger, 80)
    lived = content_of(full_ledger)
    assert all(lived.values())

    moved = copy(full_ledger, there)
    assert content_of(there) == lived
    move_in(full_ledger, there)
    copy(there, back)
    assert content_of(back) == lived

    assert not rows_of(address_of(there), "console_sessions")
    positions = [position for position, *_ in lived["events"]]
    # A refused append has used up an id there.
    assert (positions != list(range(1, len(positions) + 1))) == (source_engine == POSTGRESQL)
    assert moved.extent.position == positions[-1]
    assert moved.extent.events == moved.copied == moved.extent.entries == len(positions)
    assert moved.extent.rows == {view.name: len(lived[view.name]) for view in VIEWS}
    assert moved.beside_events == {
        name: len(lived[name]) for name in ("key_digests", "last_uses", "checkpoints")
    } | {"ledger_secret": 1}
    assert moved.appended_since == 0


@each_way
def test_a_copy_can_be_used_like_the_source(
    engine_of: Callable[[str], Engine], source_engine: str, target: Path, tmp_path: Path
) -> None:
    source = engine_of(source_engine).new_place(tmp_path / "source")
    tokens = live_in(source, 40)
    last = copy(source, target).extent.position
    move_in(source, target)
    with keys_in(target) as keys:
        assert {token: keys.verify(token) for token in tokens} == tokens
        made = keys.create("in the new database")
        keys.rename(made.key_id, "at home")
        keys.opened.signer.sign()
        opened = keys.opened
        attestation = check_integrity(
            keys.database,
            notes=notes_in(opened.signer.path),
            keys=[opened.signer.key.verifier_key],
        )
        assert not attestation.findings
        # Each of the three is outside the database as well.
        assert attestation.checkpoints == 2 * 3
    positions = [position for position, *_ in rows_of(address_of(target), "events")]
    assert positions[-2:] == [last + 1, last + 2]


@each_target
def test_the_source_is_only_read(source: Path, target: Path) -> None:
    before = dump(address_of(source))

    def fail(_connection: Connection) -> None:
        pytest.fail("something was written to the source")

    with (
        closing(open_database(address_of(source))) as ours,
        closing(sealed_database(source, address_of(target))) as theirs,
    ):
        event.listen(ours.writer, "begin", fail)
        copy_ledger(ours, theirs, clock=lambda: NOON)
    assert dump(address_of(source)) == before


def test_every_durable_table_is_copied_or_can_be_lost() -> None:
    copied = {"events", *(table.name for table in BESIDE_EVENTS)}
    lost = {"console_sessions", "last_attestation", "projection_states"}
    assert set(metadata.tables) == copied | lost


@each_target
def test_the_next_copy_fetches_what_was_appended_since_and_keeps_the_views(
    source: Path, target: Path
) -> None:
    copy(source, target)
    generations = rows_of(address_of(target), "projection_states")
    with keys_in(source) as keys:
        made = keys.create("since")
        keys.rotate(made.key_id, grace=HOUR)
        keys.verify(made.token)
        keys.opened.last_uses.flush(keys.database)
        keys.opened.signer.sign()
    fetched = copy(source, target)
    assert fetched.copied == 3
    assert content_of(target) == content_of(source)
    states = rows_of(address_of(target), "projection_states")
    assert [state[:3] for state in states] == [state[:3] for state in generations]
    assert {state[3] for state in states} == {fetched.extent.position}


@each_target
def test_a_copy_of_a_ledger_in_use_has_its_state_at_one_moment(source: Path, target: Path) -> None:
    with keys_in(source) as keys:
        left = iter(("copying", "key_list", "entries", "copying", "comparing"))
        wanted = next(left)

        def work(what: str, _done: int, _last: int) -> None:
            nonlocal wanted
            if what == wanted:
                made = keys.create(f"made at {what}")
                keys.rename(made.key_id, f"renamed at {what}")
                wanted = next(left, "")

        report = copy(source, target, progress=work)
        assert not wanted
    assert report.appended_since == 2
    assert report.copied == report.extent.events == count_events(address_of(source)) - 2
    copied = rows_of(address_of(target), "events")
    assert rows_of(address_of(source), "events")[:-2] == copied
    move_in(source, target)
    with keys_in(target) as keys:
        assert not differing_rows(keys)


def refused(source: Path, target: Path, said: str) -> None:
    """Assert that a copy is refused, and that neither side was changed."""
    before = dump(address_of(source)), dump(address_of(target))
    with pytest.raises((CopyRefused, UnknownSchema), match=said):
        copy(source, target)
    assert (dump(address_of(source)), dump(address_of(target))) == before


@each_target
def test_another_programs_database_is_left_unchanged(source: Path, target: Path) -> None:
    sql(address_of(target), "CREATE TABLE customers (name TEXT)")
    refused(source, target, "has tables, but no revision of Keyledger")
    assert tables_of(address_of(target)) == {"customers"}


@each_target
def test_another_ledger_is_left_alone(source: Path, target: Path) -> None:
    with keys_in(target) as keys:
        keys.create("first")
    refused(source, target, r"has another ledger: its event at position 1 .* use an empty database")


@of_files
def test_a_target_with_another_history_is_left_unchanged(source: Path, target: Path) -> None:
    copy(source, target)
    edit_events(target, "UPDATE events SET topic = 'ApiKey.Other' WHERE id = 2")
    refused(source, target, "has another ledger: its event at position 2 ")


@of_files
def test_a_target_with_another_gap_is_left_unchanged(source: Path, target: Path) -> None:
    copy(source, target)
    edit_events(target, "DELETE FROM events WHERE id = 2")
    refused(source, target, "has another ledger: its event at position 2 ")


def edit_events(data_dir: Path, statement: str) -> None:
    sql(address_of(data_dir), statement)


@each_target
def test_a_target_that_is_ahead_is_left_unchanged(source: Path, target: Path) -> None:
    copy(source, target)
    move_in(source, target)
    with keys_in(target) as keys:
        keys.create("in the new database")
    refused(source, target, "is ahead: it ends at position 4, and .* at 3; it was used")


@each_target
def test_a_target_whose_keys_were_used_since_is_left_unchanged(source: Path, target: Path) -> None:
    copy(source, target)
    use = "2026-03-03T12:01:00.000000Z"
    sql(address_of(target), "INSERT INTO last_uses (position, used_at) VALUES (1, ?)", use)
    refused(source, target, f"is ahead: a key was used there at {use}")


@of_files
def test_copying_does_not_upgrade_the_source(source: Path, target: Path) -> None:
    copy(source, target)
    sql(address_of(target), "UPDATE alembic_version SET version_num = '0001'")
    refused(source, target, "of another version of the program .*its revision is 0001")


@of_files
def test_a_source_of_another_version_is_refused_with_what_to_do(source: Path, target: Path) -> None:
    sql(address_of(source), "UPDATE alembic_version SET version_num = '0001'")
    sql(address_of(target), "SELECT 1")
    refused(source, target, "upgrade it first with keyledger projections status")


@of_files
def test_a_source_with_a_view_of_another_version_is_refused(source: Path, target: Path) -> None:
    sql(address_of(source), "UPDATE projection_states SET view_version = 0")
    sql(address_of(target), "SELECT 1")
    refused(source, target, "keyledger projections status")


@of_files
def test_a_source_that_is_not_a_ledger_is_refused(source: Path, target: Path) -> None:
    sql(address_of(target), "SELECT 1")
    refused(target, source, "there is no ledger in ")


@pytest.mark.parametrize("source_engine", [SQLITE, pytest.param(POSTGRESQL, marks=on_postgresql)])
def test_a_ledger_is_not_copied_to_itself_under_any_name(source: Path, tmp_path: Path) -> None:
    address = address_of(source)
    if address.get_backend_name() == SQLITE:
        link = tmp_path / "link.sqlite3"
        link.symlink_to(database_file(source))
        other = address.set(database=str(link))
    else:
        other = address.set(host="localhost")
    with (
        closing(open_database(address)) as ours,
        closing(sealed_database(source, other)) as theirs,
        pytest.raises(CopyRefused, match="is the ledger to copy from"),
    ):
        copy_ledger(ours, theirs, clock=lambda: NOON)


@each_target
def test_two_copies_to_one_target_are_not_made_at_once(source: Path, target: Path) -> None:
    copy(source, target)
    with (
        closing(open_database(address_of(target))) as theirs,
        task_lock(theirs, "copy"),
        pytest.raises(CopyRunning),
    ):
        copy(source, target)
    assert copy(source, target).copied == 0


@each_target
def test_a_target_that_is_appended_to_meanwhile_is_refused(source: Path, target: Path) -> None:
    def append() -> None:
        sql(
            address_of(target),
            "INSERT INTO events (originator_id, originator_version, topic, state)"
            " VALUES (?, 1, 'ApiKey.Unheard', x'7b7d')",
            "00000000-0000-0000-0000-000000000001",
        )

    with pytest.raises(CopyRefused, match="another program appends to "):
        copy(source, target, progress=at_call(1, "copying", append))


@each_target
def test_a_changed_byte_is_found(source: Path, target: Path) -> None:
    def change() -> None:
        edit_events(target, "UPDATE events SET state = x'7b7d' WHERE id = 2")

    with pytest.raises(CopyDiffers, match="the event at position 2 differs"):
        copy(source, target, progress=at_call(1, "comparing", change))


@of_files
def test_a_different_tree_is_found(source: Path, target: Path) -> None:
    edit_rows(address_of(source), entries.table.name, 2, hashes=bytes(64))
    with pytest.raises(CopyDiffers, match=r"the root of .* differ: .* keyledger audit verify"):
        copy(source, target)


@of_files
def test_a_view_that_lacks_a_row_is_found(source: Path, target: Path) -> None:
    delete_rows(address_of(source), "key_list", 2)
    with pytest.raises(CopyDiffers, match=r"the rows of .* differ: "):
        copy(source, target)


@pytest.mark.parametrize(("source_engine", "target_engine"), [to_postgresql])
def test_an_event_that_postgresql_cannot_keep_is_named(source: Path, target: Path) -> None:
    sql(address_of(source), "UPDATE events SET originator_id = x'00' WHERE id = 2")
    with pytest.raises(PoisonEvent, match=r"position 2 .* its key is not a UUID"):
        copy(source, target)


@each_target
def test_an_empty_ledger_is_copied_and_can_be_begun(source: Path, target: Path) -> None:
    lose_events(source, after=0)
    delete_rows(address_of(source), "checkpoints")
    (source / "checkpoints.txt").unlink()
    (source / "checkpoints.txt").touch()
    report = copy(source, target)
    assert (report.copied, report.extent.position) == (0, 0)
    move_in(source, target)
    with keys_in(target) as keys:
        keys.create("first")
    assert [position for position, *_ in rows_of(address_of(target), "events")] == [1]
