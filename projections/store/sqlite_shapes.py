"""Read the shapes of tables from an SQLite database."""

import re
from collections.abc import Collection, Mapping

from sqlalchemy import Connection, text

from projections.store.table_shapes import TABLE, Shape, Shapes, index_kind

_OBJECTS = text("SELECT type, name, tbl_name, sql FROM sqlite_master")
_COLUMNS = text(
    'SELECT name, type, "notnull", dflt_value, pk, hidden FROM pragma_table_xinfo(:name)'
)
_INDEXES = text('SELECT name, "unique", origin FROM pragma_index_list(:name)')
_INDEXED = text('SELECT name, "desc", coll FROM pragma_index_xinfo(:name) WHERE key ORDER BY seqno')
_WORDS = frozenset(
    [
        "check",
        "collate",
        "conflict",
        "references",
        "generated",
        "default",
        "strict",
        "without",
        "autoincrement",
    ]
)
"""Keywords of CREATE TABLE that change which values a table accepts and that no pragma reports."""

_AFFINITIES = (
    (("INT",), "INTEGER"),
    (("CHAR", "CLOB", "TEXT"), "TEXT"),
    (("BLOB",), "BLOB"),
    (("REAL", "FLOA", "DOUB"), "REAL"),
)
"""SQLite's type affinities (SQLite documentation, "Determination Of Affinity")."""


def shapes_of(connection: Connection, names: Collection[str]) -> Shapes:
    """Return the shapes of the tables in an SQLite database that have these names."""
    objects = connection.execute(_OBJECTS).all()
    statements = {row.name: row.sql or "" for row in objects}
    shapes = {}
    for row in objects:
        if row.type not in {"table", "view"} or row.name.lower() not in names:
            continue
        virtual = re.match(r"\s*create\s+virtual\b", row.sql or "", re.IGNORECASE)
        kind = "virtual table" if virtual else row.type
        additions = _words(row.sql or "") if kind == TABLE else {}
        shapes[row.name.lower()] = Shape(
            kind,
            _columns(connection, row.name) if kind == TABLE else {},
            _indexes(connection, row.name, statements) if kind == TABLE else {},
            additions,
        )
    return shapes


def triggers_of(connection: Connection) -> list[tuple[str, str]]:
    """Return the name and the table of every trigger in an SQLite database.

    Triggers on tables of other programs are included: a trigger can change any table.
    """
    return [
        (row.name, row.tbl_name) for row in connection.execute(_OBJECTS) if row.type == "trigger"
    ]


def _columns(connection: Connection, name: str) -> dict[str, str]:
    columns = {}
    for row in connection.execute(_COLUMNS, {"name": name}):
        # "INTEGER PRIMARY KEY" is an alias of the rowid; "BIGINT PRIMARY KEY" is not.
        said = [row.type.upper() if row.pk else _affinity(row.type.upper())]
        # A primary key that is the rowid is never NULL, even without NOT NULL.
        said += ["NOT NULL"] if row.notnull or row.pk else []
        said += [f"PRIMARY KEY {row.pk}"] if row.pk else []
        said += [f"DEFAULT {row.dflt_value}"] if row.dflt_value is not None else []
        said += ["GENERATED"] if row.hidden else []
        columns[row.name] = " ".join(said)
    return columns


def _affinity(declared: str) -> str:
    for parts, affinity in _AFFINITIES:
        if any(part in declared for part in parts):
            return affinity
    return "NUMERIC" if declared else "BLOB"


def _words(statement: str) -> dict[str, str]:
    found = set(re.findall(r"\w+", statement.lower())) & _WORDS
    return {f"the clause {word.upper()}": "" for word in sorted(found)}


def _indexes(connection: Connection, name: str, statements: Mapping[str, str]) -> dict[str, str]:
    indexes = {}
    for row in connection.execute(_INDEXES, {"name": name}).all():
        parts = [
            f"{part.name or 'an expression'} {part.coll}{' DESC' if part.desc else ''}"
            for part in connection.execute(_INDEXED, {"name": row.name})
        ]
        kind = index_kind(is_unique=row.unique, is_primary=row.origin == "pk")
        said = f"{kind} ({', '.join(parts)})"
        if row.origin == "c":
            said += f" {_without_names(statements[row.name])}"
        indexes[said] = row.name
    return indexes


def _without_names(statement: str) -> str:
    """Return the part of CREATE INDEX after the table's name, normalized.

    Spaces, quotes and parentheses differ between versions of the library that created the index.
    """
    _, _, rest = statement.partition("(")
    return "as " + " ".join(re.findall(r"'[^']*'|[\w.]+|[^\s\w()\"`\[\]]+", rest.lower()))
