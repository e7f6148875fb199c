from contextlib import closing
from itertools import count
from multiprocessing.synchronize import Barrier
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from eventsourcing.persistence import StoredEvent
from eventsourcing_sqlalchemy.recorders import SQLAlchemyApplicationRecorder
from sqlalchemy import Table, inspect, select

import projections.store.schema
from domain.api_key import ApiKey
from domain.errors import EventNotSealed
from domain.serialization import EventMapper
from projections.recorder import LedgerRecorder
from projections.store.database import Database, open_database
from projections.store.schema import (
    HEAD,
    UnknownSchema,
    current_revision,
    events,
    metadata,
    upgrade_schema,
)
from projections.store.sqlite_driver import driver as sqlite3
from tests.engines import file_address, fresh_copy
from tests.projections.ledgers import Keys, keys_in
from tests.projections.processes import (
    CONTEXT,
    die_at_statement,
    run_until_killed,
    start,
)
from tests.raw_sql import dump, sql, tables_of

TABLES = {"alembic_version", *metadata.tables}


def upgrade(path: Path) -> None:
    database = open_database(f"sqlite:///{path}")
    try:
        upgrade_schema(database)
    finally:
        database.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite3"


def test_head_is_the_newest_migration_of_a_linear_history() -> None:
    config = Config()
    migrations = Path(projections.store.schema.__file__).with_name("migrations")
    config.set_main_option("script_location", str(migrations))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def test_an_empty_database_gets_the_durable_tables(path: Path) -> None:
    upgrade(path)
    assert tables_of(file_address(path)) == TABLES
    assert sql(file_address(path), "SELECT version_num FROM alembic_version") == [(HEAD,)]


def test_an_up_to_date_database_stays_as_it_is(path: Path) -> None:
    upgrade(path)
    before = path.read_bytes()
    upgrade(path)
    assert path.read_bytes() == before


def columns_of(table: Table) -> dict[str, tuple[bool, bool]]:
    return {column.name: (bool(column.nullable), column.primary_key) for column in table.columns}


def columns_in(database: Database, table: str) -> dict[str, tuple[bool, bool]]:
    found = inspect(database.reader)
    keys = found.get_pk_constraint(table)["constrained_columns"]
    return {
        column["name"]: (column["nullable"], column["name"] in keys)
        for column in found.get_columns(table)
    }


@pytest.mark.parametrize("name", list(metadata.tables))
def test_the_migrations_make_the_tables_that_the_code_knows(keys: Keys, name: str) -> None:
    assert columns_in(keys.database, name) == columns_of(metadata.tables[name])


def test_the_library_finds_the_event_table_that_it_expects(keys: Keys) -> None:
    recorder = LedgerRecorder(keys.database, [])
    expected = recorder.events_record_cls.__table__
    found = columns_in(keys.database, "events")
    assert found.pop("seal") == (True, False), "the library knows nothing of seals"
    assert found == columns_of(expected)
    assert {
        (index["name"], tuple(index["column_names"]), bool(index["unique"]))
        for index in inspect(keys.database.reader).get_indexes("events")
    } == {
        (index.name, tuple(column.name for column in index.columns), index.unique)
        for index in expected.indexes
    }


def test_the_serialization_is_compatible_with_the_library(keys: Keys) -> None:
    made = keys.create()
    keys.rename(made.key_id, "another")
    stored = StoredEvent(uuid4(), 1, ApiKey.Created.TOPIC, b'{"some":"state"}')
    recorder: SQLAlchemyApplicationRecorder = LedgerRecorder(keys.database, [])
    with recorder.transaction(commit=True) as session:
        # The library's own insert: the state would be refused by ours.
        SQLAlchemyApplicationRecorder._insert_stored_events(  # noqa: SLF001
            recorder, session, [stored]
        )
    with keys.database.read() as connection:
        ours = connection.execute(select(events).order_by(events.c.id)).all()
    theirs = recorder.select_notifications(None, 10)
    assert [(row.id, UUID(bytes=row.originator_id), *row[2:-1]) for row in ours] == [
        (each.id, each.originator_id, each.originator_version, each.topic, each.state)
        for each in theirs
    ]
    assert [row.id for row in ours] == [1, 2, 3]
    assert ours[2].state == stored.state
    with pytest.raises(EventNotSealed):
        recorder.select_events(stored.originator_id)
    first = EventMapper().to_domain_event(recorder.select_events(theirs[0].originator_id)[0])
    assert isinstance(first, ApiKey.Created)
    assert recorder.max_notification_id() == 3


def upgrade_together(path: Path, barrier: Barrier) -> None:
    barrier.wait(30)
    upgrade(path)


def test_processes_that_upgrade_at_once_make_one_schema(path: Path, tmp_path: Path) -> None:
    number = 4
    barrier = CONTEXT.Barrier(number)
    running = [start(upgrade_together, path, barrier) for _ in range(number)]
    for each in running:
        with each:
            each.result()
    alone = tmp_path / "alone.sqlite3"
    upgrade(alone)
    assert dump(file_address(path)) == dump(file_address(alone))


def upgrade_until(path: Path, number: int, when: str) -> None:
    die_at_statement(number, when=when)
    upgrade(path)


@pytest.mark.parametrize("when", ["before_cursor_execute", "after_cursor_execute"])
def test_an_upgrade_that_is_killed_has_done_nothing_or_everything(
    tmp_path: Path, when: str
) -> None:
    found = []
    for number in count(1):
        path = tmp_path / f"{number}.sqlite3"
        if not run_until_killed(upgrade_until, path, number, when):
            break
        found.append(tables_of(file_address(path)))
        upgrade(path)
        assert tables_of(file_address(path)) == TABLES
    assert len(found) > 5
    assert all(tables in (set(), TABLES) for tables in found)
    assert found[-1] == set(), "the last statement comes before the commit"


def foreign_database(path: Path, journal_mode: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal_mode}")
        connection.execute("CREATE TABLE customers (name)")
        connection.execute("INSERT INTO customers VALUES ('Ada')")
        connection.commit()


def test_a_foreign_database_is_refused_and_stays_byte_for_byte(path: Path) -> None:
    foreign_database(path, "wal")
    before = path.read_bytes()
    with pytest.raises(UnknownSchema, match="has tables, but no revision of Keyledger"):
        upgrade(path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_foreign_database_with_another_journal_keeps_all_that_is_in_it(path: Path) -> None:
    foreign_database(path, "delete")
    before = dump(file_address(path))
    with pytest.raises(UnknownSchema):
        upgrade(path)
    assert dump(file_address(path)) == before


def test_tables_of_somebody_elses_migrations_are_refused(path: Path) -> None:
    sql(file_address(path), "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    sql(file_address(path), "INSERT INTO alembic_version VALUES ('4e1d0a7c')")
    with pytest.raises(UnknownSchema, match="has revision 4e1d0a7c"):
        upgrade(path)


def test_an_empty_list_of_revisions_is_refused(path: Path) -> None:
    upgrade(path)
    sql(file_address(path), "DELETE FROM alembic_version")
    before = path.read_bytes()
    with pytest.raises(UnknownSchema, match="no revision of Keyledger"):
        upgrade(path)
    assert path.read_bytes() == before


@pytest.mark.only_on("sqlite")
def test_a_newer_version_s_ledger_is_refused_and_stays_byte_for_byte(
    data_dir: Path, tmp_path: Path
) -> None:
    with keys_in(data_dir) as keys:
        keys.create()
        path = keys.path
    sql(file_address(path), "UPDATE alembic_version SET version_num = '9999'")
    before = path.read_bytes()
    copy = fresh_copy(data_dir, tmp_path / "copy") / path.name
    with (
        pytest.raises(UnknownSchema, match=r"9999.* run the newer version that created it"),
        keys_in(data_dir),
    ):
        pytest.fail("opened")
    assert path.read_bytes() == before
    assert dump(file_address(path)) == dump(file_address(copy))


def test_the_revision_can_be_asked_for(path: Path) -> None:
    database = open_database(f"sqlite:///{path}")
    with database.read() as connection:
        assert current_revision(connection) is None
    upgrade_schema(database)
    with database.read() as connection:
        assert current_revision(connection) == HEAD
    database.close()
