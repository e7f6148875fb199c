"""Checkpoints of a ledger, verified with the auditors' verifier."""

from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from projections.audit_log.checkpoint_file import notes_in
from projections.tlog.notes import SigningKey
from projections.tlog.offline_verifier import PublicKey, open_checkpoint
from tests.engines import address_of
from tests.raw_sql import sql


class Said(NamedTuple):
    """A checkpoint and its note."""

    size: int
    root: bytes
    note: str


def entries_of(data_dir: Path) -> list[bytes]:
    rows = sql(address_of(data_dir), "SELECT entry FROM entries ORDER BY leaf_index")
    return [entry for (entry,) in rows]


def tree_hash(entries: list[bytes]) -> bytes:
    """The root as RFC 9162 defines it, in section 2.1.1."""
    if not entries:
        return sha256().digest()
    if len(entries) == 1:
        return sha256(b"\x00" + entries[0]).digest()
    split = 1 << (len(entries) - 1).bit_length() - 1
    return sha256(b"\x01" + tree_hash(entries[:split]) + tree_hash(entries[split:])).digest()


def signing_key(data_dir: Path) -> SigningKey:
    return SigningKey.from_text((data_dir / "signing-key").read_text().strip())


def said_in_file(data_dir: Path, file: Path | None = None) -> list[Said]:
    """Return the checkpoints in the file outside the database, oldest first."""
    return _opened(data_dir, list(notes_in(file or data_dir / "checkpoints.txt")))


def said_in_table(data_dir: Path) -> list[Said]:
    """Return the checkpoints in the database under the current name, smallest first."""
    rows = sql(
        address_of(data_dir),
        "SELECT note FROM checkpoints WHERE origin = ? ORDER BY size",
        signing_key(data_dir).name,
    )
    return _opened(data_dir, [note for (note,) in rows])


def check_what_was_signed(data_dir: Path) -> list[Said]:
    """Verify all checkpoints against the entries and each other; return those of the file."""
    # Another process may be signing, so read what is written last first.
    in_table, in_file = said_in_table(data_dir), said_in_file(data_dir)
    entries = entries_of(data_dir)
    sizes = [said.size for said in in_file]
    assert sizes == sorted(set(sizes)), "each says more than the one before"
    for said in in_file:
        assert said.size <= len(entries), "nothing is signed that is not committed"
        assert said.root == tree_hash(entries[: said.size]), said.size
    assert set(in_table) <= set(in_file), "the file outside has all there are"
    return in_file


def _opened(data_dir: Path, notes: list[str]) -> list[Said]:
    key = PublicKey(str(signing_key(data_dir).verifier_key))
    opened = [open_checkpoint(note.encode(), key) for note in notes]
    return [Said(each.size, each.root, note) for each, note in zip(opened, notes, strict=True)]
