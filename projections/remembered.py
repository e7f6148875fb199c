"""Auth rows kept in memory, for as long as the ledger has said nothing new about them."""

from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from domain.judge import AuthRow
from domain.key_ids import to_key_id
from projections import auth_lookup
from projections.fence import Fence

_EVENTS_LOOKED_AT = 10_000
_EVENTS = "SELECT id, originator_id, state FROM events WHERE id >= ? ORDER BY id LIMIT ?"
_LAST_EVENT = "SELECT id, originator_id, state FROM events ORDER BY id DESC LIMIT 1"
_GENERATION = "SELECT generation FROM projection_states WHERE table_name = ?"

_Event = tuple[int, bytes, bytes]
_NO_EVENT: _Event = (0, b"", b"")


@dataclass(slots=True)
class RememberedKey:
    """A key's auth row, and what is known of its token.

    Args:
        row: as the ledger has it.
        digest: of the secret; ``None`` until it was proved under this pepper.
        spelling: the public part of the token and its checksum, once it was seen to be right.
    """

    row: AuthRow
    digest: bytes | None
    spelling: tuple[str, str] | None = None

    @property
    def public(self) -> str:
        """The part of the token that everybody may see."""
        return f"{self.row.token_prefix}_{self.row.lookup_id}"


class RememberedKeys:
    """The most recently used auth rows; to be used by one thread at a time.

    `catch_up` comes before each answer. It asks the fence, and only when something was committed
    reads which keys the new events are about, and forgets those. A row is read after the fence
    was asked; whatever is committed during or after the reading changes the fence's number again,
    and the event that it brings has a later position than the last one looked at. So the next
    answer forgets the row, and the classic race of a cache, where an old row is written over the
    news, has no place to happen.
    """

    def __init__(self, fence: Fence, pepper_id: str, *, most: int) -> None:
        self._fence = fence
        self._pepper_id = pepper_id
        self._most = most
        self._keys: OrderedDict[str, RememberedKey] = OrderedDict()
        self._lookup_ids: dict[str, str] = {}
        self._version: int | None = None
        self._generation: list[tuple[int]] = []
        self._last_event = _NO_EVENT

    @property
    def position(self) -> int:
        """The position of the last event looked at."""
        return self._last_event[0]

    def catch_up(self) -> None:
        """Forget what the ledger has said something new about.

        Raises:
            LedgerUnavailable: it cannot be asked.
        """
        version = self._fence.version()
        if version == self._version:
            return
        seen, *news = self._events_since_the_last()
        generation = self._fence.rows(_GENERATION, auth_lookup.VIEW.name)
        # A rebuilt table may differ without an event; and where the last event is not what it
        # was, somebody has put an older ledger in this one's place.
        if (
            seen != self._last_event
            or len(news) >= _EVENTS_LOOKED_AT
            or generation != self._generation
        ):
            self._keys.clear()
            self._lookup_ids.clear()
            last = self._fence.rows(_LAST_EVENT)
            self._last_event = last[0] if last else _NO_EVENT
        elif news:
            for _, key_uuid, _ in news:
                # An event that was planted may be about nothing; then it is about no key here.
                with suppress(TypeError, ValueError):
                    self._forget(to_key_id(UUID(bytes=key_uuid)))
            self._last_event = news[-1]
        self._generation = generation
        self._version = version

    def recall(self, lookup_id: str) -> RememberedKey | None:
        """Return the key behind a lookup id if it is in memory."""
        key = self._keys.get(lookup_id)
        if key is not None:
            self._keys.move_to_end(lookup_id)
        return key

    def find(self, lookup_id: str) -> RememberedKey | None:
        """Return the key behind a lookup id, from memory or else from the auth lookup.

        Raises:
            LedgerUnavailable: the ledger cannot be asked.
        """
        key = self.recall(lookup_id)
        if key is not None:
            return key
        found = auth_lookup.find_in_sqlite(self._fence.rows, lookup_id, self._pepper_id)
        if found is None:
            return None
        key = RememberedKey(*found)
        self._keys[lookup_id] = key
        self._lookup_ids[key.row.key_id] = lookup_id
        if len(self._keys) > self._most:
            _, oldest = self._keys.popitem(last=False)
            del self._lookup_ids[oldest.row.key_id]
        return key

    def read_in_vain(self, lookup_id: str) -> None:
        """Read from the auth lookup what is not there, in the time that an unknown key takes.

        Whoever presents a wrong secret must not learn by the time whether its key is there.

        Raises:
            LedgerUnavailable: the ledger cannot be asked.
        """
        auth_lookup.find_in_sqlite(self._fence.rows, f"{lookup_id}-", self._pepper_id)

    def _events_since_the_last(self) -> list[_Event]:
        """Return the last event looked at, as it is now, and the news after it."""
        events: list[_Event] = self._fence.rows(_EVENTS, self.position, _EVENTS_LOOKED_AT + 1)
        return events if self.position and events else [_NO_EVENT, *events]

    def _forget(self, key_id: str) -> None:
        lookup_id = self._lookup_ids.pop(key_id, None)
        if lookup_id is not None:
            del self._keys[lookup_id]
