"""The expirer: appends `Expired` events for keys whose expiry time has passed."""

from collections.abc import Callable
from datetime import datetime

from domain.caller import system
from domain.key_ledger import KeyLedger
from projections.queries.overdue_keys import keys_due
from projections.store.database import Database

BATCH = 100
"""Keys per transaction: under a second of work, for which a shutdown and other writers wait."""


def never() -> bool:
    """Return false, so that the expirer processes every due key."""
    return False


def expire_due_keys(
    database: Database,
    ledger: KeyLedger,
    *,
    now: datetime,
    is_stopped: Callable[[], bool] = never,
) -> int:
    """Append `Expired` to every key whose expiry time has passed.

    Any number of processes may call this at the same time; each key gets one event.

    Args:
        is_stopped: called after each batch; if it returns true, the rest is left to the next call.

    Returns:
        The number of events appended.

    Raises:
        LedgerUnavailable: the database did not answer; the next call does the rest.
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
