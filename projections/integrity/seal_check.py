"""Check the seals of rows outside the log.

These are digests, console sessions, the last integrity result, and the id of the secret.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Table, select, tuple_

from domain.errors import LedgerUnavailable
from projections.integrity.entries_check import OnBatch
from projections.integrity.findings import Finding, Findings
from projections.store.database import Database
from projections.store.invalid_utf8 import tolerate_invalid_utf8
from projections.store.schema import (
    console_sessions,
    key_digests,
    last_attestation,
    ledger_secret,
)

_AT_ONCE = 2_000
_WHO = "find out who else can write to the database"
_WRONG = "it has no valid seal: the ledger did not write it like this"


class _Sealed(NamedTuple):
    """A table whose rows have seals.

    Args:
        is_right: returns whether a seal is valid for the values of a row.
        name: returns the name of a row, for a finding.
        remedy: what to do about a row without a valid seal.
    """

    table: Table
    is_right: Callable[[Any, object], bool]
    name: Callable[[Row[Any]], str]
    remedy: str


def check_seals(
    database: Database, findings: Findings, on_batch: OnBatch, *, changed: Collection[str] = ()
) -> None:
    """Check every row that has a seal, except those of events and views.

    Args:
        changed: names of tables that differ from the program's. If one of these cannot be read, it
            is skipped: the schema check has reported it.

    Raises:
        LedgerUnavailable: the database did not answer.
    """
    seals = database.seals
    if not seals.checks:
        return
    with _skipping_changed(ledger_secret, changed):
        _check_secret(database, findings)
    for sealed in (
        _Sealed(
            key_digests,
            seals.is_digest,
            lambda row: f"the digest of the lookup id {row.lookup_id}",
            f"{_WHO}, and delete the row: the next verification of the key uses Argon2",
        ),
        _Sealed(
            console_sessions,
            seals.is_session,
            lambda row: f"the console session of {row.key_id}",
            f"{_WHO}, and delete the row",
        ),
        _Sealed(
            last_attestation,
            seals.is_last_check,
            lambda row: f"the row of {row.finished_at} in last_attestation",
            f"{_WHO}, and run: keyledger audit verify, which writes the row again",
        ),
    ):
        with _skipping_changed(sealed.table, changed):
            _check_table(database, sealed, findings, on_batch)


@contextmanager
def _skipping_changed(table: Table, changed: Collection[str]) -> Iterator[None]:
    try:
        yield
    except LedgerUnavailable:
        if table.name not in changed:
            raise


def _check_secret(database: Database, findings: Findings) -> None:
    seals = database.seals
    with database.read() as connection, tolerate_invalid_utf8(connection):
        rows = connection.execute(select(ledger_secret)).all()
    is_one = len(rows) == 1 and rows[0].secret_id == seals.secret_id
    if is_one and seals.is_ledger_secret(rows[0].seal):
        return
    wrong = "it is missing" if not rows else "it was changed"
    remedy = f"{_WHO}, and run: keyledger audit seal --reason WHY"
    findings.add(Finding("seal", "the row of ledger_secret", wrong, remedy))


def _check_table(
    database: Database, sealed: _Sealed, findings: Findings, on_batch: OnBatch
) -> None:
    table = sealed.table
    done = 0
    page = first = select(table).order_by(*table.primary_key).limit(_AT_ONCE)
    while True:
        with database.read() as connection:
            rows = _read(connection, page)
        for row in rows:
            *values, seal = row
            if not sealed.is_right(values, seal):
                findings.add(Finding("seal", sealed.name(row)[:120], _WRONG, sealed.remedy))
        if len(rows) < _AT_ONCE:
            return
        done += len(rows)
        on_batch(done, done)
        last = [rows[-1]._mapping[column] for column in table.primary_key]  # noqa: SLF001
        page = first.where(tuple_(*table.primary_key) > tuple(last))


def _read(connection: Connection, page: Any) -> list[Row[Any]]:  # noqa: ANN401 - Select is invariant
    with tolerate_invalid_utf8(connection):
        return list(connection.execute(page).all())
