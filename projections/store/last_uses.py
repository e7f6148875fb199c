"""The time of each key's last use: recorded in memory, and stored a little later.

A use is a token verification that ended in `Verified`. There are thousands in a second, so none
waits for the disk. If a process is killed, the uses that it has not stored yet are lost, and
nothing else: the table is not a projection, no event holds a use, and no verdict depends on it.
"""

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import text

from domain.times import to_text
from projections.store.database import Database
from projections.store.schema import last_uses

OnUse = Callable[[int, datetime], None]
"""Called in each successful verification, with the position of the key's first event and the
time."""

_AT_ONCE = 2_000
# Never backwards: another process may have stored a later use already.
_STORE_LATEST = text(
    f"INSERT INTO {last_uses.name} (position, used_at) VALUES (:position, :used_at)"  # noqa: S608
    f" ON CONFLICT (position) DO UPDATE SET used_at = excluded.used_at"
    f" WHERE excluded.used_at > {last_uses.name}.used_at"
)


def ignore_use(_position: int, _at: datetime) -> None:
    """Record nothing."""


def minute_of(at: datetime) -> datetime:
    """Return the minute of a time; uses are stored with this precision."""
    return at.replace(second=0, microsecond=0)


class LastUses:
    """Uses that are not stored yet; thread-safe without a lock.

    There is one dictionary, and each operation on it is atomic: a use is either taken by the
    current flush or left for the next one.
    """

    def __init__(self) -> None:
        """Begin without uses."""
        self._noted: dict[int, datetime] = {}

    def touch(self, position: int, at: datetime) -> None:
        """Record that a key was used."""
        self._noted[position] = at

    def flush(self, database: Database) -> int:
        """Store the recorded uses, a batch of keys in each transaction.

        Only one thread may call this at a time.

        Returns:
            The number of keys stored.

        Raises:
            LedgerUnavailable: the database did not answer; the next call stores what is left.
        """
        waiting = list(self._noted)
        for start in range(0, len(waiting), _AT_ONCE):
            self._flush(database, waiting[start : start + _AT_ONCE])
        return len(waiting)

    def _flush(self, database: Database, positions: list[int]) -> None:
        taken = {position: self._noted.pop(position) for position in positions}
        # All writers use the same order, so that they cannot deadlock.
        rows = [
            {"position": position, "used_at": to_text(minute_of(taken[position]))}
            for position in sorted(taken)
        ]
        try:
            with database.write() as connection:
                connection.execute(_STORE_LATEST, rows)
        except BaseException:
            for position, at in taken.items():
                # A use recorded meanwhile is later.
                self._noted.setdefault(position, at)
            raise
