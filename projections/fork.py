"""Going on with a log that is not the one that was signed, for all to see.

The log gets another name and another key, and an event that says so, with the last checkpoint that
was signed under the old name. Whoever holds a checkpoint of the old log can tell from it where the
two part; nobody can take the new log for the old one.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from time import sleep
from uuid import UUID

from eventsourcing.persistence import StoredEvent

from domain.audit_log import Forked
from domain.caller import Caller
from domain.errors import Invalid, LedgerUnavailable
from domain.stored_form import EventTranscoder
from domain.tokens import RandomSource
from projections.checkpoint import Checkpoint
from projections.checkpoint_file import last_note_in, put_aside
from projections.checkpoints import latest_note
from projections.database import Database
from projections.exclusive import exclusively
from projections.merkle import EMPTY_ROOT
from projections.private_file import make_private_file, sync_folder
from projections.recorder import LedgerRecorder
from projections.signed_note import SigningKey
from projections.signer import Signer
from projections.signing_key_file import new_signing_key
from projections.view import View

MAX_REASON_LENGTH = 1000
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
    """Begin a new log with all that the database has; killed anywhere, it can be called again.

    Args:
        signer: of the old log; afterwards it signs for the new one.
        key_path: the signing key's file. The old key stays beside it, under its key id, and so
            does the file of the old checkpoints.
        random: where the new key comes from.
        reason: why, for everybody who will ever read the log.

    Returns:
        The event that says so; the first checkpoint of the new log comes after it.

    Raises:
        Invalid: the reason is empty or too long.
        LedgerUnavailable: the database or a file cannot be written, or somebody is signing all the
            time.
    """
    if not reason.strip() or len(reason) > MAX_REASON_LENGTH:
        raise Invalid("reason", f"say why, in 1 to {MAX_REASON_LENGTH} characters")
    for _ in range(_ATTEMPTS):
        with exclusively(database, "signing") as alone:
            if alone:
                try:
                    return _fork(database, views, signer, key_path, random, reason, by, at)
                except OSError as error:
                    raise LedgerUnavailable(f"cannot write a file: {error}") from error
        sleep(_PAUSE_SECONDS)
    raise LedgerUnavailable("a server is signing checkpoints; stop it, and try again")


def _fork(  # noqa: PLR0917 - the same as above
    database: Database,
    views: Sequence[View],
    signer: Signer,
    key_path: Path,
    random: RandomSource,
    reason: str,
    by: Caller,
    at: datetime,
) -> Forked:
    old_id = signer.key.verifier_key.key_id.hex()
    new_path = key_path.with_name(f"{key_path.name}.new")
    make_private_file(new_path, f"{new_signing_key(random).reveal()}\n".encode())
    key = SigningKey.from_text(new_path.read_text("utf-8").strip())
    last = _last(database, signer)
    forked = Forked(
        originator_id=UUID(bytes=random(16), version=4),
        originator_version=1,
        timestamp=at,
        actor=by.actor.as_json(),
        request_id=by.request_id,
        source_ip=by.source_ip,
        reason=reason,
        origin=key.name,
        previous_origin=last.origin,
        previous_size=last.size,
        previous_root=last.root.hex(),
    )
    LedgerRecorder(database, views).insert_events([_stored(forked)])
    put_aside(signer.path, old_id)
    key_path.rename(key_path.with_name(f"{key_path.name}.{old_id}"))
    new_path.rename(key_path)
    sync_folder(key_path.parent)
    signer.adopt(key)
    return forked


def _last(database: Database, signer: Signer) -> Checkpoint:
    """Return the last checkpoint there is, whoever signed it: what it says is only repeated."""
    note = last_note_in(signer.path)
    if note is None:
        with database.read() as connection:
            note = latest_note(connection)
    if note is None:
        return Checkpoint(signer.key.name, 0, EMPTY_ROOT)
    return Checkpoint.from_text(f"{note.partition(chr(10) * 2)[0]}\n")


def _stored(forked: Forked) -> StoredEvent:
    state = dict(vars(forked))
    return StoredEvent(
        originator_id=state.pop("originator_id"),
        originator_version=state.pop("originator_version"),
        topic=forked.TOPIC,
        state=EventTranscoder().encode(state),
    )
