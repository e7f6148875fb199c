"""The key cache: auth rows in memory, until an event of their key is committed."""

import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from domain.key_ids import to_key_id
from domain.verdict import AuthRow
from projections.auth.new_events import NOTHING_OBSERVED, NewEvents, Observed
from projections.views.auth_lookup import Found


@dataclass(slots=True)
class CachedKey:
    """The auth row of a key, and what is known of its token.

    Args:
        row: as the ledger has it.
        digest: of the secret; ``None`` until the secret was verified under this pepper.
        spelling: the public part of the token and its checksum, once they were found correct.
    """

    row: AuthRow
    digest: bytes | None
    spelling: tuple[str, str] | None = None

    @property
    def public(self) -> str:
        """The public part of the token."""
        return f"{self.row.token_prefix}_{self.row.lookup_id}"


class KeyCache:
    """The most recently used auth rows; for any number of threads.

    New events are applied before each verification: they evict the rows of their keys. A row is
    read after the observed state was noted, and is kept only if that state is still the same after
    the reading. Everything that is committed during or after the reading has a later position than
    that state, and evicts the row when it is applied. So an old row can never overwrite a newer
    one, which is the classic race of a cache.
    """

    def __init__(self, *, size: int) -> None:
        """Keep at most ``size`` rows."""
        self._size = size
        self._keys: OrderedDict[str, CachedKey] = OrderedDict()
        self._lookup_ids: dict[str, str] = {}
        self._observed = NOTHING_OBSERVED
        # Held for microseconds, and never while the database is read.
        self._lock = threading.Lock()

    @property
    def observed(self) -> Observed:
        """The state of the ledger up to which all events were applied."""
        return self._observed

    def apply(self, new: NewEvents) -> None:
        """Evict the keys that have new events, which `Freshness` found, once or several times."""
        with self._lock:
            if new.keys is None:
                self._keys.clear()
                self._lookup_ids.clear()
            else:
                for key_uuid in new.keys:
                    # A planted event may have an id that is not a key's; then no row depends on it.
                    with suppress(TypeError, ValueError):
                        self._evict(to_key_id(UUID(bytes=key_uuid)))
                if new.observed.position < self._observed.position:
                    # Another thread, whose check began later, has applied these and more.
                    return
            self._observed = new.observed

    def get(self, lookup_id: str) -> tuple[CachedKey | None, Observed]:
        """Return the key of a lookup id if it is cached, and the observed state."""
        with self._lock:
            key = self._keys.get(lookup_id)
            if key is not None:
                self._keys.move_to_end(lookup_id)
            return key, self._observed

    def put(self, found: Found, observed: Observed) -> CachedKey:
        """Return a row as a cached key; keep it if no event was applied meanwhile.

        Args:
            found: in the auth lookup.
            observed: the state that was observed before the row was read.
        """
        row, digest = found
        with self._lock:
            known = self._keys.get(row.lookup_id)
            if known is not None and known.row == row:
                return known
            key = CachedKey(row, digest)
            now = self._observed
            if observed.last != now.last or observed.generation != now.generation:
                return key
            self._keys[row.lookup_id] = key
            self._lookup_ids[row.key_id] = row.lookup_id
            if len(self._keys) > self._size:
                _, oldest = self._keys.popitem(last=False)
                del self._lookup_ids[oldest.row.key_id]
            return key

    def _evict(self, key_id: str) -> None:
        lookup_id = self._lookup_ids.pop(key_id, None)
        if lookup_id is not None:
            del self._keys[lookup_id]
