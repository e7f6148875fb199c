"""The expirer: writes into history what the clock has decided already."""

from collections.abc import Callable
from datetime import datetime

from domain.caller import system
from domain.key_ledger import KeyLedger
from projections.queries.overdue_keys import keys_due
from projections.store.database import Database

BATCH = 100
"""Keys to a transaction: under a second of work, for which a stop waits, as does who appends."""


def never() -> bool:
    """Let the expirer do all there is to do."""
    return False


def expire_due_keys(
    database: Database,
    ledger: KeyLedger,
    *,
    now: datetime,
    is_stopped: Callable[[], bool] = never,
) -> int:
    """Append `Expired` to every key whose end has come, however long ago.

    Any number of processes may do it at once; each key gets one event.

    Args:
        is_stopped: asked after each batch; once it says so, the rest is left to the next call.

    Returns:
        How many events were appended.

    Raises:
        LedgerUnavailable: the database cannot be asked; the next call does the rest.
    """
    appended = 0
    after: tuple[str, int] | None = None
    while True:
        with database.read() as connection:
            due = keys_due(connection, now=now, after=after, limit=BATCH)
        appended += ledger.expire_keys([each.key_id for each in due], by=system("expirer"), at=now)
        if len(due) < BATCH or is_stopped():
            return appended
        after = due[-1].expires_at, due[-1].position
