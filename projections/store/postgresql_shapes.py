"""Read the shapes of tables from a PostgreSQL database."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, Row, text
from sqlalchemy.exc import InternalError

from projections.store.table_shapes import TABLE, Shape, Shapes, index_kind

_KINDS = {
    "p": "partitioned table",
    "v": "view",
    "m": "materialized view",
    "f": "foreign table",
    "S": "sequence",
    "c": "composite type",
}
_SCHEMA = "(SELECT relnamespace FROM pg_class WHERE oid = to_regclass('events'))"
_TABLES = text(
    "SELECT c.oid::bigint, name, c.relkind::text AS kind,"  # noqa: S608
    f" c.relnamespace = {_SCHEMA} AS in_place, c.relnamespace::regnamespace::text AS schema"
    " FROM unnest(CAST(:names AS text[])) AS name JOIN pg_class c ON c.oid = to_regclass(name)"
)
_COLUMNS = text(
    "SELECT a.attrelid::bigint AS oid, a.attname AS name, format_type(a.atttypid, a.atttypmod)"
    " || CASE WHEN a.attcollation IN (0, t.typcollation) THEN ''"
    "    ELSE ' COLLATE ' || (SELECT collname FROM pg_collation WHERE oid = a.attcollation) END"
    " || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END"
    " || CASE WHEN a.attidentity = '' THEN '' ELSE ' IDENTITY' END"
    " || CASE WHEN a.attgenerated = '' THEN '' ELSE ' GENERATED' END"
    " || CASE WHEN d.oid IS NULL THEN '' WHEN pg_get_expr(d.adbin, d.adrelid) = format("
    "    'nextval(%L::regclass)',"
    "    pg_get_serial_sequence(a.attrelid::regclass::text, a.attname)::regclass::text)"
    "    THEN ' DEFAULT nextval' ELSE ' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid) END AS said"
    " FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid"
    " LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum"
    " WHERE a.attrelid = ANY (CAST(:oids AS bigint[])) AND a.attnum > 0 AND NOT a.attisdropped"
)
_INDEXES = text(
    "SELECT i.indrelid::bigint AS oid, i.indexrelid::regclass::text AS name,"
    " i.indisunique AS is_unique, i.indisprimary AS is_primary,"
    " i.indisvalid AND i.indisready AND i.indislive AND i.indimmediate"
    " AND NOT i.indisexclusion AS is_usable, pg_get_indexdef(i.indexrelid) AS statement"
    " FROM pg_index i WHERE i.indrelid = ANY (CAST(:oids AS bigint[]))"
)
_ADDITIONS = text(
    "SELECT tgrelid::bigint AS oid, format('the trigger %s', tgname) AS what,"
    " format('DROP TRIGGER %I ON %s', tgname, tgrelid::regclass) AS removal"
    " FROM pg_trigger WHERE NOT tgisinternal AND tgrelid = ANY (CAST(:oids AS bigint[]))"
    " UNION ALL SELECT ev_class::bigint, format('the rule %s', rulename),"
    " format('DROP RULE %I ON %s', rulename, ev_class::regclass)"
    " FROM pg_rewrite JOIN pg_class c ON c.oid = ev_class"
    " WHERE ev_class = ANY (CAST(:oids AS bigint[])) AND c.relkind NOT IN ('v', 'm')"
    " UNION ALL SELECT polrelid::bigint, format('the policy %s', polname),"
    " format('DROP POLICY %I ON %s', polname, polrelid::regclass)"
    " FROM pg_policy WHERE polrelid = ANY (CAST(:oids AS bigint[]))"
    " UNION ALL SELECT oid::bigint, 'row-level security',"
    " format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY',"
    " oid::regclass)"
    " FROM pg_class WHERE relrowsecurity AND oid = ANY (CAST(:oids AS bigint[]))"
    " UNION ALL SELECT oid::bigint, 'UNLOGGED, so that a crash empties it',"
    " format('ALTER TABLE %s SET LOGGED', oid::regclass)"
    " FROM pg_class WHERE relpersistence <> 'p' AND oid = ANY (CAST(:oids AS bigint[]))"
    " UNION ALL SELECT inhparent::bigint, format('the table %s that inherits it',"
    " inhrelid::regclass), format('ALTER TABLE %s NO INHERIT %s', inhrelid::regclass,"
    " inhparent::regclass)"
    " FROM pg_inherits WHERE inhparent = ANY (CAST(:oids AS bigint[]))"
    " UNION ALL SELECT inhrelid::bigint, format('the table %s that it inherits',"
    " inhparent::regclass), format('ALTER TABLE %s NO INHERIT %s', inhrelid::regclass,"
    " inhparent::regclass)"
    " FROM pg_inherits WHERE inhrelid = ANY (CAST(:oids AS bigint[]))"
    " UNION ALL SELECT conrelid::bigint, format('the constraint %s: %s', conname,"
    " pg_get_constraintdef(oid)), format('ALTER TABLE %s DROP CONSTRAINT %I',"
    " conrelid::regclass, conname)"
    " FROM pg_constraint WHERE contype IN ('c', 'f', 'x')"
    " AND conrelid = ANY (CAST(:oids AS bigint[]))"
    " UNION ALL SELECT confrelid::bigint, format('the constraint %s on %s, which refers to it',"
    " conname, conrelid::regclass), format('ALTER TABLE %s DROP CONSTRAINT %I',"
    " conrelid::regclass, conname)"
    " FROM pg_constraint WHERE contype = 'f' AND confrelid = ANY (CAST(:oids AS bigint[]))"
)


class TableDroppedMeanwhile(Exception):
    """Another transaction dropped a table while its shape was being read."""


def shapes_of(connection: Connection, names: Collection[str]) -> Shapes:
    """Return the shapes of the relations that these names resolve to in the search path.

    Raises:
        TableDroppedMeanwhile: the transaction has failed and can read nothing more.
    """
    try:
        return _shapes_of(connection, names)
    except InternalError as error:
        raise TableDroppedMeanwhile from error


def _shapes_of(connection: Connection, names: Collection[str]) -> Shapes:
    tables = connection.execute(_TABLES, {"names": list(names)}).all()
    oids = {"oids": [row.oid for row in tables]}
    columns: dict[int, dict[str, str]] = {row.oid: {} for row in tables}
    indexes: dict[int, dict[str, str]] = {row.oid: {} for row in tables}
    additions: dict[int, dict[str, str]] = {row.oid: {} for row in tables}
    for row in connection.execute(_COLUMNS, oids):
        columns[row.oid][row.name] = row.said
    for row in connection.execute(_INDEXES, oids):
        if row.statement is None:
            raise TableDroppedMeanwhile
        kind = index_kind(is_unique=row.is_unique, is_primary=row.is_primary)
        said = f"{kind} {row.statement.partition(' USING ')[2]}"
        indexes[row.oid][said if row.is_usable else f"unusable {said}"] = row.name
    for row in connection.execute(_ADDITIONS, oids):
        additions[row.oid][row.what] = row.removal
    return {
        row.name: Shape(_kind(row), columns[row.oid], indexes[row.oid], additions[row.oid])
        for row in tables
    }


def _kind(row: Row[Any]) -> str:
    if row.kind != "r":
        return _KINDS.get(row.kind, "relation of another kind")
    if row.in_place is False:
        return f"table in the schema {row.schema}, which is searched before the ledger's"
    return TABLE
