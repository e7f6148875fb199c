"""Verify signed checkpoints, inside and outside the database, against the tree."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

import orjson
from sqlalchemy import Connection, select, tuple_

from domain.audit_log import Forked
from domain.errors import ProjectionInconsistent
from projections.integrity.entries_check import OnBatch
from projections.integrity.findings import Finding, Findings
from projections.store.database import Database
from projections.store.invalid_utf8 import tolerate_invalid_utf8
from projections.store.schema import checkpoints
from projections.tlog.checkpoint import Checkpoint, open_checkpoint
from projections.tlog.merkle import root
from projections.tlog.notes import VerifierKey
from projections.views import entries

_AT_ONCE = 200

_REWRITTEN = (
    "stop the server, keep a copy of the database and of the checkpoints as evidence, and restore"
    " a backup with this root; if there is none, start a new log with: keyledger audit fork"
)
_NOT_SIGNED = (
    "check that the signing key is the one that signed this checkpoint; if it is, the checkpoint"
    " was changed: use a copy that was kept elsewhere"
)


class StoredNote(NamedTuple):
    """A note and its place, with the origin and size that the place states, if it does."""

    place: str
    note: str
    stated: tuple[str, int] | None = None


def check_checkpoints(
    database: Database,
    notes: Iterable[str],
    keys: Iterable[VerifierKey],
    findings: Findings,
    on_batch: OnBatch,
) -> int:
    """Compare the tree with every checkpoint; return the number of checkpoints.

    The roots are computed from stored hashes; the check of the log verifies that these belong to
    the entries.

    Args:
        notes: signed checkpoints from outside the database.
        keys: the ledger's public keys; one of them must have signed each checkpoint.
    """
    known = tuple(keys)
    count = 0
    with database.read() as connection:
        former = former_origins(connection) - {key.name for key in known}
    outside = (StoredNote(f"checkpoint {n} kept outside", note) for n, note in enumerate(notes, 1))
    for source in (_in_database(database, former), outside):
        check = _Source(database, known, findings)
        while some := list(islice(source, _AT_ONCE)):
            check.take(some)
            count += len(some)
            on_batch(count, count)
        check.end()
    return count


class _Source:
    """Check the checkpoints from one place.

    The first checkpoint that contradicts the log is reported in detail. All later ones are reported
    together with the largest of them, which shows how many entries are missing.
    """

    def __init__(
        self, database: Database, keys: tuple[VerifierKey, ...], findings: Findings
    ) -> None:
        self._database = database
        self._keys = keys
        self._findings = findings
        self._agreed = 0
        self._size = 0
        self._differs = False
        self._others = 0
        self._largest = 0

    def take(self, some: Iterable[StoredNote]) -> None:
        with self._database.read() as connection:
            size = self._size = entries.size_of(connection)
            for kept in some:
                try:
                    checkpoint = open_checkpoint(kept.note, self._keys)
                except (ValueError, TypeError) as error:
                    self._find(kept.place, str(error), _NOT_SIGNED)
                    continue
                stated = checkpoint.origin, checkpoint.size
                if kept.stated not in {None, stated}:
                    wrong = f"its note says {stated[0]} at {stated[1]} entries"
                    self._find(kept.place, wrong, _NOT_SIGNED)
                else:
                    self._compare(connection, size, kept.place, checkpoint)

    def end(self) -> None:
        """Report the checkpoints that contradict the log after the first one."""
        if not self._others:
            return
        gone = (
            f"; entries {self._size} to {self._largest - 1} were signed and are missing"
            if self._largest > self._size
            else ""
        )
        others = f"{self._others} other {'checkpoint' if self._others == 1 else 'checkpoints'}"
        self._find(
            f"{others} after the first one that does not match the log",
            f"they do not match it either, up to the one of {self._largest} entries{gone}",
            _REWRITTEN,
        )

    def _compare(
        self, connection: Connection, size: int, place: str, checkpoint: Checkpoint
    ) -> None:
        if checkpoint.size > size:
            wrong = (
                f"it covers {checkpoint.size} entries, but there are {size}: entries {size} to"
                f" {checkpoint.size - 1} are missing"
            )
        else:
            try:
                same = root(checkpoint.size, entries.reader(connection)) == checkpoint.root
            except ProjectionInconsistent as error:
                wrong = f"it cannot be compared: {error}"
            else:
                if same:
                    self._agreed = max(self._agreed, checkpoint.size)
                    return
                begin = self._agreed if self._agreed < checkpoint.size else 0
                wrong = (
                    f"the tree of its {checkpoint.size} entries has another root: at least one of"
                    f" the entries {begin} to {checkpoint.size - 1} was changed or moved after it"
                    " was signed"
                )
        self._largest = max(self._largest, checkpoint.size)
        if self._differs:
            self._others += 1
            return
        self._differs = True
        self._find(place, wrong, _REWRITTEN)

    def _find(self, place: str, wrong: str, remedy: str) -> None:
        self._findings.add(Finding("checkpoint", place, wrong, remedy))


def former_origins(connection: Connection) -> set[str]:
    """Return the names that the log had before its forks.

    A fork whose entry cannot be read is left out; the checkpoints before it are then findings.
    """
    forks = connection.scalars(
        select(entries.table.c.entry).where(entries.table.c.type == Forked.TOPIC)
    )
    origins = set()
    for entry in forks:
        # The check of the log reports an entry that cannot be read.
        with suppress(ValueError, TypeError, LookupError):
            origins.add(str(orjson.loads(entry)["data"]["previous_origin"]))
    return origins


def _in_database(database: Database, former: set[str]) -> Iterator[StoredNote]:
    """Read the notes in the database, smallest of each origin first, one page per transaction.

    Checkpoints from before a fork are left out: the log no longer claims to agree with them.

    A page is read only when it is needed, after the checkpoints before it were compared.
    """
    place = tuple_(checkpoints.c.origin, checkpoints.c.size)
    query = (
        select(checkpoints.c.origin, checkpoints.c.size, checkpoints.c.note)
        .where(checkpoints.c.origin.not_in(former))
        .order_by(checkpoints.c.origin, checkpoints.c.size)
        .limit(_AT_ONCE)
    )
    page = query
    while True:
        with database.read() as connection, tolerate_invalid_utf8(connection):
            rows = connection.execute(page).all()
        if not rows:
            return
        for origin, size, note in rows:
            yield StoredNote(
                f"the database's checkpoint at {size} entries", str(note), (origin, size)
            )
        page = query.where(place > (rows[-1].origin, rows[-1].size))
