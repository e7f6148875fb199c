"""Copies of PostgreSQL databases that tests use one after another.

To create a database and to drop it takes about 0.1 seconds, and its first connections are slow. So
a copy is kept after its test, and the next test that asks for a copy of the same database gets this
one with its rows put back. A copy whose schema was changed, by a rebuild or by a test, is made
again.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import URL

from tests.postgresql import connected, copy_database, database_names, drop_database

KEPT = 8
"""Copies that nobody uses and that are kept: about 8 MiB each."""

# The catalogs in which each change of a schema, of a right or of a database's setting leaves a row
# with a newer transaction or one row more or less. VACUUM and ANALYZE leave none.
_CATALOGS = (
    "pg_class",
    "pg_attribute",
    "pg_attrdef",
    "pg_type",
    "pg_proc",
    "pg_trigger",
    "pg_constraint",
    "pg_index",
    "pg_rewrite",
    "pg_namespace",
    "pg_policy",
    "pg_event_trigger",
    "pg_collation",
    "pg_cast",
    "pg_operator",
    "pg_extension",
    "pg_statistic_ext",
    "pg_default_acl",
    "pg_largeobject_metadata",
    "(SELECT xmin FROM pg_database WHERE datname = current_database()) AS database",
    """(
        SELECT s.xmin FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
        WHERE d.datname = current_database()
    ) AS settings""",
)
_NEWEST = "(SELECT (count(*), max(xmin::text::bigint))::text FROM {})"
_SCHEMA = "SELECT " + ", ".join(_NEWEST.format(catalog) for catalog in _CATALOGS)
_TABLES = (
    "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    " ORDER BY relname"
)
_SEQUENCES = "SELECT sequencename FROM pg_sequences WHERE schemaname = 'public'"
_END_OTHERS = (
    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)

_Connection = psycopg.Connection[tuple[object, ...]]


@dataclass(frozen=True)
class _Original:
    """What a database holds that is copied."""

    state: Any
    rows: dict[str, bytes]
    sequences: dict[str, tuple[int, bool]]


@dataclass
class _Copy:
    name: str
    original: str
    schema: Any
    used: bool = True


class DatabaseCopies:
    """The copies on one server."""

    def __init__(self, server: URL) -> None:
        self._server = server
        self._originals: dict[str, _Original] = {}
        self._copies: dict[str, _Copy] = {}

    def make(self, original: str, *, name: str | None = None) -> str:
        """Return the name of a database with the contents of another, which nobody has open.

        Args:
            original: the name of the other.
            name: what the copy has to be called; it takes the place of a database of this name.
        """
        contents = self._contents(original)
        for copy in [*self._copies.values()]:
            wanted = copy.name == name if name else not copy.used
            if wanted and copy.original == original and self._reset(copy, contents):
                copy.used = True
                return copy.name
        name = name or f"ledger_{token_hex(6)}"
        copy_database(self._server.set(database=name), original)
        with self._connected(name) as connection:
            self._copies[name] = _Copy(name, original, _schema(connection))
        return name

    def used(self) -> set[str]:
        """Return the names of the databases that somebody uses."""
        free = {name for name, copy in self._copies.items() if not copy.used}
        return database_names(self._server) - free

    def release(self, used_before: set[str]) -> None:
        """Keep the copies that were taken into use since for later tests; drop all else."""
        for copy in self._copies.values():
            copy.used = copy.used and copy.name in used_before
        free = [name for name, copy in self._copies.items() if not copy.used]
        kept = used_before | set(free[-KEPT:])
        for name in database_names(self._server) - kept:
            drop_database(self._server.set(database=name))
            self._copies.pop(name, None)
            self._originals.pop(name, None)

    def _contents(self, original: str) -> _Original:
        known = self._originals.get(original)
        with self._connected(original) as connection:
            state = _state(connection)
            if known is None or known.state != state:
                self._copies = {
                    name: copy for name, copy in self._copies.items() if copy.original != original
                }
                known = self._originals[original] = _read(connection, state)
        return known

    def _reset(self, copy: _Copy, contents: _Original) -> bool:
        """Put the rows back, unless the schema is another; return whether it was done."""
        with self._connected(copy.name) as connection:
            connection.execute(_END_OTHERS)
            if _schema(connection) != copy.schema:
                del self._copies[copy.name]
                return False
            with connection.transaction():
                # The triggers that keep events unchanged do not fire for a replica.
                connection.execute("SET LOCAL session_replication_role = replica")
                for table, rows in contents.rows.items():
                    named = sql.Identifier(table)
                    connection.execute(sql.SQL("DELETE FROM {}").format(named))
                    statement = sql.SQL("COPY {} FROM STDIN (FORMAT binary)").format(named)
                    with connection.cursor().copy(statement) as put:
                        put.write(rows)
                for sequence, (value, called) in contents.sequences.items():
                    connection.execute("SELECT setval(%s, %s, %s)", (sequence, value, called))
        return True

    def _connected(self, name: str) -> AbstractContextManager[_Connection]:
        return connected(self._server.set(database=name))


def _schema(connection: _Connection) -> Any:  # noqa: ANN401 - only compared
    return connection.execute(_SCHEMA.encode()).fetchone()


def _tables(connection: _Connection) -> list[str]:
    return [str(name) for (name,) in connection.execute(_TABLES)]


def _sequences(connection: _Connection) -> dict[str, tuple[int, bool]]:
    names = [str(name) for (name,) in connection.execute(_SEQUENCES)]
    values: dict[str, Any] = {
        name: connection.execute(
            sql.SQL("SELECT last_value, is_called FROM {}").format(sql.Identifier(name))
        ).fetchone()
        for name in names
    }
    return values


def _state(connection: _Connection) -> Any:  # noqa: ANN401 - only compared
    newest = sql.SQL(" UNION ALL ").join(
        sql.SQL("SELECT count(*), max(xmin::text::bigint) FROM {}").format(sql.Identifier(table))
        for table in _tables(connection)
    )
    return _schema(connection), connection.execute(newest).fetchall(), _sequences(connection)


def _read(connection: _Connection, state: Any) -> _Original:  # noqa: ANN401 - kept to compare
    rows = {}
    for table in _tables(connection):
        statement = sql.SQL("COPY {} TO STDOUT (FORMAT binary)").format(sql.Identifier(table))
        with connection.cursor().copy(statement) as read:
            rows[table] = b"".join(bytes(part) for part in read)
    return _Original(state, rows, _sequences(connection))
