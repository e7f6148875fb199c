"""Seals: HMACs that prove that the ledger itself wrote a row of its database.

Every event, and every row that can grant access, carries a seal under a key derived from the
pepper. Someone who can write to the database but does not have the pepper cannot make a seal.

A seal covers an unambiguous encoding of everything that it protects. Each kind of row has its own
key, so a seal of one kind is never valid for another.
"""

from collections.abc import Iterable
from hmac import compare_digest
from typing import Any

import orjson

from domain.pepper import Mac, Pepper
from domain.serialization import EVENT_CLASSES

SEAL_LENGTH = 32

_VERSION_LENGTH = 8


def _topic(topic: str) -> bytes:
    encoded = topic.encode()
    return len(encoded).to_bytes(4, "big") + encoded


_TOPICS = {topic: _topic(topic) for topic in EVENT_CLASSES}


class Seals:
    """Makes and verifies the seals of one ledger; its `repr` shows no key."""

    checks: bool = True
    """Whether seals are required; see `NoSeals`."""

    def __init__(self, pepper: Pepper) -> None:
        """Derive the keys from the pepper."""
        self.secret_id = pepper.pepper_id

        def mac_of(kind: str) -> Mac:
            return Mac(pepper.derived(f"keyledger seals of {kind} v1"))

        self._events = mac_of("events")
        self._auth_rows = mac_of("auth rows")
        self._digests = mac_of("digests")
        self._sessions = mac_of("console sessions")
        self._secret = mac_of("the ledger secret")
        self._checks = mac_of("the last integrity check")

    def event(self, key: bytes, version: int, topic: str, state: bytes) -> bytes | None:
        """Return the seal of an event.

        Args:
            key: the aggregate id, 16 bytes.
            version: the event's number in its aggregate.
            topic: the event type.
            state: the stored bytes.
        """
        return self._events.of(
            key
            + version.to_bytes(_VERSION_LENGTH, "big")
            + (_TOPICS.get(topic) or _topic(topic))
            + state
        )

    def is_event(
        self, key: object, version: object, topic: object, state: object, seal: object
    ) -> bool:
        """Return whether an event has a valid seal; accept values of any type."""
        if type(seal) is not bytes:
            return False
        try:
            right: Any = self.event(key, version, topic, state)  # type: ignore[arg-type]
        except (TypeError, AttributeError, ValueError, OverflowError):
            # A value has a type that the ledger never writes.
            return False
        return compare_digest(right, seal)

    def auth_row(self, values: Iterable[object]) -> bytes | None:
        """Return the seal of a row of the auth lookup.

        Args:
            values: all columns of the row except the seal, in table order.
        """
        return self._auth_rows.of(orjson.dumps(list(values)))

    def is_auth_row(self, values: Iterable[object], seal: object) -> bool:
        """Return whether a row of the auth lookup has a valid seal."""
        return _is_right(self.auth_row, values, seal)

    def digest(self, values: Iterable[object]) -> bytes:
        """Return the seal of a row of the digest table."""
        return self._digests.of(_encoded(values))

    def is_digest(self, values: Iterable[object], seal: object) -> bool:
        """Return whether a row of the digest table has a valid seal."""
        return _is_right(self.digest, values, seal)

    def session(self, values: Iterable[object]) -> bytes:
        """Return the seal of a console session."""
        return self._sessions.of(_encoded(values))

    def is_session(self, values: Iterable[object], seal: object) -> bool:
        """Return whether a console session has a valid seal."""
        return _is_right(self.session, values, seal)

    def ledger_secret(self) -> bytes:
        """Return the seal of the row that names the secret of this ledger's seals."""
        return self._secret.of(self.secret_id.encode())

    def is_ledger_secret(self, seal: object) -> bool:
        """Return whether the row that names the secret has a valid seal."""
        return type(seal) is bytes and compare_digest(self.ledger_secret(), seal)

    def last_check(self, values: Iterable[object]) -> bytes:
        """Return the seal of the result of an integrity check."""
        return self._checks.of(_encoded(values))

    def is_last_check(self, values: Iterable[object], seal: object) -> bool:
        """Return whether the result of an integrity check has a valid seal."""
        return _is_right(self.last_check, values, seal)


class NoSeals(Seals):
    """Requires and makes no seals, for reading a ledger whose pepper was lost.

    A copy of such a ledger must not carry seals: it would be trusted later.
    """

    checks = False

    def event(self, _key: bytes, _version: int, _topic: str, _state: bytes) -> None:
        """Make no seal."""

    def is_event(self, *_columns: object) -> bool:
        """Accept every event."""
        return True

    def auth_row(self, _values: Iterable[object]) -> None:
        """Make no seal."""


def _encoded(values: Iterable[object]) -> bytes:
    """Return an unambiguous encoding of values; bytes become a list that holds their hex digits."""
    return orjson.dumps([[each.hex()] if isinstance(each, bytes) else each for each in values])


def _is_right(make: Any, values: Iterable[object], seal: object) -> bool:  # noqa: ANN401
    if type(seal) is not bytes:
        return False
    try:
        right = make(values)
    except (TypeError, ValueError):
        # A value has a type that the ledger never writes, or is text that is not valid UTF-8.
        return False
    return right is not None and compare_digest(right, seal)
