"""Auth rows kept in memory, for as long as the ledger has said nothing new about them."""

from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from domain.judge import AuthRow
from domain.key_ids import to_key_id
from projections.auth.freshness import NOTHING_SEEN, News, Seen
from projections.views.auth_lookup import Found


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

    What the fence tells is learnt before each answer: the keys that new events are about are
    forgotten. A row is read after it was noted what had been learnt, and is kept only if nothing
    more was learnt meanwhile. Whatever is committed during or after the reading has a later
    position than what had been learnt, and makes the row forgotten when it is told. So the classic
    race of a cache, where an old row is written over the news, has no place to happen.
    """

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._keys: OrderedDict[str, RememberedKey] = OrderedDict()
        self._lookup_ids: dict[str, str] = {}
        self.seen = NOTHING_SEEN

    @property
    def position(self) -> int:
        """The position of the last event looked at."""
        return self.seen.last[0]

    def learn(self, news: News) -> None:
        """Forget what the ledger has said something new about; the same may be told twice."""
        if news.keys is None:
            self._keys.clear()
            self._lookup_ids.clear()
        else:
            for key_uuid in news.keys:
                # An event that was planted may be about nothing; then it is about no key here.
                with suppress(TypeError, ValueError):
                    self._forget(to_key_id(UUID(bytes=key_uuid)))
            if news.seen.last[0] < self.position:
                # Another thread, which asked later, has learnt it already, and more.
                return
        self.seen = news.seen

    def recall(self, lookup_id: str) -> RememberedKey | None:
        """Return the key behind a lookup id if it is in memory."""
        key = self._keys.get(lookup_id)
        if key is not None:
            self._keys.move_to_end(lookup_id)
        return key

    def remember(self, found: Found, seen: Seen) -> RememberedKey:
        """Return a key as it was found, and keep it if that was all there is to know.

        Args:
            found: in the auth lookup.
            seen: what had been learnt before it was looked for.
        """
        row, digest = found
        known = self._keys.get(row.lookup_id)
        if known is not None and known.row == row:
            return known
        key = RememberedKey(row, digest)
        if seen.last != self.seen.last or seen.generation != self.seen.generation:
            return key
        self._keys[row.lookup_id] = key
        self._lookup_ids[row.key_id] = row.lookup_id
        if len(self._keys) > self._most:
            _, oldest = self._keys.popitem(last=False)
            del self._lookup_ids[oldest.row.key_id]
        return key

    def _forget(self, key_id: str) -> None:
        lookup_id = self._lookup_ids.pop(key_id, None)
        if lookup_id is not None:
            del self._keys[lookup_id]
