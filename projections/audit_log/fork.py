"""Start a new log after the signed one was lost, visibly for everybody.

The log gets another name and another key, and an event that records this with the last checkpoint
that was signed under the old name. With a checkpoint of the old log one can find out where the two
differ; nobody can mistake the new log for the old one. This is also how to change the key if
someone else may have got the old one.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from time import sleep

from eventsourcing.persistence import PersistenceError, StoredEvent

from domain.audit_log import Forked, fork_uuid
from domain.caller import Caller
from domain.errors import Invalid, LedgerUnavailable, PoisonEvent, ProjectionInconsistent
from domain.names import checked_reason
from domain.serialization import EventTranscoder
from domain.tokens import RandomSource
from projections.audit_log.checkpoint_file import last_note_in, set_aside
from projections.audit_log.checkpoint_table import latest_note
from projections.audit_log.signer import Signer
from projections.audit_log.signing_key_file import read_or_make_signing_key
from projections.recorder import LedgerRecorder
from projections.store.database import Database
from projections.store.locks import task_lock
from projections.store.private_files import sync_folder
from projections.tlog.checkpoint import Checkpoint
from projections.tlog.merkle import EMPTY_ROOT
from projections.tlog.notes import SigningKey, text_of
from projections.views.entries import last_fork
from projections.views.view import View

_ATTEMPTS = 50
_PAUSE_SECONDS = 0.1


def fork(
    database: Database,
    views: Sequence[View],
    signer: Signer,
    *,
    key_path: Path,
    random: RandomSource,
    reason: str,
    by: Caller,
    at: datetime,
) -> Forked:
    """Start a new log with all events of the database; can be run again if it was interrupted.

    Args:
        signer: signer of the old log; afterwards it signs for the new one.
        key_path: file of the signing key. The old key stays beside it, and the old checkpoints
            beside their file, both with the suffix ``before-`` and the id of the new key.
        random: source of the new key.
        reason: why, for everybody who reads the log later.

    Returns:
        The event that records the fork; the first checkpoint of the new log covers it.

    Raises:
        Invalid: the reason is empty, too long, or has characters that cannot be shown.
        LedgerUnavailable: the database or a file cannot be written, or another process holds the
            signing lock for too long.
    """
    why = checked_reason(reason)
    if why is None:
        raise Invalid("reason", "give the reason for the fork")
    new_path = key_path.with_name(f"{key_path.name}.new")
    with _signing_lock(database):
        key = read_or_make_signing_key(new_path, random, owner=database.owner)
        forked = _interrupted_fork(database, key)
        if forked is None:
            last = _last_checkpoint(database, signer)
            forked = Forked(
                originator_id=fork_uuid(key.name),
                originator_version=1,
                timestamp=at,
                actor=by.actor.as_json(),
                request_id=by.request_id,
                source_ip=by.source_ip,
                reason=why,
                origin=key.name,
                previous_origin=last.origin,
                previous_size=last.size,
                previous_root=last.root.hex(),
            )
            LedgerRecorder(database, views).insert_events([_stored_event(forked)])
        # Named by the id of the new key, which is unique: files of an earlier fork are kept.
        aside = f"before-{key.verifier_key.key_id.hex()}"
        set_aside(signer.path, aside)
        with suppress(FileExistsError):
            key_path.with_name(f"{key_path.name}.{aside}").hardlink_to(key_path)
        new_path.replace(key_path)
        sync_folder(key_path.parent)
        signer.use_key(key)
    return forked


@contextmanager
def _signing_lock(database: Database) -> Iterator[None]:
    """Wait for the signing lock and hold it; turn write errors into `LedgerUnavailable`."""
    for _ in range(_ATTEMPTS):
        try:
            with task_lock(database, "signing") as alone:
                if alone:
                    yield
                    return
        except (OSError, PersistenceError) as error:
            raise LedgerUnavailable(f"cannot record the fork: {error}") from error
        sleep(_PAUSE_SECONDS)
    raise LedgerUnavailable("a server is signing checkpoints: stop it, and try again")


def _interrupted_fork(database: Database, key: SigningKey) -> Forked | None:
    """Return the event of a fork to this key that was interrupted after the event was stored."""
    # If the events do not have it, this is not the history in which the fork was begun.
    with suppress(PoisonEvent, ProjectionInconsistent), database.read() as connection:
        forked = last_fork(connection)
        if forked is not None and forked.origin == key.name:
            return forked
    return None


def _last_checkpoint(database: Database, signer: Signer) -> Checkpoint:
    """Return the last checkpoint without verifying it: the event only quotes it."""
    # An unreadable file is set aside with the others.
    with suppress(ValueError):
        return Checkpoint.from_text(text_of(last_note_in(signer.path) or ""))
    with suppress(ValueError), database.read() as connection:
        return Checkpoint.from_text(text_of(latest_note(connection) or ""))
    return Checkpoint(signer.key.name, 0, EMPTY_ROOT)


def _stored_event(forked: Forked) -> StoredEvent:
    state = dict(vars(forked))
    return StoredEvent(
        originator_id=state.pop("originator_id"),
        originator_version=state.pop("originator_version"),
        topic=forked.TOPIC,
        state=EventTranscoder().encode(state),
    )
