"""Console sessions: which key a browser signed in with, and until when.

A random value in a cookie names a session. Only its SHA-256 is stored, so that reading the database
is not enough to use a session. A session carries no rights of its own: each request asks what its
key may do now.

A row has a seal over all its columns, which is renewed whenever a use is recorded. A row with an
invalid seal, or with times that the program never writes, is ignored.
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
from domain.times import from_text, to_text
from domain.tokens import RandomSource
from domain.verdict import AuthRow
from projections.store.database import Database
from projections.store.invalid_utf8 import tolerate_invalid_utf8
from projections.store.schema import console_sessions as table

_VALUE_BYTES = 32
_NOTED_EVERY = timedelta(minutes=1)
_CLOCK_SKEW = timedelta(minutes=2)
"""Maximum difference between the clocks of machines that share a ledger."""

_SEALED = [column.name for column in table.c if column.name != "seal"]

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Session:
    """An active session.

    Args:
        key_id: the key that signed in.
        lookup_id: lookup id of the token that was presented.
        expires_at: when the session ends, even if it is in use.
    """

    key_id: str
    lookup_id: str
    expires_at: datetime


class ConsoleSessions:
    """Begin, find and end sessions; safe for many threads and processes."""

    def __init__(
        self, database: Database, random: RandomSource, *, lifetime: timedelta, idle: timedelta
    ) -> None:
        """Store sessions in ``database``.

        Args:
            random: source of the cookie values.
            lifetime: maximum duration of a session.
            idle: duration without use after which a session ends.
        """
        self._database = database
        self._random = random
        self.lifetime = lifetime
        self._idle = idle

    def begin(self, key: AuthRow, *, now: datetime) -> str:
        """Begin a session for a key whose secret was verified; delete sessions that have ended.

        Returns:
            The cookie value, which is not stored.

        Raises:
            LedgerUnavailable: the session cannot be stored.
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
        """Return the active session that a cookie value names, and record that it was used.

        Raises:
            LedgerUnavailable: the database did not answer.
        """
        named = table.c.value_sha256 == _sha256(value)
        with self._database.read() as connection, tolerate_invalid_utf8(connection):
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
        """End a session if there is one.

        Raises:
            LedgerUnavailable: the change cannot be stored.
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
            # The session stays valid for now: a full disk must not stop people from reading.
            _log.warning("session_use_not_noted", exc_info=True)


def _sha256(value: str) -> bytes:
    return hashlib.sha256(value.encode()).digest()
