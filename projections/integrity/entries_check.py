"""Check the log itself: every event, its entry, and the stored hashes of the tree.

For each leaf the ledger stores three things that must agree: the event, the entry made from it, and
the hash of the entry. If one of them differs, the other two show which one it is.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, Table, select

from domain.api_key import ApiKey
from domain.audit_log import LedgerEvent
from domain.key_ids import to_key_id
from domain.public_event import entry_of
from projections.integrity.findings import Finding, Findings
from projections.store.database import Database
from projections.store.events import decode_canonical, last_position
from projections.store.invalid_utf8 import tolerate_invalid_utf8
from projections.store.schema import events
from projections.tlog.merkle import HASH_LENGTH, CompactRange, leaf_hash
from projections.views import entries

_AT_ONCE = 2_000
_LOWEST = -(2**63)

_EVIDENCE = "stop the server and keep a copy of the database as evidence"
RESTORE = f"{_EVIDENCE}; then restore a backup from before the change"
REBUILD = "keep a copy of the database as evidence; then run: keyledger projections rebuild entries"
_DECIDE = (
    f"{_EVIDENCE}; find out with an earlier audit pack or a backup which of the two is right, and"
    " restore that"
)

OnBatch = Callable[[int, int], None]
"""Called between batches, outside transactions, with the amount done and the total."""


class Extent(NamedTuple):
    """The end of the log when the check began; the log may grow meanwhile."""

    position: int
    size: int


def extent_of(connection: Connection) -> Extent:
    """Return the position of the last event and the number of entries."""
    return Extent(last_position(connection), entries.size_of(connection))


class LogCheck:
    """Walk through events and entries side by side, in their common order."""

    def __init__(self, database: Database, findings: Findings) -> None:
        """Begin before the first entry."""
        self._database = database
        self._findings = findings
        self._next_leaf = 0
        # None once an entry is missing, because all later ones have moved.
        self._tree: CompactRange | None = CompactRange(0, lambda _nodes: [])
        # A rotation has two events next to each other: the first waits here for the second.
        self._rotations: dict[tuple[str, str], int] = {}
        self.events = 0
        self.entries = 0
        self.can_be_replayed = True

    @property
    def root(self) -> bytes | None:
        """The root of the tree so far; ``None`` if an entry is missing."""
        return None if self._tree is None else self._tree.root()

    def run(self, extent: Extent, on_batch: OnBatch) -> None:
        """Check everything up to an extent, in short transactions."""

        def on_page(last: int) -> None:
            on_batch(last, extent.position)

        stored = _paged(
            self._database, select(events).where(events.c.id <= extent.position), events, on_page
        )
        made = _paged(
            self._database,
            select(
                entries.table.c.leaf_index,
                entries.table.c.position,
                entries.table.c.hashes,
                entries.table.c.entry,
            ).where(entries.table.c.leaf_index < extent.size),
            entries.table,
            lambda _last: None,
        )
        event, entry = next(stored, None), next(made, None)
        while event is not None or entry is not None:
            if event is not None and entry is not None and event.id == entry.position:
                self._check_pair(event, entry)
                event, entry = next(stored, None), next(made, None)
            elif entry is not None and (event is None or not self._has_event(entry.position)):
                self._check_unpaired_entry(entry)
                entry = next(made, None)
            elif event is not None and (entry is None or not self._has_entry(event.id)):
                self._check_unpaired_event(event, "it has no entry in the log")
                event = next(stored, None)
            else:
                # The event's entry and the entry's event both exist in another place.
                assert event is not None  # noqa: S101 - the branches before leave no other case
                assert entry is not None  # noqa: S101 - as above
                self._check_unpaired_entry(entry)
                self._check_unpaired_event(event, "its entry is not at its place in the log")
                event, entry = next(stored, None), next(made, None)
        for (old, successor), position in self._rotations.items():
            wrong = f"the rotation of {old} to {successor} has only one of its two events"
            self._event(position, wrong, RESTORE)

    def _check_pair(self, stored: Row[Any], made: Row[Any]) -> None:
        right = self._read(stored)
        self._check_leaf_index(made)
        if right is None:
            self._check_hashes(made, None)
            return
        if right == made.entry:
            self._check_hashes(made, right)
            return
        kept = made.hashes[:HASH_LENGTH] if isinstance(made.hashes, bytes) else b""
        if kept == leaf_hash(right):
            wrong = (
                f"it differs from the event at position {made.position}; its hash matches the"
                " event, so the entry was changed"
            )
            self._entry(made, wrong, REBUILD)
        elif isinstance(made.entry, bytes) and kept == leaf_hash(made.entry):
            wrong = (
                f"it differs from the event at position {made.position}, and its hash is valid:"
                " the event was changed, or the entry together with its hash"
            )
            self._entry(made, wrong, _DECIDE)
        else:
            wrong = (
                f"it differs from the event at position {made.position}, and the hash matches"
                " neither of them"
            )
            self._entry(made, wrong, _DECIDE)
        chosen = right if kept == leaf_hash(right) else None
        self._check_hashes(made, chosen, reported=True)

    def _check_unpaired_entry(self, made: Row[Any]) -> None:
        self._check_leaf_index(made)
        if self._has_event(made.position):
            wrong = f"it is out of order: the event at position {made.position} has another place"
        else:
            wrong = f"its event, at position {str(made.position)[:20]}, is missing"
        self._entry(made, wrong, RESTORE)
        self._check_hashes(made, None)

    def _check_unpaired_event(self, stored: Row[Any], wrong: str) -> None:
        self._event(stored.id, wrong, RESTORE)
        self._read(stored)

    def _read(self, stored: Row[Any]) -> bytes | None:
        """Return the entry that an event serializes to; ``None`` if the event cannot be read."""
        self.events += 1
        try:
            event = decode_canonical(stored)
            self._check_seal(stored)
            self._pair(stored.id, event)
            return entry_of(event)
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            wrong = str(error) if isinstance(error, ValueError) else f"it cannot be read: {error!r}"
            self._event(stored.id, wrong, RESTORE)
            self.can_be_replayed = False
            return None

    def _check_seal(self, stored: Row[Any]) -> None:
        position, *columns = stored
        if not self._database.seals.is_event(*columns):
            wrong = "it has no valid seal: the ledger did not write it like this"
            self._event(position, wrong, RESTORE)
            self.can_be_replayed = False

    def _pair(self, position: int, event: LedgerEvent) -> None:
        key_id = to_key_id(event.originator_id)
        if isinstance(event, ApiKey.Rotated):
            rotation = key_id, event.successor_id
        elif isinstance(event, ApiKey.Created) and event.rotated_from is not None:
            rotation = event.rotated_from, key_id
        else:
            return
        if self._rotations.pop(rotation, None) is None:
            self._rotations[rotation] = position

    def _check_leaf_index(self, made: Row[Any]) -> None:
        """Check that the entry's leaf index is the next one."""
        self.entries += 1
        if made.leaf_index != self._next_leaf:
            first, last = sorted((self._next_leaf, made.leaf_index))
            wrong = f"entries {first} to {last - 1} are missing before it"
            self._entry(made, wrong, RESTORE)
            self._tree = None
        self._next_leaf = made.leaf_index + 1

    def _check_hashes(self, made: Row[Any], right: bytes | None, *, reported: bool = False) -> None:
        """Compare the stored hashes with the right entry, or with the stored one if not known."""
        entry = made.entry if right is None else right
        if not isinstance(entry, bytes):
            self._tree = None
            if not reported:
                self._entry(made, "it is text instead of bytes", REBUILD)
            return
        if self._tree is None:
            if not reported and made.hashes[:HASH_LENGTH] != leaf_hash(entry):
                self._entry(made, "its hash does not match its bytes", REBUILD)
        elif self._tree.append(entry) != made.hashes and not reported:
            same = made.hashes[:HASH_LENGTH] == leaf_hash(entry)
            part = "the hashes of the tree stored with it are" if same else "its hash is"
            self._entry(made, f"{part} not what the preceding entries give", REBUILD)

    def _entry(self, made: Row[Any], wrong: str, remedy: str) -> None:
        position = made.position if isinstance(made.position, int) else None
        name = f"entry {made.leaf_index}"
        self._findings.add(Finding("entry", name, wrong, remedy, made.leaf_index, position))

    def _event(self, position: int, wrong: str, remedy: str) -> None:
        name = f"the event at position {position}"
        self._findings.add(Finding("event", name, wrong, remedy, position=position))

    def _has_event(self, position: object) -> bool:
        with self._database.read() as connection:
            found = connection.scalar(select(events.c.id).where(events.c.id == position))
        return found is not None

    def _has_entry(self, position: int) -> bool:
        table = entries.table
        with self._database.read() as connection:
            found = connection.scalar(
                select(table.c.leaf_index).where(table.c.position == position)
            )
        return found is not None


def _paged(
    database: Database, query: Select[Any], table: Table, on_page: Callable[[int], None]
) -> Iterator[Row[Any]]:
    """Read rows in the order of their primary key, one page per transaction."""
    (key,) = table.primary_key
    after = _LOWEST
    while True:
        with database.read() as connection, tolerate_invalid_utf8(connection):
            page = connection.execute(query.where(key > after).order_by(key).limit(_AT_ONCE)).all()
        yield from page
        if not page:
            return
        after = page[-1][0]
        on_page(after)
