"""Check that the indexes of an SQLite database agree with their tables.

A query may be answered from an index alone, and nothing forces an index to agree with its table.
Someone who can change the schema of the file can detach an index, change a row, and attach the
index again. A query by index would then find another newest version of a key than the table has,
and a scan of the tables would find nothing wrong. On PostgreSQL this is not possible with SQL.
"""

from collections.abc import Iterator

from sqlalchemy import Connection, text

from projections.integrity.entries_check import OnBatch
from projections.integrity.findings import Finding
from projections.integrity.schema_check import TABLES
from projections.store.database import POSTGRESQL, Database

_SHOWN = 3
_TABLES_THERE = text("SELECT name FROM sqlite_master WHERE type = 'table'")
_REMEDY = (
    "find out who else can write to the database, and keep a copy of the file as evidence; then"
    " restore a backup, or run: REINDEX {}"
)


def problems_of_file(connection: Connection, table: str | None = None) -> list[str]:
    """Return the problems that SQLite's own checks find in a table or in the whole file.

    The quick check runs first, because the full one fails on pages that cannot be read.
    """
    argument = "" if table is None else f"({table})"
    for check in ("quick_check", "integrity_check"):
        lines = connection.scalars(text(f"PRAGMA {check}{argument}")).all()
        problems = [line for each in lines for line in each.splitlines() if line != "ok"]
        if problems:
            return problems
    return []


def index_findings(database: Database, on_batch: OnBatch) -> Iterator[Finding]:
    """Check the pages and the indexes of every table that exists.

    Raises:
        LedgerUnavailable: the database did not answer.
    """
    if database.url.get_backend_name() == POSTGRESQL:
        return
    with database.read() as connection:
        there = set(connection.scalars(_TABLES_THERE))
    # The schema check reports missing tables.
    tables = [table for table in TABLES if table.name in there]
    for done, table in enumerate(tables, start=1):
        with database.read() as connection:
            problems = problems_of_file(connection, table.name)
        if problems:
            more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
            wrong = f"its pages or indexes do not match it: {'; '.join(problems[:_SHOWN])}{more}"
            name = f"the table {table.name}"
            yield Finding("schema", name, wrong, _REMEDY.format(table.name))
        on_batch(done, len(TABLES))
