"""The tables of a ledger on a PostgreSQL server: who may do what with them, and filling them."""

from collections.abc import Collection, Sequence
from typing import Any

import psycopg
from sqlalchemy import Connection, Table
from sqlalchemy.exc import DBAPIError

from domain.errors import NotOwner
from projections.postgresql import hide_details

_OWNS = (
    "SELECT current_user, coalesce((SELECT pg_has_role(relowner, 'USAGE') FROM pg_class"
    " WHERE oid = to_regclass('events')), has_schema_privilege(current_schema(), 'CREATE'), false)"
)


def check_owner(connection: Connection, way_on: str) -> None:
    """Refuse what only the owner of the ledger's tables may do, before anything is done.

    Args:
        way_on: the command that the owner is to run.

    Raises:
        NotOwner: the role of this connection neither is the owner nor belongs to it; where there
            are no tables yet, it may not make them.
    """
    role, owns = connection.exec_driver_sql(_OWNS).one()
    if not owns:
        raise NotOwner(f"{role} does not own the ledger's tables; as their owner, run: {way_on}")


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
    """Let everybody do with a table what they may do with another one."""
    granted = connection.exec_driver_sql(
        "SELECT string_agg(a.privilege_type, ', '),"
        " CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END"
        " FROM pg_class c, aclexplode(c.relacl) a"
        " WHERE c.oid = to_regclass(%s) AND a.grantee <> c.relowner GROUP BY 2",
        (of.name,),
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
