"""Sign checkpoints, and compare the log with the checkpoints outside the database.

A checkpoint can be used as evidence against the ledger for ever. So the signer never contradicts
the last checkpoint outside the database, and signs only what is already on disk: it reads committed
entries, and a commit is on disk before anyone can read it. The note is written to the file first;
the next call completes what a crash interrupted after that.

Each machine has its own checkpoint file. With a database server, the machine that holds the signing
lock signs, and the others find its checkpoints in the database. A checkpoint from there is added to
a machine's own file if the ledger's key signed it and the log agrees with it.
"""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import structlog
from sqlalchemy import Connection

from domain.errors import (
    HistoryInDoubt,
    LedgerUnavailable,
    PoisonEvent,
    ProjectionInconsistent,
)
from projections.audit_log.checkpoint_file import append_note, last_note_in, sync_notes
from projections.audit_log.checkpoint_table import last_signed, latest_note, note_of, store_note
from projections.audit_log.divergence import describe_difference, root_at
from projections.audit_log.new_entries_check import check_entries
from projections.store.database import Database
from projections.store.locks import task_lock
from projections.tlog.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from projections.tlog.merkle import EMPTY_ROOT, root
from projections.tlog.notes import SigningKey
from projections.views.entries import last_fork, reader, size_of

_log = structlog.get_logger()

_FORK = "start a new log with: keyledger audit fork --reason WHY"
_REMEDY = (
    "if only the entries were changed, run: keyledger projections rebuild entries; else restore"
    f" the ledger that the checkpoints belong to, or {_FORK}"
)
_REMEDY_NOT_SEALED = (
    "find out who can write to the database, run keyledger audit verify, and restore a backup"
    " from before the change"
)
_OUTSIDE = "outside"
_IN_THE_DATABASE = "in the database"


class LogStatus(NamedTuple):
    """The result of comparing the log with the last checkpoint.

    Args:
        note: note of the last checkpoint; ``None`` if there is none.
        last: that checkpoint, with which the log agrees.
        in_file: size of the last checkpoint in the file; 0 if there is none.
        in_database: size of the last checkpoint in the database; 0 if there is none.
        now: current size and root of the log.
    """

    note: str | None
    last: Checkpoint
    in_file: int
    in_database: int
    now: Checkpoint


class Signer:
    """Sign the current log, and find out whether it is still the log that was signed.

    Any number of processes on any number of machines may have a signer; one signs at a time.
    """

    def __init__(
        self, database: Database, key: SigningKey, path: Path, clock: Callable[[], datetime]
    ) -> None:
        """Sign with ``key`` and append the checkpoints to the file at ``path``."""
        self._database = database
        self._key = key
        self._path = path
        self._clock = clock
        self._doubt: str | None = None
        self._difference: tuple[str, bytes | None, str] | None = None
        self._checked = Checkpoint("", 0, EMPTY_ROOT)

    @property
    def key(self) -> SigningKey:
        """The key that signs checkpoints."""
        return self._key

    @property
    def path(self) -> Path:
        """The checkpoint file outside the database."""
        return self._path

    @property
    def doubt(self) -> str | None:
        """Why changes are refused; ``None`` if the last comparison found no difference."""
        return self._doubt

    def use_key(self, key: SigningKey) -> None:
        """Sign with another key from now on, for the log of that name."""
        self._key = key
        self._doubt = None

    def check_append(self) -> None:
        """Refuse a change if the log is not the one that was signed.

        Raises:
            HistoryInDoubt: the last comparison found a difference.
        """
        if self._doubt is not None:
            raise HistoryInDoubt(self._doubt)

    def checkpoint_over(self, size: int) -> Checkpoint | None:
        """Return a checkpoint of this size that this ledger's key signed, if there is one.

        It is the last one in the file, or, with a database server, the last one in the database
        that any machine signed: nobody can make one without the key.

        Raises:
            HistoryInDoubt: the last one in the file has a larger size or another key's signature.
            LedgerUnavailable: the database did not answer.
        """
        notes = {_OUTSIDE: self._last_note()}
        if not self._database.is_a_file:
            with self._database.read() as connection:
                kept = last_signed(connection, self._key.name)
                if kept is not None:
                    notes[_IN_THE_DATABASE] = note_of(connection, self._key.name, kept[0])
        for place, note in notes.items():
            checkpoint = None if note is None else self._open_note(note, place)
            if checkpoint is None:
                continue
            if checkpoint.size == size:
                return checkpoint
            if checkpoint.size > size:
                raise HistoryInDoubt(
                    f"the last checkpoint {place} covers {checkpoint.size} entries, but there are"
                    f" {size} events"
                )
        return None

    def check_log(self) -> LogStatus:
        """Compare the log with the last checkpoint outside the database, and keep the result.

        Raises:
            HistoryInDoubt: the log is smaller or differs, or the file cannot be read, so that it
                is not known.
            LedgerUnavailable: the database did not answer.
        """
        try:
            status = self._compare()
        except HistoryInDoubt as error:
            self._doubt = str(error)
            raise
        self._doubt = None
        return status

    def sign(self) -> Checkpoint | None:
        """Sign the current log, unless nothing is new or another process holds the signing lock.

        Returns:
            The new checkpoint, if one was signed.

        Raises:
            HistoryInDoubt, LedgerUnavailable: as for `check_log`; or the file cannot be written.
        """
        try:
            with task_lock(self._database, "signing") as alone:
                # Check the log even without the signing lock, to learn whether to refuse changes.
                status = self.check_log()
                return self._sign(status) if alone else None
        except (OSError, ValueError) as error:
            message = f"cannot write the checkpoint file: {error}"
            raise LedgerUnavailable(message) from error

    def _sign(self, status: LogStatus) -> Checkpoint | None:
        if status.note is not None and status.in_file < status.last.size:
            if not status.in_file:
                # The first checkpoint of this machine's file comes from the database unverified.
                _log.warning("checkpoint_file_begun", origin=self._key.name, size=status.last.size)
            append_note(self._path, status.note, self._database.owner)
        if status.note is not None and status.in_database < status.last.size:
            # A crash came after the note was written to the file, perhaps before it was synced.
            sync_notes(self._path)
            self._store(status.last, status.note)
        if status.now.size == status.last.size:
            return None
        note = sign_checkpoint(status.now, self._key)
        append_note(self._path, note, self._database.owner)
        self._store(status.now, note)
        return status.now

    def _store(self, checkpoint: Checkpoint, note: str) -> None:
        # The file already has the note, so if this fails, the next call stores it.
        with self._database.without_standby().write() as connection:
            store_note(connection, checkpoint, note, self._clock())

    def _compare(self) -> LogStatus:
        # Read in the reverse order of writing, because another machine may be signing: first the
        # notes in the database, then the file, which has all of them, then the log, which has all
        # entries that were signed.
        if not self._database.is_in_place():
            raise HistoryInDoubt("the database file was replaced while it was open: restart")
        with self._database.read() as connection:
            kept_note = latest_note(connection)
            kept = last_signed(connection, self._key.name)
        note = self._last_note()
        with self._database.read() as connection:
            forked = self._forked(connection)
            last = Checkpoint(self._key.name, 0, EMPTY_ROOT)
            if note is not None:
                self._check_file_is_current(note, forked=forked)
                last = self._verified_checkpoint(connection, note, _OUTSIDE)
            outside, size = last.size, 0 if kept is None else kept[0]
            if type(size) is not int:
                raise HistoryInDoubt(
                    "the size of a checkpoint in the database is not a number: it was changed;"
                    f" {_REMEDY}"
                )
            if size > outside and not self._database.is_a_file:
                note = note_of(connection, self._key.name, size)
                last = self._verified_checkpoint(connection, note, _IN_THE_DATABASE)
                if last.size != size:
                    raise HistoryInDoubt(
                        f"the database's checkpoint at {size} entries says {last.size}: it was"
                        f" changed; {_REMEDY}"
                    )
            elif note is None:
                # Anyone who can write to the table may have put anything there.
                signed_by = kept_note and kept_note.partition("\n")[0][:60]
                self._check_new(kept, forked=forked, signed_by=signed_by)
            elif size > outside:
                raise HistoryInDoubt(
                    f"{size} entries were signed, but the checkpoint file ends at {outside}: it"
                    f" is an older copy; restore the current one, or {_FORK}"
                )
            now = self._now(connection)
        self._check_entries(last, now)
        return LogStatus(note, last, outside, size, now)

    def _check_entries(self, last: Checkpoint, now: Checkpoint) -> None:
        """Check that the ledger wrote the event of each entry after the last checkpoint."""
        if self._database.given_seals is None:
            # For `doctor` without the pepper, for example; such a signer signs nothing.
            return
        since = self._checked
        if not last.size < since.size <= now.size:
            since = last
        with self._database.read() as connection:
            if since is not last and root_at(connection, since.size) != since.root:
                since = last
            found = check_entries(connection, self._database.seals, since.size, now.size)
        if isinstance(found, str):
            raise HistoryInDoubt(f"{found}; {_REMEDY_NOT_SEALED}")
        if found != now.root:
            raise HistoryInDoubt(
                f"the tree of {now.size} entries does not match the entries; {_REMEDY}"
            )
        self._checked = now

    def _forked(self, connection: Connection) -> bool:
        """Return whether the log was forked; the last fork must be to this signer's name."""
        try:
            fork = last_fork(connection)
        except (PoisonEvent, ProjectionInconsistent) as error:
            raise HistoryInDoubt(f"{error}; {_REMEDY}") from error
        if fork is not None and fork.origin != self._key.name:
            raise HistoryInDoubt(
                f"the log was forked and is now {fork.origin}, but the signing key here is that"
                f" of {self._key.name}. On the machine where keyledger audit fork was run, restart"
                " this server; if the command was interrupted, run it again first. On another"
                " machine, copy the new signing key from there, move the checkpoint file"
                f" ({self._path}) away, and restart this server"
            )
        return fork is not None

    def _now(self, connection: Connection) -> Checkpoint:
        size = size_of(connection)
        try:
            return Checkpoint(self._key.name, size, root(size, reader(connection)))
        except ProjectionInconsistent as error:
            raise HistoryInDoubt(f"{error}; {_REMEDY}") from error

    def _check_new(
        self, kept: tuple[int, str] | None, *, forked: bool, signed_by: str | None
    ) -> None:
        """Verify that a log without a checkpoint file never had a checkpoint."""
        if kept is not None:
            raise HistoryInDoubt(
                f"{kept[0]} entries were signed, but the checkpoint file is missing or empty:"
                f" restore it. If it is lost, {_FORK}"
            )
        if signed_by is not None and not forked:
            raise HistoryInDoubt(
                f"checkpoints were signed by {signed_by}, but the data folder has neither their"
                f" file nor their key, only a key of {self._key.name}: check that it is the right"
                " folder. If it is, restore both files, or copy the key from a machine that has"
                f" it. If they are lost, {_FORK}"
            )

    def _check_file_is_current(self, note: str, *, forked: bool) -> None:
        """Reject a checkpoint file of the log before a fork that was run on another machine."""
        origin = note.partition("\n")[0][:60]
        if forked and origin != self._key.name:
            raise HistoryInDoubt(
                f"the checkpoint file ({self._path}) belongs to {origin}, but the log was forked"
                f" and is now {self._key.name}: move the file away, and restart this server"
            )

    def _verified_checkpoint(self, connection: Connection, note: str, place: str) -> Checkpoint:
        last = self._open_note(note, place)
        size = size_of(connection)
        if size < last.size:
            raise HistoryInDoubt(
                f"the log has {size} entries, but {last.size} were signed: entry {size} and all"
                " after it are missing; if this is an interrupted copy, run keyledger copy again;"
                f" {_REMEDY}"
            )
        found = root_at(connection, last.size)
        if found != last.root:
            raise HistoryInDoubt(f"{self._describe_difference(connection, note, found)}; {_REMEDY}")
        return last

    def _open_note(self, note: str, place: str) -> Checkpoint:
        try:
            return open_checkpoint(note, [self._key.verifier_key])
        except ValueError as error:
            raise HistoryInDoubt(
                f"the last checkpoint {place} was not signed by the key of {self._key.name}"
                f" ({error}): restore the matching key or file, or {_FORK}"
            ) from error

    def _describe_difference(self, connection: Connection, note: str, found: bytes | None) -> str:
        """Say between which checkpoints the log was changed."""
        # Cached, because each comparison asks for it and a large file takes long to search.
        if self._difference is None or self._difference[:2] != (note, found):
            self._difference = note, found, describe_difference(connection, self._path)
        return self._difference[2]

    def _last_note(self) -> str | None:
        try:
            return last_note_in(self._path)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise HistoryInDoubt(
                "the checkpoint file cannot be read, so the log cannot be compared with its"
                f" checkpoints: {why}; make the file readable"
            ) from error
