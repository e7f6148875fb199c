"""The tables of a ledger on a PostgreSQL server: who may do what with them, and filling them."""

import re
import zlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import psycopg
from sqlalchemy import Connection, Table
from sqlalchemy.exc import DBAPIError

from domain.errors import LedgerUnavailable, NotOwner
from projections.store.postgresql import hide_details

_OWNS = (
    "SELECT current_user, to_regclass('events') IS NOT NULL,"
    " coalesce((SELECT pg_has_role(relowner, 'USAGE') FROM pg_class"
    " WHERE oid = to_regclass('events')), has_schema_privilege(current_schema(), 'CREATE'), false)"
)

_WRITTEN = {
    "events": "INSERT (originator_id, originator_version, topic, state, seal)",
    "entries": "INSERT",
    "checkpoints": "INSERT",
    "key_list": "INSERT, UPDATE (name, scopes, status, expires_at, revoked_at, revoked_by_type,"
    " revoked_by_id, revoke_reason, rotated_to, version)",
    "auth_lookup": "INSERT, UPDATE (name, scopes, expires_at, revoked, expired, version, seal)",
    "key_versions": "INSERT, UPDATE (held_until)",
    "key_digests": "INSERT, UPDATE (pepper_id, digest, seal)",
    "last_uses": "INSERT, UPDATE (used_at)",
    "projection_states": "INSERT (table_name, view_version, generation, position, filled_to),"
    " UPDATE (position, filled_to), DELETE",
    "console_sessions": "INSERT, UPDATE (used_at, seal), DELETE",
    "last_attestation": "INSERT, DELETE",
    "alembic_version": "",
    "ledger_secret": "",
}
"""What a server writes to each table; ``docs/postgresql-roles.sql`` grants that and no more."""


def _needed() -> Iterator[tuple[str, str, str]]:
    """Yield table, privilege and column of all that a server does; the column may be empty."""
    for name, written in _WRITTEN.items():
        yield name, "SELECT", ""
        for privilege, columns in re.findall(r"(\w+)(?: \(([^)]*)\))?(?:, |$)", written):
            for column in columns.split(", "):
                yield name, privilege, column


_MISSING = (
    "SELECT format('%%s on %%s', string_agg(DISTINCT privilege, ', ' ORDER BY privilege), name)"  # noqa: S608
    " FROM (VALUES "
    + ", ".join(str(needed) for needed in _needed())
    + ") AS needed (name, privilege, col) WHERE to_regclass(name) IS NOT NULL AND NOT CASE col"
    " WHEN '' THEN has_table_privilege(to_regclass(name), privilege)"
    " ELSE coalesce(has_column_privilege(to_regclass(name), (SELECT attname FROM pg_attribute"
    " WHERE attrelid = to_regclass(name) AND attname = col), privilege), true) END"
    " GROUP BY name ORDER BY name"
)


def check_owner(connection: Connection, way_on: str) -> None:
    """Refuse what only the owner of the ledger's tables may do, before anything is done.

    Args:
        way_on: the command that the owner is to run.

    Raises:
        NotOwner: the role of this connection neither is the owner nor belongs to it; where there
            are no tables yet, it may not make them.
    """
    role, are_there, owns = connection.exec_driver_sql(_OWNS).one()
    if not owns and are_there:
        raise NotOwner(f"{role} does not own the ledger's tables; as their owner, run: {way_on}")
    if not owns:
        raise NotOwner(
            f"there is no ledger in this database yet, and {role} may not make one: it lacks CREATE"
            " on the schema of its search_path, which docs/postgresql-roles.sql grants to the"
            f" owner; as the owner, run: {way_on}"
        )


def purpose_of_role(connection: Connection, purpose: str) -> str:
    """Return a purpose for a shadow table that no other role has; the owner has it unchanged."""
    role, _, owns = connection.exec_driver_sql(_OWNS).one()
    return purpose if owns else f"{purpose}_{zlib.crc32(role.encode()):08x}"


def is_not_granted(error: BaseException | None) -> bool:
    """Tell whether an error began with a statement for which the role lacks a privilege."""
    while error is not None and error.__cause__ is not None:
        error = error.__cause__
    return isinstance(error, psycopg.errors.InsufficientPrivilege)


def privileges_missing(connection: Connection) -> list[str]:
    """Return what the role of a connection may not do that a server has to do, as people say it.

    Nothing is said of tables that are not there.
    """
    return list(connection.exec_driver_sql(_MISSING).scalars())


def check_privileges(connection: Connection) -> None:
    """Refuse to serve as a role that would fail at the first change of a key.

    Raises:
        LedgerUnavailable: the role lacks a privilege.
    """
    missing = privileges_missing(connection)
    if missing:
        # The URL need not say as whom one connects.
        role = connection.exec_driver_sql("SELECT current_user").scalar()
        raise LedgerUnavailable(
            f"the role {role} may not do what a server does: {'; '.join(missing)}. The database's"
            " administrator grants it by running docs/postgresql-roles.sql once more"
        )


def schema_for_new_tables(connection: Connection) -> str | None:
    """Return the first schema of the search path in which this role may make tables.

    That of the ledger's tables is the first for their owner. Another role may have one of its own
    behind it, in which it makes what it compares them with.
    """
    schema: str | None = connection.exec_driver_sql(
        "SELECT name FROM unnest(current_schemas(false)) WITH ORDINALITY path (name, place)"
        " WHERE has_schema_privilege(name, 'CREATE') ORDER BY place LIMIT 1"
    ).scalar()
    return schema


def copy_grants(connection: Connection, of: Table, to: Table) -> None:
    """Let everybody do with a table, and with each of its columns, what they may do with another.

    Args:
        to: has all columns for which something is granted; others are left out.
    """
    granted = connection.exec_driver_sql(
        "SELECT string_agg(a.privilege_type || columns, ', '),"
        " CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END"
        " FROM ("
        "SELECT relacl AS acl, '' AS columns FROM pg_class WHERE oid = to_regclass(%s)"
        " UNION ALL"
        " SELECT o.attacl, format(' (%%I)', o.attname) FROM pg_attribute o"
        " JOIN pg_attribute n ON n.attrelid = to_regclass(%s) AND n.attname = o.attname"
        " WHERE o.attrelid = to_regclass(%s) AND NOT o.attisdropped AND NOT n.attisdropped"
        ") granted, aclexplode(acl) a"
        " WHERE a.grantee <> (SELECT relowner FROM pg_class WHERE oid = to_regclass(%s))"
        " GROUP BY 2",
        (of.name, to.name, of.name, of.name),
    )
    for privileges, grantee in granted.all():
        connection.exec_driver_sql(f"GRANT {privileges} ON {to.name} TO {grantee}")


def count_on_from(connection: Connection, table: Table, number: int) -> None:
    """Let the next row of a table that gets its number from the server get the one after this."""
    connection.exec_driver_sql(
        "SELECT setval(pg_get_serial_sequence(%s, 'id'), %s)", (table.name, number)
    )


def identity_of(connection: Connection) -> tuple[object, ...]:
    """Return what tells the ledger of a connection from every other one, however it is reached.

    Its database and the table of its events by their numbers, and when their server was started,
    to the microsecond.
    """
    row = connection.exec_driver_sql(
        "SELECT pg_postmaster_start_time(), oid, to_regclass('events')::oid"
        " FROM pg_database WHERE datname = current_database()"
    ).one()
    return tuple(row)


def copy_rows(connection: Connection, table: Table, rows: Collection[Sequence[Any]]) -> None:
    """Write rows by COPY, which takes a fraction of the time of inserting them.

    Args:
        rows: with the values of the table's columns, in their order.

    Raises:
        DBAPIError: as for inserting them.
    """
    statement = f"COPY {table.name} ({', '.join(column.name for column in table.c)}) FROM STDIN"
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)  # noqa: S101 - the dialect has no other
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)
    except psycopg.Error as error:
        hide_details(error)
        raise DBAPIError.instance(
            statement, None, error, psycopg.Error, dialect=connection.dialect
        ) from error
