"""The schema check while a rebuild replaces and drops tables."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection, event, text

from domain.errors import LedgerUnavailable
from projections.integrity.schema_check import schema_findings
from projections.rebuild.view_tables import create_table
from projections.store import postgresql_shapes
from projections.views import key_list
from tests.engines import POSTGRESQL
from tests.projections.ledgers import Keys

SHADOW = "key_list_1"


@contextmanager
def before_indexes_are_read(keys: Keys, *statements: str, times: int = 1) -> Iterator[list[str]]:
    """Run statements in another transaction before the first queries for indexes; return them."""
    done: list[str] = []

    def run(_connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        if "pg_get_indexdef" in statement and len(done) < times * len(statements):
            with keys.database.write() as other:
                for each in statements:
                    other.execute(text(each))
            done.extend(statements)

    event.listen(keys.database.reader, "before_cursor_execute", run)
    try:
        yield done
    finally:
        event.remove(keys.database.reader, "before_cursor_execute", run)


@pytest.mark.only_on(POSTGRESQL)
def test_a_shadow_table_can_be_dropped_during_the_comparison(keys: Keys) -> None:
    with keys.database.write() as connection:
        create_table(connection, key_list.VIEW.table, SHADOW, 0)
    with keys.database.read() as connection:
        assert SHADOW in postgresql_shapes.shapes_of(connection, [SHADOW])
    with before_indexes_are_read(keys, f"DROP TABLE {SHADOW}") as done:
        assert schema_findings(keys.database) == []
    assert done


@pytest.mark.only_on(POSTGRESQL)
def test_a_table_can_be_replaced_during_the_comparison(keys: Keys) -> None:
    with keys.database.write() as connection:
        create_table(connection, key_list.VIEW.table, SHADOW, 0)
    swap = (
        "ALTER TABLE key_list RENAME TO key_list_2",
        f"ALTER TABLE {SHADOW} RENAME TO key_list",
        "DROP TABLE key_list_2",
    )
    with before_indexes_are_read(keys, *swap) as done:
        assert schema_findings(keys.database) == []
    assert done


@pytest.mark.only_on(POSTGRESQL)
def test_a_table_that_stays_missing_is_found(keys: Keys) -> None:
    with keys.database.write() as connection:
        connection.execute(text("DROP TABLE last_uses"))
    assert "it is missing" in str(schema_findings(keys.database))


@pytest.mark.only_on(POSTGRESQL)
def test_a_table_that_is_replaced_repeatedly_is_not_a_finding(keys: Keys) -> None:
    replaced = ("CREATE TABLE other (LIKE key_list INCLUDING ALL)", "DROP TABLE key_list")
    renamed = "ALTER TABLE other RENAME TO key_list"
    with (
        before_indexes_are_read(keys, *replaced, renamed, times=100) as done,
        pytest.raises(LedgerUnavailable, match="a rebuild is replacing the tables"),
    ):
        schema_findings(keys.database)
    assert len(done) > len([*replaced, renamed])
