"""Ledgers that older versions of the program made."""

from pathlib import Path
from secrets import token_bytes
from uuid import UUID

from domain.public_event import entry_of
from projections.audit_log.checkpoint_file import append_note
from projections.audit_log.signing_key_file import read_or_make_signing_key
from projections.store.events import decode
from projections.tlog.checkpoint import Checkpoint, sign_checkpoint
from projections.tlog.merkle import CompactRange
from tests.engines import file_address
from tests.raw_sql import sql


def sign_all_events(database: Path, data_dir: Path) -> None:
    """Sign a checkpoint over all events of an SQLite file into the file of checkpoints."""
    key = read_or_make_signing_key(data_dir / "signing-key", token_bytes)
    growth = CompactRange(0, lambda _nodes: [])
    statement = "SELECT id, topic, originator_id, originator_version, state FROM events ORDER BY id"
    for position, topic, uuid, version, state in sql(file_address(database), statement):
        growth.append(entry_of(decode(position, topic, UUID(bytes=uuid), version, state)))
    checkpoint = Checkpoint(key.name, growth.size, growth.root())
    append_note(data_dir / "checkpoints.txt", sign_checkpoint(checkpoint, key))
