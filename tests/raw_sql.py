"""Direct SQL on a ledger's tables, on each engine: to read, damage and compare them.

Statements are in SQLite's dialect as far as PostgreSQL accepts it: parameters are ``?``, bytes are
written ``x'00ff'``, and a number may stand for a boolean.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from psycopg.adapt import Buffer, Dumper, Loader
from sqlalchemy import URL

from domain.pepper import Pepper
from projections.store.database import open_database
from projections.store.seals import Seals
from projections.store.sqlite_driver import driver as sqlite3
from projections.views import auth_lookup
from projections.views.registry import VIEWS
from tests.engines import SQLITE, address_of
from tests.postgresql import connected

Rows = list[tuple[Any, ...]]


_BYTES = re.compile(r"\bx'([0-9a-f]*)'")


class Cursor(Protocol):
    """What a statement answers."""

    @property
    def rowcount(self) -> int: ...

    @property
    def description(self) -> Any: ...  # noqa: ANN401 - as the drivers have it

    def fetchone(self) -> Any: ...  # noqa: ANN401 - a row, or None

    def fetchall(self) -> Any: ...  # noqa: ANN401 - rows

    def __iter__(self) -> Iterator[Any]: ...


class RawConnection(Protocol):
    """A connection to either engine; each statement is a transaction."""

    def execute(self, statement: str, parameters: Sequence[object] = (), /) -> Cursor: ...


class _OnSQLite:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, statement: str, parameters: Sequence[object] = (), /) -> Cursor:
        stored = [each.bytes if isinstance(each, UUID) else each for each in parameters]
        cursor: Cursor = self._connection.execute(statement, stored)
        return cursor


class _OnPostgreSQL:
    def __init__(self, connection: Any) -> None:  # noqa: ANN401 - of rows of any type
        self._connection = connection
        connection.adapters.register_dumper(int, _NumberForAnything)
        connection.adapters.register_loader("uuid", _BytesOfUuid)

    def execute(self, statement: str, parameters: Sequence[object] = (), /) -> Cursor:
        statement = _BYTES.sub(r"'\\x\1'::bytea", statement).replace(" AS BLOB)", " AS bytea)")
        if not parameters:
            unmarked: Cursor = self._connection.execute(statement)
            return unmarked
        with_their_marks = statement.replace("%", "%%").replace("?", "%s")
        marked: Cursor = self._connection.execute(with_their_marks, parameters)
        return marked


class _NumberForAnything(Dumper):
    """Gives a number as a literal of no type, which PostgreSQL reads as what the column is."""

    oid = 0

    def dump(self, obj: int) -> bytes:
        return str(obj).encode()


class _BytesOfUuid(Loader):
    """Reads a UUID as the bytes that SQLite has for it."""

    def load(self, data: Buffer) -> bytes:
        return UUID(bytes(data).decode()).bytes


@contextmanager
def raw(address: URL) -> Iterator[RawConnection]:
    """Connect past all that the program does."""
    if address.get_backend_name() == SQLITE:
        file = address.database or ""
        with closing(sqlite3.connect(file, isolation_level=None, timeout=30)) as connection:
            yield _OnSQLite(connection)
    else:
        with connected(address) as connection:
            yield _OnPostgreSQL(connection)


def sql(address: URL, statement: str, *parameters: object) -> Rows:
    """Run one statement; return the rows that it answers, if it does."""
    with raw(address) as connection:
        cursor = connection.execute(statement, parameters)
        return list(cursor.fetchall()) if cursor.description else []


def rows_of(address: URL, table: str) -> Rows:
    return sql(address, f"SELECT * FROM {table} ORDER BY 1, 2")  # noqa: S608 - names from the tests


def as_dicts(address: URL, table: str) -> list[dict[str, Any]]:
    """Return the rows of a table by the names of its columns."""
    with raw(address) as connection:
        cursor = connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2")  # noqa: S608 - as above
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]


def plant_row(address: URL, table: str, **values: object) -> None:
    """Copy the first row of a table, with some values changed."""
    row = as_dicts(address, table)[0] | values
    marks = ", ".join("?" * len(row))
    sql(address, f"INSERT INTO {table} VALUES ({marks})", *row.values())  # noqa: S608 - as above


def edit_rows(address: URL, table: str, *positions: int, **values: object) -> None:
    """Change columns of the rows at some positions, or of all."""
    columns = ", ".join(f"{name} = ?" for name in values)
    statement = f"UPDATE {table} SET {columns}{_at(positions)}"  # noqa: S608 - as above
    sql(address, statement, *values.values())


def rewrite(
    address: URL, table: str, column: str, change: Callable[[Any], object], *, where: str = "true"
) -> None:
    """Put something else in the place of each value of a column, in the rows chosen by SQL."""
    place = _place(address)
    for row, value in sql(address, f"SELECT {place}, {column} FROM {table} WHERE {where}"):  # noqa: S608
        edit_row(address, table, row, **{column: change(value)})


def with_field(name: str, value: object) -> Callable[[bytes], bytes]:
    """Return what gives the state of an event another value of a field."""
    return lambda state: _state(json.loads(state) | {name: value})


def without_field(name: str) -> Callable[[bytes], bytes]:
    """Return what takes a field out of the state of an event."""
    return lambda state: _state(
        {each: value for each, value in json.loads(state).items() if each != name}
    )


def _state(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()


def seal_events(data_dir: Path) -> None:
    """Give each event the seal that a program with the ledger's pepper would give it.

    An event whose columns have values of other types than the ledger writes keeps what it has.
    """
    address = address_of(data_dir)
    seals = Seals(Pepper((data_dir / "pepper").read_bytes()))
    for position, *columns in sql(
        address, "SELECT id, originator_id, originator_version, topic, state FROM events"
    ):
        if [type(each) for each in columns] == [bytes, int, str, bytes]:
            seal = seals.event(*columns)
            sql(address, "UPDATE events SET seal = ? WHERE id = ?", seal, position)


def seal_auth_rows(data_dir: Path) -> None:
    """Give each row of the auth lookup the seal that the ledger would give it."""
    address = address_of(data_dir)
    seals = Seals(Pepper((data_dir / "pepper").read_bytes()))
    rows = as_dicts(address, "auth_lookup")
    with raw(address) as connection:
        for row in rows:
            position = row["position"]
            # SQLite has numbers for truths.
            row |= {name: bool(row[name]) for name in ("revoked", "expired")}
            seal = seals.auth_row([row[name] for name in auth_lookup.SEALED])
            connection.execute(
                "UPDATE auth_lookup SET seal = ? WHERE position = ?", (seal, position)
            )


def delete_rows(address: URL, table: str, *positions: int) -> None:
    """Delete the rows at some positions, or all."""
    sql(address, f"DELETE FROM {table}{_at(positions)}")  # noqa: S608 - as above


def lose_events(data_dir: Path, *, after: int) -> None:
    """Delete the newest events and all that was derived from them.

    What is left is just what the ledger was when it had no more.
    """
    for table, position in (("events", "id"), *((view.name, "position") for view in VIEWS)):
        sql(address_of(data_dir), f"DELETE FROM {table} WHERE {position} > ?", after)  # noqa: S608


def value_at(address: URL, table: str, position: int, column: str) -> Any:  # noqa: ANN401
    """Return one value as it is stored, of the one row at a position."""
    ((value,),) = sql(address, f"SELECT {column} FROM {table}{_at((position,))}")  # noqa: S608
    return value


Place = int | str
"""Where in a table a row is; it may have another place when it was changed."""


def last_row_at(address: URL, table: str, position: int) -> Place:
    """Return which row at a position is the last; a view may have several for a key."""
    place = _place(address)
    found: Place = sql(address, f"SELECT max({place}) FROM {table}{_at((position,))}")[0][0]  # noqa: S608
    return found


def edit_row(address: URL, table: str, row: Place, **values: object) -> Place:
    """Change columns of one row; return where it is then."""
    columns = ", ".join(f"{name} = ?" for name in values)
    place = _place(address)
    statement = f"UPDATE {table} SET {columns} WHERE {place} = ? RETURNING {place}"  # noqa: S608
    ((now,),) = sql(address, statement, *values.values(), row)
    moved: Place = now
    return moved


def value_in(address: URL, table: str, row: Place, column: str) -> Any:  # noqa: ANN401
    """Return one value as it is stored."""
    statement = f"SELECT {column} FROM {table} WHERE {_place(address)} = ?"  # noqa: S608 - as above
    ((value,),) = sql(address, statement, row)
    return value


def stop_at(address: URL, verb: str, table: str, *, when: str = "true") -> None:
    """Refuse an ``INSERT`` into a table, or an ``UPDATE``, as a constraint would."""
    if address.get_backend_name() == SQLITE:
        refusal = "BEGIN SELECT RAISE(ABORT, 'stop'); END"
    else:
        sql(
            address,
            "CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE 'stop' USING ERRCODE = 'check_violation'; END $$",
        )
        refusal = "EXECUTE FUNCTION stop()"
    sql(
        address,
        f"CREATE TRIGGER stop BEFORE {verb} ON {table} FOR EACH ROW WHEN ({when}) {refusal}",
    )


def go_on(address: URL, table: str) -> None:
    """Refuse nothing any more that `stop_at` has refused."""
    of_table = "" if address.get_backend_name() == SQLITE else f" ON {table}"
    sql(address, f"DROP TRIGGER stop{of_table}")


@contextmanager
def appends_locked(address: URL) -> Iterator[None]:
    """Hold the append lock as another process would."""
    with closing(open_database(address)) as database, database.append():
        yield


def _place(address: URL) -> str:
    return "rowid" if address.get_backend_name() == SQLITE else "ctid"


def _at(positions: tuple[int, ...]) -> str:
    return f" WHERE position IN ({', '.join(map(str, positions))})" if positions else ""


def view_rows(address: URL) -> dict[str, Rows]:
    """Return all rows of all live views."""
    return {view.name: rows_of(address, view.name) for view in VIEWS}


def count_events(address: URL) -> int:
    return int(sql(address, "SELECT count(*) FROM events")[0][0])


def tables_of(address: URL) -> set[str]:
    if address.get_backend_name() == SQLITE:
        found = sql(address, "SELECT name FROM sqlite_schema WHERE type = 'table'")
    else:
        found = sql(address, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return {name for (name,) in found}


def schema_of(address: URL) -> str:
    """Return the name of the table that describes all tables."""
    return "sqlite_schema" if address.get_backend_name() == SQLITE else "pg_class"


def dump(address: URL) -> list[str]:
    """Return all that is in a database, as text that is the same for the same content."""
    if address.get_backend_name() == SQLITE:
        with closing(sqlite3.connect(address.database or "")) as connection:
            objects = connection.execute(
                "SELECT type, name, sql FROM sqlite_schema ORDER BY type, name"
            ).fetchall()
            tables = [name for type_, name, _ in objects if type_ == "table"]
            return [
                *map(repr, objects),
                *(
                    f"{table} {row!r}"
                    for table in tables
                    for row in connection.execute(f"SELECT * FROM {table}")  # noqa: S608 - theirs
                ),
            ]
    # Not the sequences: a refused append uses up an id, and nothing else.
    columns = "table_name, ordinal_position, column_name, data_type, is_nullable"
    schema = (
        (
            f"SELECT {columns} FROM information_schema.columns"  # noqa: S608 - as above
            " WHERE table_schema = 'public' ORDER BY 1, 2"
        ),
        ("SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY indexname"),
        ("SELECT tgname, tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal"),
    )
    lines = [repr(row) for statement in schema for row in sql(address, statement)]
    for table in sorted(tables_of(address)):
        rows = sql(address, f'SELECT * FROM "{table}"')  # noqa: S608 - as above
        lines += sorted(f"{table}: {row!r}" for row in rows)
    return lines
