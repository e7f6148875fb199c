"""Create, rename and drop the tables of views, without making other writers wait for long."""

from collections.abc import Iterator
from time import perf_counter, sleep

from sqlalchemy import Connection, MetaData, Table, delete, inspect, text
from sqlalchemy.sql.elements import quoted_name

from projections.rebuild.view_states import read_state
from projections.store.database import Database, lift_timeouts, schema_for_new_tables
from projections.store.schema import projection_states

ROWS = 10_000
"""Rows per transaction; other writers wait for it."""

_INDEXES = text("SELECT name, origin FROM pragma_index_list(:name)")


def create_table(connection: Connection, like: Table, name: str, generation: int) -> None:
    """Create an empty table.

    Args:
        like: a table with the same columns and indexes.
        generation: a number that no existing table of this name was created with.
    """
    made_in = MetaData(schema=schema_for_new_tables(connection))
    table = like.to_metadata(made_in, name=name)
    for index in table.indexes:
        # An index keeps its name when its table is renamed, and index names must be unique.
        index.name = quoted_name(f"{name}_{index.name}_{generation}", quote=None)
        # If this index exists, the state of its table was lost, and with it the generation.
        connection.execute(text(f"DROP INDEX IF EXISTS {index.name}"))
    table.create(connection)


def rename_table(connection: Connection, table: Table, to: Table) -> None:
    """Rename a table to the name of another one; its indexes keep their names."""
    connection.execute(text(f"ALTER TABLE {table.name} RENAME TO {to.name}"))


def drop_table(database: Database, table: Table) -> None:
    """Drop a table and its state, if they exist.

    SQLite reads every page of a table that it drops while other writers wait: seconds for millions
    of rows. So the indexes are dropped first, one by one, and then the rows in batches.

    Raises:
        LedgerUnavailable: the database did not answer; call this again to continue.
    """
    with database.read() as connection:
        there = inspect(connection).has_table(table.name)
        if not there and read_state(connection, table.name) is None:
            return
        large = there and database.is_a_file and _is_large(connection, table.name)
    if large:
        with database.write() as connection:
            # First, so that a table that is only partly dropped counts as missing.
            _delete_state(connection, table)
        for seconds in _emptying(database, table.name):
            # Let other writers go first; they may have waited as long.
            sleep(seconds)
    with database.write() as connection:
        lift_timeouts(connection)
        table.drop(connection, checkfirst=True)
        _delete_state(connection, table)


def _is_large(connection: Connection, name: str) -> bool:
    beyond = text(f"SELECT 1 FROM {name} LIMIT 1 OFFSET {ROWS}")  # noqa: S608 - a table's name
    return connection.scalar(beyond) is not None


def _delete_state(connection: Connection, table: Table) -> None:
    connection.execute(
        delete(projection_states).where(projection_states.c.table_name == table.name)
    )


def _emptying(database: Database, name: str) -> Iterator[float]:
    """Empty a table in batches; yield after each the number of seconds that others waited."""
    with database.read() as connection:
        indexes = connection.execute(_INDEXES, {"name": name}).all()
    # The index of a constraint cannot be dropped, and deleting random values from it in batches
    # takes as long as inserting them did.
    if any(index.origin == "u" for index in indexes):
        return
    for index in indexes:
        if index.origin == "c":
            started = perf_counter()
            with database.write() as connection:
                connection.execute(text(f"DROP INDEX {index.name}"))
            yield perf_counter() - started
    some = text(f"DELETE FROM {name} WHERE rowid IN (SELECT rowid FROM {name} LIMIT {ROWS})")  # noqa: S608 - a table's name
    deleted = ROWS
    while deleted == ROWS:
        started = perf_counter()
        with database.write() as connection:
            deleted = connection.execute(some).rowcount
        yield perf_counter() - started
