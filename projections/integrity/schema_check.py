"""Compare the database's tables with the program's table definitions.

Someone who can change a database can also change what statements do: with a trigger that changes a
row while it is written, a view in place of a table, or a missing unique index. The expected schema
is what the same kind of database makes of the table definitions, so it is not written down twice.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cache

from sqlalchemy import Column, Connection, MetaData, String, Table, create_engine, text
from sqlalchemy.pool import StaticPool

from domain.errors import LedgerUnavailable, SchemaChanged
from projections.integrity.findings import Finding
from projections.rebuild.view_tables import create_table
from projections.store import postgresql_shapes, sqlite_shapes
from projections.store.database import POSTGRESQL, Database, schema_for_new_tables
from projections.store.schema import metadata
from projections.store.table_shapes import TABLE, Shape, Shapes
from projections.views.registry import VIEWS

_REVISION = Table(
    "alembic_version", MetaData(), Column("version_num", String(32), primary_key=True)
)
TABLES = (_REVISION, *metadata.sorted_tables, *(view.table for view in VIEWS))
"""All tables of a ledger, as this program creates them."""

_ATTEMPTS = 5
_BEING_REPLACED = "a rebuild is replacing the tables: try again later"
_VIEW_NAMES = frozenset(view.name for view in VIEWS)
_SHOWN = 3

_THE_TABLE = "the table "
_REBUILD = "run: keyledger projections rebuild "
_WHO = "find out who else can change the database"
_RESTORE = f"{_WHO}, and restore a backup with the original tables"

_SHADOWS = text(
    "SELECT relname FROM pg_class WHERE relkind = 'r' AND pg_table_is_visible(oid)"
    " AND relname LIKE ANY (CAST(:patterns AS text[]))"
)


def refuse_unless_rebuild_repairs(findings: Sequence[Finding]) -> None:
    """Refuse to work with changed tables, unless rebuilding a projection repairs them.

    Raises:
        SchemaChanged: something differs that a rebuild does not repair.
    """
    others = [finding for finding in findings if not is_repaired_by_rebuild(finding)]
    if others:
        refuse_schema(others)


def refuse_schema(findings: Sequence[Finding]) -> None:
    """Refuse to work with changed tables.

    Raises:
        SchemaChanged: something differs; the message names the first differences.
    """
    if not findings:
        return
    shown = "; ".join(map(str, findings[:_SHOWN]))
    more = f"; and {len(findings) - _SHOWN} more" if len(findings) > _SHOWN else ""
    raise SchemaChanged(f"the tables differ from those of this program: {shown}{more}")


def schema_findings(database: Database) -> list[Finding]:
    """Return the differences between the database's tables and the program's.

    Only the catalog is read, so the time does not depend on the size of the ledger.

    Raises:
        LedgerUnavailable: the database did not answer.
    """
    names = [table.name for table in TABLES]
    is_on_postgresql = database.url.get_backend_name() == POSTGRESQL
    expected = _expected_on_postgresql(database) if is_on_postgresql else _expected_on_sqlite()
    if is_on_postgresql:
        found, shadows = _shapes_on_postgresql(database, names)
        beside = [*_additions_of_shadows(shadows)]
    else:
        with database.read() as connection:
            found = sqlite_shapes.shapes_of(connection, names)
            beside = [_trigger(*each) for each in sqlite_shapes.triggers_of(connection)]
    return [*_compared(expected, found), *beside]


def is_repaired_by_rebuild(finding: Finding) -> bool:
    """Return whether rebuilding a projection repairs what was found."""
    return finding.remedy.startswith(_REBUILD)


def changed_tables(findings: Iterable[Finding]) -> set[str]:
    """Return the names of the tables that these findings about the schema are about."""
    return {finding.name.removeprefix(_THE_TABLE) for finding in findings}


def _compared(expected: Shapes, found: Shapes) -> Iterator[Finding]:
    for name, right in expected.items():
        there = found.get(name)
        if there is None:
            yield _finding(name, "it is missing", _remedy(name))
        elif there.kind != TABLE:
            yield _finding(name, f"it is a {there.kind}", _kind_remedy(name, there.kind))
        else:
            yield from _differences(name, right, there)


def _differences(name: str, right: Shape, there: Shape) -> Iterator[Finding]:
    remedy = _remedy(name)
    for column in right.columns.keys() - there.columns.keys():
        yield _finding(name, f"its column {column} is missing", remedy)
    for column, said in there.columns.items():
        if column not in right.columns:
            yield _finding(name, f"its column {column} is not part of the ledger", remedy)
        elif said != right.columns[column]:
            wrong = f"its column {column} is {said} and should be {right.columns[column]}"
            yield _finding(name, wrong, remedy)
    for index in right.indexes.keys() - there.indexes.keys():
        yield _finding(name, f"its {index} is missing", remedy)
    for index, called in there.indexes.items():
        if index not in right.indexes:
            drop = remedy if name in _VIEW_NAMES else f"{_WHO}, and run: DROP INDEX {called}"
            yield _finding(name, f"it has {called}, an unexpected {index}", drop)
    for addition, removal in there.additions.items():
        if addition not in right.additions:
            drop = f"{_WHO}, and run: {removal}" if removal else remedy
            yield _finding(name, f"it has {addition}", drop)


def _finding(table: str, wrong: str, remedy: str) -> Finding:
    return Finding("schema", f"{_THE_TABLE}{table}", wrong, remedy)


def _remedy(name: str) -> str:
    return f"{_REBUILD}{name}; and {_WHO}" if name in _VIEW_NAMES else _RESTORE


def _kind_remedy(name: str, kind: str) -> str:
    if name in _VIEW_NAMES and kind == "view":
        return f"{_WHO}, and run: DROP VIEW {name}; the next command creates the table"
    return _RESTORE


def _trigger(name: str, table: str) -> Finding:
    return _finding(table, f"it has the trigger {name}", f"{_WHO}, and run: DROP TRIGGER {name}")


def _shadows(connection: Connection) -> list[str]:
    patterns = [rf"{name}\_%" for name in _VIEW_NAMES]
    return [
        name
        for name in connection.scalars(_SHADOWS, {"patterns": patterns})
        if name not in _VIEW_NAMES
    ]


def _additions_of_shadows(shadows: Shapes) -> Iterator[Finding]:
    for name, shape in shadows.items():
        for addition, removal in shape.additions.items():
            yield _finding(name, f"it has {addition}", f"{_WHO}, and run: {removal}")


def _shapes_on_postgresql(database: Database, names: Collection[str]) -> tuple[Shapes, Shapes]:
    """Return the shapes of the tables with these names, and of the shadow tables.

    A rebuild may replace and drop tables meanwhile. PostgreSQL's functions that look up a table or
    describe an index do not use the transaction's snapshot: a replaced table seems to be missing,
    and a dropped one raises an error. A new transaction has neither problem.
    """
    for remaining in reversed(range(_ATTEMPTS)):
        try:
            with database.read() as connection:
                found = postgresql_shapes.shapes_of(connection, names)
                # A shadow table becomes a live table, with everything attached to it.
                shadows = postgresql_shapes.shapes_of(connection, _shadows(connection))
        except postgresql_shapes.TableDroppedMeanwhile as error:
            if not remaining:
                raise LedgerUnavailable(_BEING_REPLACED) from error
        else:
            if found.keys() >= set(names):
                break
    return found, shadows


@cache
def _expected_on_sqlite() -> Shapes:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    try:
        with engine.begin() as connection:
            for table in TABLES:
                create_table(connection, table, table.name, 0)
            return sqlite_shapes.shapes_of(connection, [table.name for table in TABLES])
    finally:
        engine.dispose()


_expected_by_database: dict[str, Shapes] = {}


def _expected_on_postgresql(database: Database) -> Shapes:
    """Let the server create the tables in a transaction that is rolled back.

    Only the server knows how it prints the expression of an index.
    """
    if database.name not in _expected_by_database:
        with database.write() as connection:
            try:
                _expected_by_database[database.name] = _made_on_postgresql(connection)
            finally:
                connection.rollback()
    return _expected_by_database[database.name]


def _made_on_postgresql(connection: Connection) -> Shapes:
    schema = schema_for_new_tables(connection)
    if schema is None:
        message = (
            "this role cannot create tables in any schema of its search_path, which the"
            " comparison of the tables needs: let the database administrator run"
            " docs/postgresql-roles.sql again"
        )
        raise LedgerUnavailable(message)
    number = connection.scalar(text("SELECT pg_backend_pid()"))
    named = {f"{table.name}_expected_{number}": table for table in TABLES}
    for name, table in named.items():
        create_table(connection, table, name, 0)
    shapes = postgresql_shapes.shapes_of(connection, list(named))
    return {
        named[name].name: Shape(TABLE, shape.columns, shape.indexes, shape.additions)
        for name, shape in shapes.items()
    }
