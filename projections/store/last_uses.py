"""When each key was last used: noted in memory, and written down a little later.

A use is a check that ended in `Verified`; there are thousands of them a second, so none waits for
a disk. What a process has noted and not yet written is lost if it is killed, and nothing else is:
the table is no projection, no event says when a key was used, and no verdict depends on it.
"""

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import text

from domain.times import to_text
from projections.store.database import Database
from projections.store.schema import last_uses

OnUse = Callable[[int, datetime], None]
"""Told the position of the first event of a key that was used, and when; on the path of each
check."""

_AT_ONCE = 2_000
# Only forward: another process may have written a later use already.
_KEEP_LATEST = text(
    f"INSERT INTO {last_uses.name} (position, used_at) VALUES (:position, :used_at)"  # noqa: S608
    f" ON CONFLICT (position) DO UPDATE SET used_at = excluded.used_at"
    f" WHERE excluded.used_at > {last_uses.name}.used_at"
)


def ignore_use(_position: int, _at: datetime) -> None:
    """Note nothing."""


def minute_of(at: datetime) -> datetime:
    """Return the minute that a time lies in, which is as precisely as a use is written down."""
    return at.replace(second=0, microsecond=0)


class LastUses:
    """The uses that are not written down yet; for any number of threads, without a lock.

    One dictionary is kept for good, and each step on it is a single one that no other thread can
    come between: a use is either in time to be taken out, or stays for the next time.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._noted: dict[int, datetime] = {}

    def touch(self, position: int, at: datetime) -> None:
        """Note that a key was used."""
        self._noted[position] = at

    def flush(self, database: Database) -> int:
        """Write down what was noted, a portion of keys in each transaction.

        One thread at a time does it.

        Returns:
            How many keys were written down.

        Raises:
            LedgerUnavailable: the database cannot be asked; the next call writes what is left.
        """
        waiting = list(self._noted)
        for start in range(0, len(waiting), _AT_ONCE):
            self._flush(database, waiting[start : start + _AT_ONCE])
        return len(waiting)

    def _flush(self, database: Database, positions: list[int]) -> None:
        taken = {position: self._noted.pop(position) for position in positions}
        # Everybody writes in the same order, so that no two writers wait for each other.
        rows = [
            {"position": position, "used_at": to_text(minute_of(taken[position]))}
            for position in sorted(taken)
        ]
        try:
            with database.write() as connection:
                connection.execute(_KEEP_LATEST, rows)
        except BaseException:
            for position, at in taken.items():
                # A use since then is the later one.
                self._noted.setdefault(position, at)
            raise
