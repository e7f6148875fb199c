"""Freshness: the key cache is never behind what was committed before a verification began."""

from time import monotonic
from typing import Protocol

from projections.auth.cache import KeyCache
from projections.auth.freshness_postgresql import PostgresqlFreshness
from projections.auth.freshness_sqlite import SqliteFreshness
from projections.auth.new_events import NewEvents, Observed
from projections.store.database import Database
from projections.views import auth_lookup


class FreshnessCheck(Protocol):
    """Asks the database what was committed; for any number of threads."""

    @property
    def is_immediate(self) -> bool:
        """Whether a check takes microseconds, so that an event loop may wait for it."""

    def new_events(self, since: Observed) -> NewEvents | None:
        """Return what was committed since; ``None`` if nothing was.

        Raises:
            LedgerUnavailable: the database cannot be asked, or lacks an event that was seen.
        """

    def find(self, lookup_id: str, pepper_id: str) -> auth_lookup.Found | None:
        """Return the auth row and the digest of a lookup id.

        Raises:
            LedgerUnavailable: the database cannot be asked.
            RowNotSealed: the row is not as the ledger wrote it.
        """

    def close(self) -> None:
        """Close the connection."""


def open_freshness_check(database: Database) -> FreshnessCheck:
    """Return the freshness check of a database.

    Raises:
        LedgerUnavailable: the database cannot be asked.
    """
    return SqliteFreshness(database) if database.is_a_file else PostgresqlFreshness(database)


class Freshness:
    """Applies the results of freshness checks to the key cache; for any number of threads."""

    def __init__(self, check: FreshnessCheck, cache: KeyCache, staleness_seconds: float) -> None:
        """Check with ``check`` unless the last one began less than ``staleness_seconds`` ago."""
        self._check = check
        self._cache = cache
        self._staleness = staleness_seconds
        self._fresh_until = 0.0
        self.is_immediate = check.is_immediate

    @property
    def observed(self) -> Observed:
        """The state since which the next check asks."""
        return self._cache.observed

    @property
    def is_current(self) -> bool:
        """Whether the setting for staleness allows the cache to be used without a check."""
        return bool(self._staleness) and monotonic() < self._fresh_until

    def check(self) -> None:
        """Apply to the cache everything that was committed before this call.

        Raises:
            LedgerUnavailable: the database cannot be asked.
        """
        if self.is_current:
            return
        began = monotonic()
        self.apply(self._check.new_events(self._cache.observed), began=began)

    def apply(self, new: NewEvents | None, *, began: float) -> None:
        """Apply the result of a check to the cache.

        Args:
            new: the result.
            began: when the check began, on the monotonic clock.
        """
        if new is not None:
            self._cache.apply(new)
        if self._staleness:
            self._fresh_until = max(self._fresh_until, began + self._staleness)
