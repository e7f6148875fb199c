"""What the last attestation found, for all processes to see, on whichever machine they run.

One result is kept, the last: it says how the ledger is. How it was before is told by the log and by
whoever collects the metrics.
"""

from dataclasses import asdict, dataclass
from datetime import datetime

import orjson
from sqlalchemy import delete, insert, select

from domain.times import from_text, to_text
from projections.database import Database
from projections.schema import last_attestation as table
from projections.stored_times import SKEW

_NUMBERS = ("position", "events", "entries", "keys", "checkpoints", "findings")


@dataclass(frozen=True, slots=True)
class LastFinding:
    """What is wrong with what, and what to do next."""

    name: str
    wrong: str
    remedy: str


@dataclass(frozen=True, slots=True)
class LastAttestation:
    """What the last attestation found, whichever process made it.

    Args:
        finished_at: when it ended.
        position: of the last event that it looked at.
        events, entries, keys, checkpoints: how many of them it looked at.
        findings: how many there were.
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


def keep_attestation(database: Database, last: LastAttestation) -> None:
    """Write a result down in the place of the one before, without waiting for a standby.

    Raises:
        LedgerUnavailable: it cannot be written.
    """
    row = asdict(last) | {
        "finished_at": to_text(last.finished_at),
        "listed": orjson.dumps(last.listed),
    }
    with database.without_standby().write() as connection:
        connection.execute(delete(table))
        connection.execute(insert(table).values(row))


def last_attestation(database: Database, now: datetime) -> LastAttestation | None:
    """Return what came of the last attestation; ``None`` if there was none, or it is illegible.

    A result of the future is none: somebody put it there, so that no other one would be due.

    Raises:
        LedgerUnavailable: the database cannot be asked.
    """
    not_later = to_text(now + SKEW)
    with database.read() as connection:
        row = connection.execute(
            select(table)
            .where(table.c.finished_at <= not_later)
            .order_by(table.c.finished_at.desc())
            .limit(1)
        ).first()
    if row is None:
        return None
    try:
        return LastAttestation(
            from_text(row.finished_at),
            **{name: int(row._mapping[name]) for name in _NUMBERS},  # noqa: SLF001
            listed=tuple(LastFinding(**each) for each in orjson.loads(row.listed)),
        )
    except (ValueError, TypeError):
        # The next one writes it anew, and comes at once since there seems to have been none.
        return None
