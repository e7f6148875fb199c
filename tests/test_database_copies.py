"""A copy that a second test uses is as one that was made for it."""

from collections.abc import Iterator
from contextlib import suppress

import psycopg
import pytest
from sqlalchemy import URL

from tests.database_copies import DatabaseCopies
from tests.engines import Engine, PostgreSQL
from tests.postgresql import connected, create_database

pytestmark = pytest.mark.only_on("postgresql")

ORIGINAL = """
    CREATE TABLE events (id bigserial PRIMARY KEY, text text NOT NULL, number integer);
    CREATE TABLE empty (id integer);
    INSERT INTO events (text) VALUES ('first'), ('second');
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN RAISE EXCEPTION 'events are not changed'; END $$;
    CREATE TRIGGER kept BEFORE UPDATE OR DELETE ON events FOR EACH ROW EXECUTE FUNCTION refuse();
"""

ROWS = [(1, "first"), (2, "second")]


@pytest.fixture
def server(engine: Engine) -> URL:
    assert isinstance(engine, PostgreSQL)
    return engine.server.url("postgres")


@pytest.fixture
def copies(server: URL) -> Iterator[DatabaseCopies]:
    create_database(server.set(database="ledger_original"))
    with connected(server.set(database="ledger_original")) as original:
        original.execute(ORIGINAL.encode())
    copies = DatabaseCopies(server)
    before = copies.used() - {"ledger_original"}
    yield copies
    copies.release(before)


def changed(server: URL, name: str, *statements: str) -> None:
    with connected(server.set(database=name)) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def rows(server: URL, name: str) -> list[tuple[object, ...]]:
    with connected(server.set(database=name)) as connection:
        return connection.execute("SELECT id, text FROM events ORDER BY id").fetchall()


def oid(server: URL, name: str) -> object:
    with connected(server) as connection:
        found = connection.execute("SELECT oid FROM pg_database WHERE datname = %s", (name,))
        return found.fetchone()


def used_again(copies: DatabaseCopies, name: str) -> str:
    """Release the copy, and make one again, which has its name where nothing else is free."""
    copies.release(copies.used() - {name})
    return copies.make("ledger_original")


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO events (text) VALUES ('third')",
        "SET session_replication_role = replica; DELETE FROM events",
        "SET session_replication_role = replica; UPDATE events SET text = 'other'",
        "INSERT INTO empty VALUES (1)",
    ],
)
def test_a_copy_that_is_used_again_has_the_rows_of_its_original(
    copies: DatabaseCopies, server: URL, change: str
) -> None:
    first = copies.make("ledger_original")
    number = oid(server, first)
    changed(server, first, change)
    assert used_again(copies, first) == first
    assert oid(server, first) == number
    assert rows(server, first) == ROWS
    changed(server, first, "INSERT INTO events (text) VALUES ('third')")
    assert rows(server, first) == [*ROWS, (3, "third")]
    with connected(server.set(database=first)) as connection:
        assert connection.execute("SELECT count(*) FROM empty").fetchone() == (0,)


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE events ADD COLUMN more text",
        "ALTER TABLE events ALTER COLUMN text DROP NOT NULL",
        "ALTER TABLE events ALTER COLUMN number SET DEFAULT 1",
        "ALTER TABLE events DISABLE TRIGGER kept",
        "DROP TRIGGER kept ON events",
        "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN END'",
        "CREATE INDEX texts ON events (text)",
        "CREATE TABLE more (id integer)",
        "DROP TABLE empty",
        "TRUNCATE empty",
        "CREATE VIEW texts AS SELECT text FROM events",
        "CREATE RULE none AS ON INSERT TO empty DO INSTEAD NOTHING",
        "ALTER TABLE events ENABLE ROW LEVEL SECURITY",
        "CREATE SCHEMA other",
        "CREATE TYPE kind AS ENUM ('a')",
        "GRANT SELECT ON events TO PUBLIC",
        "REVOKE EXECUTE ON FUNCTION pg_sleep FROM PUBLIC",
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
        "SELECT lo_create(4711)",
        "ALTER DATABASE {} SET work_mem = 64",
        "REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC",
    ],
)
def test_a_copy_whose_schema_changed_is_made_again(
    copies: DatabaseCopies, server: URL, change: str
) -> None:
    first = copies.make("ledger_original")
    number = oid(server, first)
    changed(server, first, change.replace("{}", first))
    again = used_again(copies, first)
    assert oid(server, again) != number
    assert rows(server, again) == ROWS


def test_an_original_that_changed_is_copied_as_it_is_now(
    copies: DatabaseCopies, server: URL
) -> None:
    first = copies.make("ledger_original")
    changed(server, "ledger_original", "INSERT INTO events (text) VALUES ('third')")
    again = used_again(copies, first)
    assert rows(server, again) == [*ROWS, (3, "third")]


def test_two_copies_in_use_are_two_databases(copies: DatabaseCopies) -> None:
    assert copies.make("ledger_original") != copies.make("ledger_original")


def test_a_connection_that_was_left_open_does_not_keep_its_copy(
    copies: DatabaseCopies, server: URL
) -> None:
    first = copies.make("ledger_original")
    left_open = connected(server.set(database=first))
    with suppress(psycopg.errors.AdminShutdown), left_open as left:
        left.execute("BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        assert used_again(copies, first) == first
    assert rows(server, first) == ROWS
