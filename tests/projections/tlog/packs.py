"""Valid and forged audit packs."""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any
from zipfile import ZipFile
from zlib import crc32

from benchmarks.made_history import MadeHistory
from domain.public_event import entry_of
from projections.tlog.audit_pack import write_pack
from projections.tlog.checkpoint import Checkpoint, sign_checkpoint
from projections.tlog.merkle import CompactRange
from projections.tlog.notes import SigningKey
from projections.tlog.offline_verifier import Member, Report, directory, verify_pack

KEY = SigningKey("ledger.example/audit", bytes(range(32)))
PUBLIC_KEY = str(KEY.verifier_key)
ANOTHER_KEY = SigningKey(KEY.name, bytes(range(1, 33)))

FIRST_KEY = "apikey_00000000-0000-4000-8000-000000000001"
SECOND_KEY = "apikey_00000000-0000-4000-8000-000000000002"


def made_entries(count: int) -> list[bytes]:
    """Entries of a made history, cut where no rotation is half recorded."""
    entries = [entry_of(event) for event in islice(MadeHistory().events(), count)]
    while b'"rotated_from":"' in entries[-1]:
        entries.pop()
    return entries


def checkpoint_notes(
    entries: Sequence[bytes], sizes: Iterable[int], *, key: SigningKey = KEY
) -> list[str]:
    """The notes that a ledger signs as it reaches these sizes."""
    growth = CompactRange(0, lambda _nodes: [])
    notes = []
    for size in sizes:
        for entry in entries[growth.size : size]:
            growth.append(entry)
        notes.append(sign_checkpoint(Checkpoint(key.name, growth.size, growth.root()), key))
    return notes


def a_pack(
    place: Path,
    entries: Sequence[bytes],
    *,
    sizes: Iterable[int] = (),
    key: SigningKey = KEY,
    reports: Mapping[str, Iterable[bytes]] | None = None,
) -> Path:
    """A pack as the ledger writes it, with checkpoints at these sizes and at the end."""
    pack = place / "pack.zip"
    with pack.open("wb") as target:
        write_pack(
            target,
            entries=entries,
            checkpoints=checkpoint_notes(entries, [*sizes, len(entries)], key=key),
            key=key,
            reports=reports or {},
        )
    return pack


def contents_of(pack: Path) -> dict[str, bytes]:
    with ZipFile(pack) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def repacked(pack: Path, contents: Iterable[tuple[str, bytes]], *, crc_off_by: int = 0) -> Path:
    """A pack of these members, in the right form, written by who has no key."""
    members = []
    written = b""
    for name, content in contents:
        member = Member(name, crc32(content) ^ crc_off_by, len(content))
        members.append(member)
        written += member.header() + content
    pack.write_bytes(written + directory(members))
    return pack


def forged(pack: Path, **contents: bytes) -> Path:
    """The pack with other contents of some members.

    The names are those of the members without their ends: ``entries=...``.
    """
    everything = contents_of(pack)
    for short, content in contents.items():
        (name,) = [name for name in everything if name.partition(".")[0] == short]
        everything[name] = content
    return repacked(pack, everything.items())


def checked(pack: Path, *, public_key: str = PUBLIC_KEY, previous: str | None = None) -> Report:
    return verify_pack(pack, public_key=public_key, previous=previous)


def findings_of(report: Report) -> list[tuple[str, str]]:
    """What a report says is wrong, and where."""
    return [(finding.where, finding.wrong) for finding in report.findings]


def a_line(
    event_type: str,
    version: int,
    *,
    key_id: str = FIRST_KEY,
    at: str = "2026-03-03T12:00:00.000000Z",
    **data: Any,  # noqa: ANN401 - whatever the event says
) -> bytes:
    """A line as the ledger writes it, of an event that it need not have allowed."""
    event = {
        "type": f"ApiKey.{event_type}",
        "key_id": key_id,
        "version": version,
        "occurred_at": at,
        "actor": {"type": "cli", "id": "ada"},
        "request_id": None,
        "source_ip": None,
        "data": data,
    }
    return json.dumps(event, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def a_creation(
    *,
    key_id: str = FIRST_KEY,
    version: int = 1,
    **changed: Any,  # noqa: ANN401
) -> bytes:
    data: dict[str, Any] = {
        "workspace": "default",
        "name": "payments-api",
        "token_prefix": "key",
        "lookup_id": "0123456789ABCDEF",
        "verifier_sha256": "ab" * 32,
        "scopes": ["mcp:read"],
        "role": "Member",
        "expires_at": None,
        "rotated_from": None,
        "request_sha256": None,
    }
    return a_line("Created", version, key_id=key_id, **data | changed)


def a_fork(
    origin: str = KEY.name,
    *,
    version: int = 1,
    at: str = "2026-03-03T12:00:00.000000Z",
    **changed: Any,  # noqa: ANN401 - as above
) -> bytes:
    """A line that says that the log goes on under this name."""
    data: dict[str, Any] = {
        "reason": "the disk was lost",
        "origin": origin,
        "previous_origin": "ledger.example/before",
        "previous_size": 7,
        "previous_root": "ab" * 32,
    }
    event = json.loads(a_line("Renamed", version, at=at, **data | changed))
    event |= {"type": "AuditLog.Forked", "key_id": None}
    return json.dumps(event, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
