"""Sessions of the console: which key a browser signed in with, and until when that holds.

A session is named by a random value that the browser keeps in a cookie; only its SHA-256 is here,
so that nobody who reads the database can use a session. Nor does a session hold any right of its
own: what its key may do is asked anew at each request.

A row has a seal over all its columns, which is made again at each use that is noted. A row with
another seal, or with times that the program does not write, is no session.
"""

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import delete, insert, or_, select, update

from domain.errors import LedgerUnavailable, RowNotSealed
from domain.judge import AuthRow
from domain.times import from_text, to_text
from domain.tokens import RandomSource
from projections.store.database import Database
from projections.store.invalid_utf8 import illegible_text
from projections.store.schema import console_sessions as table

_VALUE_BYTES = 32
_NOTED_EVERY = timedelta(minutes=1)
_CLOCK_SKEW = timedelta(minutes=2)
"""By which the clocks of machines that share a ledger may differ."""

_SEALED = [column.name for column in table.c if column.name != "seal"]

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Session:
    """A session that goes on.

    Args:
        key_id: the key that signed in.
        lookup_id: of the token that it was proved by.
        expires_at: when it ends, however much it is used.
    """

    key_id: str
    lookup_id: str
    expires_at: datetime


class ConsoleSessions:
    """Begins, finds and ends sessions; for any number of threads and processes."""

    def __init__(
        self, database: Database, random: RandomSource, *, lifetime: timedelta, idle: timedelta
    ) -> None:
        """Keep sessions in ``database``.

        Args:
            random: where the values that name them come from.
            lifetime: how long a session goes on at most.
            idle: how long it goes on without being used.
        """
        self._database = database
        self._random = random
        self.lifetime = lifetime
        self._idle = idle

    def begin(self, key: AuthRow, *, now: datetime) -> str:
        """Begin a session of a key whose secret was proved; those that have ended are dropped.

        Returns:
            The value that names it, which is kept nowhere.

        Raises:
            LedgerUnavailable: it cannot be written down.
        """
        seals = self._database.seals
        value = urlsafe_b64encode(self._random(_VALUE_BYTES)).decode().rstrip("=")
        ended = or_(
            table.c.expires_at <= to_text(now), table.c.used_at <= to_text(now - self._idle)
        )
        with self._database.write() as connection:
            connection.execute(delete(table).where(ended))
            values = (
                _sha256(value),
                key.key_id,
                key.lookup_id,
                to_text(now),
                to_text(now + self.lifetime),
                to_text(now),
            )
            row = dict(zip(_SEALED, values, strict=True))
            connection.execute(insert(table).values(**row, seal=seals.session(values)))
        return value

    def find(self, value: str, *, now: datetime) -> Session | None:
        """Return the session that a value names, if it goes on, and note that it is used.

        Raises:
            LedgerUnavailable: the database cannot be asked.
        """
        named = table.c.value_sha256 == _sha256(value)
        with self._database.read() as connection, illegible_text(connection):
            rows = connection.execute(select(table).where(named)).all()
        if not rows:
            return None
        *values, seal = rows[0]
        if len(rows) > 1 or not self._database.seals.is_session(values, seal):
            _log.warning("session_not_sealed", code=RowNotSealed.code, key_id=str(values[1])[:60])
            return None
        _, key_id, lookup_id, *times = values
        created_at, expires_at, used_at = map(from_text, times)
        latest = now + _CLOCK_SKEW
        if max(created_at, used_at) > latest or expires_at - created_at > self.lifetime:
            _log.warning("session_times_not_possible", key_id=key_id)
            return None
        if now >= min(expires_at, used_at + self._idle):
            return None
        if now - used_at >= _NOTED_EVERY:
            self._note_use(values, now)
        return Session(key_id, lookup_id, expires_at)

    def end(self, value: str) -> None:
        """End a session, if it goes on.

        Raises:
            LedgerUnavailable: it cannot be written down.
        """
        with self._database.write() as connection:
            connection.execute(delete(table).where(table.c.value_sha256 == _sha256(value)))

    def _note_use(self, values: Sequence[Any], now: datetime) -> None:
        used = [*values[:-1], to_text(now)]
        try:
            with self._database.write() as connection:
                connection.execute(
                    update(table)
                    .where(table.c.value_sha256 == values[0])
                    .values(used_at=used[-1], seal=self._database.seals.session(used))
                )
        except LedgerUnavailable:
            # It goes on for now; a disk that is full keeps nobody from reading.
            _log.warning("session_use_not_noted", exc_info=True)


def _sha256(value: str) -> bytes:
    return hashlib.sha256(value.encode()).digest()
