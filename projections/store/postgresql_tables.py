"""The ledger's tables on a PostgreSQL server: owner, privileges, and filling them with COPY."""

import re
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
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

Written = Mapping[str, str]
"""For each table the privileges to write to it, as ``GRANT`` takes them."""

_WRITTEN: Written = {
    "events": "INSERT (originator_id, originator_version, topic, state, seal)",
    "checkpoints": "INSERT",
    "key_digests": "INSERT, UPDATE (pepper_id, digest, seal)",
    "last_uses": "INSERT, UPDATE (used_at)",
    "projection_states": "INSERT (table_name, view_version, generation, position, filled_to),"
    " UPDATE (position, filled_to), DELETE",
    "console_sessions": "INSERT, UPDATE (used_at, seal), DELETE",
    "last_attestation": "INSERT, DELETE",
    "alembic_version": "",
    "ledger_secret": "",
}
"""What a server writes to each durable table; ``docs/postgresql-roles.sql`` grants exactly this."""


def _needed(views: Written) -> Iterator[tuple[str, str, str]]:
    """Yield table, privilege and column (may be empty) for everything that a server does."""
    for name, written in {**_WRITTEN, **views}.items():
        yield name, "SELECT", ""
        for privilege, columns in re.findall(r"(\w+)(?: \(([^)]*)\))?(?:, |$)", written):
            for column in columns.split(", "):
                yield name, privilege, column


_MISSING = (
    "SELECT format('%%s on %%s', string_agg(DISTINCT privilege, ', ' ORDER BY privilege), name)"
    " FROM (VALUES "
    "{}"
    ") AS needed (name, privilege, col) WHERE to_regclass(name) IS NOT NULL AND NOT CASE col"
    " WHEN '' THEN has_table_privilege(to_regclass(name), privilege)"
    " ELSE coalesce(has_column_privilege(to_regclass(name), (SELECT attname FROM pg_attribute"
    " WHERE attrelid = to_regclass(name) AND attname = col), privilege), true) END"
    " GROUP BY name ORDER BY name"
)


def check_owner(connection: Connection, command: str) -> None:
    """Reject what only the owner of the ledger's tables may do, before anything is changed.

    Args:
        command: the command for the owner to run.

    Raises:
        NotOwner: the connection's role is neither the owner nor a member of it; or there are no
            tables yet and the role may not create them.
    """
    role, are_there, owns = connection.exec_driver_sql(_OWNS).one()
    if not owns and are_there:
        raise NotOwner(f"{role} does not own the ledger's tables: run as their owner: {command}")
    if not owns:
        raise NotOwner(
            f"there is no ledger in this database yet, and {role} cannot create one: it lacks"
            " CREATE on the schema of its search_path, which docs/postgresql-roles.sql grants to"
            f" the owner; run as the owner: {command}"
        )


def mode_of_role(connection: Connection, mode: str) -> str:
    """Return a name part for shadow tables that no other role uses; the owner's is unchanged."""
    role, _, owns = connection.exec_driver_sql(_OWNS).one()
    return mode if owns else f"{mode}_{zlib.crc32(role.encode()):08x}"


def is_not_granted(error: BaseException | None) -> bool:
    """Return whether an error was caused by a statement for which the role lacks a privilege."""
    while error is not None and error.__cause__ is not None:
        error = error.__cause__
    return isinstance(error, psycopg.errors.InsufficientPrivilege)


def privileges_missing(connection: Connection, views: Written) -> list[str]:
    """Return the privileges that a server needs and this role lacks, as text for people.

    Tables that do not exist are left out.

    Args:
        views: what a server writes to the tables of the views.
    """
    needed = ", ".join(str(each) for each in _needed(views))
    return list(connection.exec_driver_sql(_MISSING.format(needed)).scalars())


def check_privileges(connection: Connection, views: Written) -> None:
    """Refuse to serve with a role that would fail at the first change of a key.

    Args:
        views: as for `privileges_missing`.

    Raises:
        LedgerUnavailable: the role lacks a privilege.
    """
    missing = privileges_missing(connection, views)
    if missing:
        # The URL may leave out the role, so ask the server for it.
        role = connection.exec_driver_sql("SELECT current_user").scalar()
        raise LedgerUnavailable(
            f"the role {role} lacks privileges of a server: {'; '.join(missing)}. Let the"
            " database administrator run docs/postgresql-roles.sql again"
        )


def schema_for_new_tables(connection: Connection) -> str | None:
    """Return the first schema in the search path in which this role may create tables.

    For the owner that is the schema of the ledger's tables. Another role may have a schema of its
    own later in the path, where it builds the tables to compare with.
    """
    schema: str | None = connection.exec_driver_sql(
        "SELECT name FROM unnest(current_schemas(false)) WITH ORDINALITY path (name, place)"
        " WHERE has_schema_privilege(name, 'CREATE') ORDER BY place LIMIT 1"
    ).scalar()
    return schema


def copy_grants(connection: Connection, of: Table, to: Table) -> None:
    """Grant the same privileges on a table and its columns as on another table.

    Args:
        of: table to copy the grants from.
        to: table to grant on; grants on columns that it does not have are left out.
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


def advance_sequence(connection: Connection, table: Table, number: int) -> None:
    """Set the sequence of a table's ``id`` so that the next row gets ``number`` + 1."""
    connection.exec_driver_sql(
        "SELECT setval(pg_get_serial_sequence(%s, 'id'), %s)", (table.name, number)
    )


def identity_of(connection: Connection) -> tuple[object, ...]:
    """Return a value that identifies the ledger of a connection, however it is reached.

    It consists of the server's start time to the microsecond, the OID of the database, and the
    OID of the events table.
    """
    row = connection.exec_driver_sql(
        "SELECT pg_postmaster_start_time(), oid, to_regclass('events')::oid"
        " FROM pg_database WHERE datname = current_database()"
    ).one()
    return tuple(row)


def copy_rows(connection: Connection, table: Table, rows: Collection[Sequence[Any]]) -> None:
    """Insert rows with COPY, which takes a fraction of the time of INSERT.

    Args:
        rows: values of the table's columns, in table order.

    Raises:
        DBAPIError: as for INSERT.
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
