"""The result of the last integrity check, for all processes on all machines.

Only the last result is kept: it is the current state of the ledger. Logs and metrics have the
earlier ones.

The row has a seal over all its columns. A row without a valid seal is not used: otherwise a forged
row would hide findings and delay the next integrity check.
"""

from dataclasses import asdict, dataclass
from datetime import datetime

import orjson
from sqlalchemy import delete, insert, select

from domain.times import from_text, to_text
from projections.integrity.stored_times_check import SKEW
from projections.store.database import Database
from projections.store.invalid_utf8 import tolerate_invalid_utf8
from projections.store.schema import last_attestation as table

_ROWS_READ = 100
"""Rows that are read to find one with a valid seal; the program writes only one row."""

_SEALED = [column.name for column in table.c if column.name != "seal"]
_NUMBERS = ("position", "events", "entries", "keys", "checkpoints", "findings")


@dataclass(frozen=True, slots=True)
class LastFinding:
    """A finding: the object, what is wrong with it, and what to do next."""

    name: str
    wrong: str
    remedy: str


@dataclass(frozen=True, slots=True)
class LastResult:
    """The result of the last integrity check of any process.

    Args:
        finished_at: when the check ended.
        position: position of the last event that was checked.
        events, entries, keys, checkpoints: how many of them were checked.
        findings: number of findings.
        listed: the first of them.
    """

    finished_at: datetime
    position: int
    events: int
    entries: int
    keys: int
    checkpoints: int
    findings: int
    listed: tuple[LastFinding, ...]


def store_last_result(database: Database, last: LastResult) -> None:
    """Replace the stored result, without waiting for a standby.

    Raises:
        LedgerUnavailable: the result cannot be stored.
    """
    row = asdict(last) | {
        "finished_at": to_text(last.finished_at),
        "listed": orjson.dumps(last.listed),
    }
    seal = database.seals.last_check(row[name] for name in _SEALED)
    with database.without_standby().write() as connection:
        connection.execute(delete(table))
        connection.execute(insert(table).values(row | {"seal": seal}))


def read_last_result(database: Database, now: datetime) -> LastResult | None:
    """Return the result of the last integrity check; ``None`` if no row may be used.

    A row without a valid seal, or with a time in the future, is not used. The next integrity check
    is then due at once.

    Raises:
        LedgerUnavailable: the database did not answer.
    """
    query = select(table).order_by(table.c.finished_at.desc()).limit(_ROWS_READ)
    with database.read() as connection, tolerate_invalid_utf8(connection):
        rows = connection.execute(query).all()
    not_later = to_text(now + SKEW)
    for row in rows:
        *values, seal = row
        if database.seals.is_last_check(values, seal) and row.finished_at <= not_later:
            return LastResult(
                from_text(row.finished_at),
                **{name: row._mapping[name] for name in _NUMBERS},  # noqa: SLF001
                listed=tuple(LastFinding(**each) for each in orjson.loads(row.listed)),
            )
    return None
