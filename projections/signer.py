"""Signing checkpoints, and holding the log to those that are outside the database.

What a checkpoint says can be held against the ledger for ever. So none is signed that contradicts
the last one outside, and none for what is not yet on the disk: only committed entries are read,
and a commit is on the disk before anybody can read it. The note goes into the file first; what a
crash leaves undone after that, the next call does.
"""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection

from domain.audit_log import Forked
from domain.errors import HistoryInDoubt, LedgerUnavailable, ProjectionInconsistent
from projections.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from projections.checkpoint_file import append_note, last_note_in, notes_in
from projections.checkpoints import keep_note, latest_note, notes
from projections.database import Database
from projections.entries import last_entry_of, reader, size_of
from projections.exclusive import exclusively
from projections.merkle import root
from projections.signed_note import SigningKey

_WAY_ON = (
    "restore the ledger that the checkpoints are of, or go on with this one for all to see by:"
    " keyledger audit fork --reason WHY"
)


class Signer:
    """Signs what the log has come to, and says whether it is still the log that was signed.

    Any number of processes have one; one of them signs at a time.
    """

    def __init__(
        self, database: Database, key: SigningKey, path: Path, clock: Callable[[], datetime]
    ) -> None:
        """Sign with ``key`` and keep what was signed in the file at ``path``."""
        self._database = database
        self._key = key
        self._path = path
        self._clock = clock
        self._doubt: str | None = None

    @property
    def key(self) -> SigningKey:
        """What checkpoints are signed with."""
        return self._key

    @property
    def path(self) -> Path:
        """The file of the checkpoints outside the database."""
        return self._path

    @property
    def doubt(self) -> str | None:
        """Why nothing may be changed; ``None`` as long as nothing speaks against it."""
        return self._doubt

    def adopt(self, key: SigningKey) -> None:
        """Sign with another key from now on, for the log of its name."""
        self._key = key
        self._doubt = None

    def check_append(self) -> None:
        """Refuse a change to a log that is not the one that was signed.

        Raises:
            HistoryInDoubt: it is not, as far as the last look could tell.
        """
        if self._doubt is not None:
            raise HistoryInDoubt(self._doubt)

    def look(self) -> Checkpoint | None:
        """Hold the log against the last checkpoint outside, and remember what comes of it.

        Returns:
            That checkpoint, if there is one and the log agrees with it.

        Raises:
            HistoryInDoubt: the log is smaller or another one.
            LedgerUnavailable: the database or the file cannot be read, so it cannot be told.
        """
        with self._database.read() as connection:
            try:
                last = self._agreed(connection)
            except HistoryInDoubt as error:
                self._doubt = str(error)
                raise
        self._doubt = None
        return last

    def sign(self) -> Checkpoint | None:
        """Sign the log as it is, unless there is nothing new or somebody else is at it.

        Returns:
            The checkpoint that was signed now.

        Raises:
            HistoryInDoubt, LedgerUnavailable: as for `look`; or the file cannot be written.
        """
        with exclusively(self._database, "signing") as alone:
            if not alone:
                return None
            last = self.look()
            with self._database.read() as connection:
                checkpoint = _checkpoint(connection, self._key.name)
            if checkpoint.size == 0 or (last is not None and last.size == checkpoint.size):
                self._keep_what_a_crash_left()
                return None
            note = sign_checkpoint(checkpoint, self._key)
            try:
                append_note(self._path, note)
            except OSError as error:
                raise _unreadable(error) from error
            with self._database.write() as connection:
                keep_note(connection, checkpoint, note, self._clock())
            return checkpoint

    def _keep_what_a_crash_left(self) -> None:
        """Write the last note into the database, if a crash came between the file and that."""
        note = self._last_note()
        with self._database.read() as connection:
            kept = latest_note(connection)
        if note is not None and kept != note:
            checkpoint = open_checkpoint(note, [self._key.verifier_key])
            with self._database.write() as connection:
                keep_note(connection, checkpoint, note, self._clock())

    def _agreed(self, connection: Connection) -> Checkpoint | None:
        note = self._last_note()
        if note is None:
            if latest_note(connection) is not None and not self._is_new(connection):
                raise HistoryInDoubt(
                    f"checkpoints were signed, and their file {self._path} is gone; restore it."
                    f" If it is lost, {_WAY_ON.rpartition(', or ')[2]}"
                )
            return None
        try:
            last = open_checkpoint(note, [self._key.verifier_key])
        except ValueError as error:
            raise HistoryInDoubt(
                f"the last checkpoint in {self._path} was not signed by the key of"
                f" {self._key.name} ({error}); restore the key that belongs to it, or {_WAY_ON}"
            ) from error
        size = size_of(connection)
        if size < last.size:
            raise HistoryInDoubt(
                f"the log has {size} entries, and {last.size} were signed: entry {size} and all"
                f" after it are gone; {_WAY_ON}"
            )
        if not _agrees(connection, last):
            raise HistoryInDoubt(f"{self._where_it_differs(connection, last)}; {_WAY_ON}")
        return last

    def _is_new(self, connection: Connection) -> bool:
        """Tell whether the log has just been forked, and has no checkpoint of its own yet."""
        forked = last_entry_of(connection, Forked.TOPIC)
        if forked is None or notes(connection, self._key.name):
            return False
        origin: str = json.loads(forked)["data"]["origin"]
        return origin == self._key.name

    def _where_it_differs(self, connection: Connection, last: Checkpoint) -> str:
        """Say between which checkpoints the log is another one."""
        sizes = [0]
        for note in notes_in(self._path):
            try:
                signed = open_checkpoint(note, [self._key.verifier_key])
            except ValueError:
                continue
            if not _agrees(connection, signed):
                return (
                    f"the log is not the one that was signed: one of the entries"
                    f" {sizes[-1]} to {signed.size - 1} is another"
                )
            sizes.append(signed.size)
        return f"the log is not the one that was signed, of {last.size} entries"

    def _last_note(self) -> str | None:
        try:
            return last_note_in(self._path)
        except (OSError, ValueError) as error:
            raise _unreadable(error) from error


def _checkpoint(connection: Connection, origin: str) -> Checkpoint:
    size = size_of(connection)
    return Checkpoint(origin, size, root(size, reader(connection)))


def _agrees(connection: Connection, signed: Checkpoint) -> bool:
    try:
        return root(signed.size, reader(connection)) == signed.root
    except ProjectionInconsistent:
        # A node is missing: whatever the log is, it is not what was signed.
        return False


def _unreadable(error: Exception) -> LedgerUnavailable:
    return LedgerUnavailable(f"cannot read or write the file of the checkpoints: {error}")
