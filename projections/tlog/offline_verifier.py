"""Verify an audit pack of Keyledger with nothing but a public key.

Usage: ``python offline_verifier.py pack.zip --public-key KEY [--previous KEPT-CHECKPOINT]``

This file needs Python 3.11 or newer and the package ``cryptography``; it needs nothing else of
Keyledger, no database and no network. A pack is a ZIP file with these members, in this order:

- ``entries.jsonl``: the whole history, one event on each line, oldest first;
- ``checkpoints.txt``: the signed checkpoints, oldest first;
- ``public-key.txt``: the public key that verifies them, for comparison only;
- ``HOW-TO-CHECK.md`` and ``offline_verifier.py``: instructions, and a copy of this file;
- ``reports/...``: tables computed from the entries, if there are any;
- ``manifest.txt``: the SHA-256 of each of these files, signed.

The sections below check, in this order:

1. Notes: every signature is verified with the key that *you* name, never with the one in the pack.
2. The pack: every byte of the file is determined by its members (no gaps, no variants).
3. Entries: every line is an event of the ledger in canonical JSON (RFC 8785).
4. Keys: the events of each key follow the ledger's rules: versions count from 1 without gaps, the
   creation comes first, nothing follows a revocation, and so on. A fork, which starts a new log
   after the signed one was lost, is allowed and reported.
5. The tree: the entries have the roots of all the checkpoints (RFC 9162, section 2.1). So no entry
   was changed, removed, added or moved after a checkpoint that covers it was signed.
6. A checkpoint that you kept (``--previous``): the history up to it is still the same. Without one,
   a history that the ledger's owner rewrote and signed again cannot be recognized.

Only the manifest covers reports: they are as the ledger wrote them. The entries show whether they
are true.
"""

import argparse
import json
import re
import struct
import sys
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MAX_FINDINGS = 100
"""Further findings are counted and not listed."""

ASK_AGAIN = (
    "get the pack again from its source; if it is the same there, do not rely on anything in it and"
    " keep it as evidence"
)
CHECK_KEY = (
    "check that the public key you gave is the ledger's, with a source other than this pack; if it"
    " is, the pack is forged"
)
REWRITTEN = (
    "keep this pack and your checkpoint: together they prove that the ledger's history was changed;"
    " ask its owner for `keyledger audit fork` entries and for the earlier database"
)
BROKEN_RULE = (
    "the ledger never does this, so a faulty version or another program wrote the entry; ask the"
    " ledger's owner about it"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem in a pack.

    Args:
        where: the entry, the checkpoint or the member of the pack.
        wrong: what is wrong.
        remedy: what to do about it.
        leaf_index: index of the entry, counted from 0, if the finding is about one.
    """

    where: str
    wrong: str
    remedy: str
    leaf_index: int | None = None

    def __str__(self) -> str:
        """Return the finding as one line of text."""
        return f"{self.where}: {self.wrong}; {self.remedy}"


@dataclass(slots=True)
class Report:
    """The result of verifying a pack; the pack is valid if there are no findings."""

    origin: str
    entries: int = 0
    keys: int = 0
    checkpoints: int = 0
    root: bytes = b""
    forks: dict[str, int] = field(default_factory=dict)
    """Names that forks gave to the log, oldest first, each with the leaf index of the fork."""
    findings: list[Finding] = field(default_factory=list)
    not_listed: int = 0

    def add(self, where: str, wrong: str, remedy: str, leaf_index: int | None = None) -> None:
        """Add a finding; beyond `MAX_FINDINGS`, only count it."""
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(where, wrong, remedy, leaf_index))
        else:
            self.not_listed += 1

    def add_entry(self, leaf_index: int, wrong: str, remedy: str) -> None:
        """Add a finding about one entry."""
        self.add(f"entry {leaf_index} (line {leaf_index + 1})", wrong, remedy, leaf_index)


# ------------------------------------------------------------------------------------------------
# 1. Notes: texts with signatures (C2SP signed-note) by Ed25519 keys (RFC 8032)
# ------------------------------------------------------------------------------------------------

_KEY = re.compile(r"([^+\s]+)\+([0-9a-f]{8})\+([0-9A-Za-z+/]+=*)")
_SIGNATURE = re.compile(r"— ([^+\s]+) ([0-9A-Za-z+/]+=*)")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_MAX_NOTE_LINES = 200


class PublicKey:
    """The ledger's public key; its name is the ledger's ``origin``, and ``text`` is its line."""

    def __init__(self, text: str) -> None:
        """Parse the line that the ledger's owner published: ``NAME+KEYID+BASE64``.

        Raises:
            ValueError: the line is malformed, or its parts contradict each other.
        """
        match = _KEY.fullmatch(text)
        if match is None:
            message = "a public key is one line of the form NAME+KEYID+BASE64"
            raise ValueError(message)
        self.text = text
        self.origin, key_id, encoded = match.groups()
        # The first byte is the type of the key; 1 is Ed25519, whose public keys have 32 bytes.
        typed_key = decoded(encoded)
        self.key_id = sha256(f"{self.origin}\n".encode() + typed_key).digest()[:4]
        if typed_key[:1] != b"\x01" or len(typed_key) != 1 + 32 or self.key_id.hex() != key_id:
            message = "the public key has a typing error: its parts do not match"
            raise ValueError(message)
        self._key = Ed25519PublicKey.from_public_bytes(typed_key[1:])

    def open(self, note: bytes) -> str:
        """Return the text of a note that this key signed; signatures by other keys are ignored.

        Raises:
            ValueError: it is not a note, or this key did not sign it.
        """
        content = utf_8(note)
        text, blank_line, signatures = content.rpartition("\n\n")
        if not blank_line or not signatures.endswith("\n") or _CONTROL.search(content):
            message = "it is not a note: a text, an empty line, and signatures"
            raise ValueError(message)
        text += "\n"
        signed = False
        for line in signatures[:-1].split("\n"):
            match = _SIGNATURE.fullmatch(line)
            if match is None:
                message = f"not a signature line: {line[:100]!r}"
                raise ValueError(message)
            signature = decoded(match[2])
            if (match[1], signature[:4]) == (self.origin, self.key_id):
                self._verify(signature[4:], text)
                signed = True
        if not signed:
            message = "it is not signed with the public key that you gave"
            raise ValueError(message)
        return text

    def _verify(self, signature: bytes, text: str) -> None:
        try:
            self._key.verify(signature, text.encode())
        except InvalidSignature:
            message = "its signature is invalid: the text was changed after it was signed"
            raise ValueError(message) from None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Size and root of the log when the ledger signed it (C2SP tlog-checkpoint)."""

    size: int
    root: bytes


def open_checkpoint(note: bytes, key: PublicKey) -> Checkpoint:
    """Return the checkpoint in a note.

    Raises:
        ValueError: it is not a checkpoint that the ledger signed with this key.
    """
    lines = key.open(note).split("\n")[:-1]
    if len(lines) < 3 or not all(lines) or not _SIZE.fullmatch(lines[1]):  # noqa: PLR2004
        message = "it is not a checkpoint: origin, size and root, on one line each"
        raise ValueError(message)
    if lines[0] != key.origin:
        message = f"it belongs to another ledger, {lines[0]}"
        raise ValueError(message)
    root = decoded(lines[2])
    if len(root) != 32:  # noqa: PLR2004 - SHA-256
        message = f"its root has {len(root)} bytes, not 32"
        raise ValueError(message)
    return Checkpoint(int(lines[1]), root)


def notes_in(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Split a file of notes; an empty line separates two notes, and each note contains one itself.

    Raises:
        ValueError: a note is too long.
    """
    note: list[bytes] = []
    for line in lines:
        if not line and b"" in note:
            yield b"\n".join([*note, b""])
            note = []
        else:
            note.append(line)
            if len(note) > _MAX_NOTE_LINES:
                message = f"a note has more than {_MAX_NOTE_LINES} lines"
                raise ValueError(message)
    yield b"\n".join([*note, b""])


def utf_8(content: bytes) -> str:
    """Decode UTF-8.

    Raises:
        ValueError: the content is not valid UTF-8.
    """
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        message = f"it is not valid UTF-8: byte {error.start} is {content[error.start]:#04x}"
        raise ValueError(message) from None


def decoded(text: str) -> bytes:
    """Decode base64; accept only the canonical encoding (RFC 4648, section 4).

    Raises:
        ValueError: the text is not base64, or not canonical.
    """
    try:
        value = b64decode(text, validate=True)
    except NotBase64:
        value = b""
    if b64encode(value).decode() != text:
        message = f"not base64: {text[:100]!r}"
        raise ValueError(message)
    return value


# ------------------------------------------------------------------------------------------------
# 2. The pack: a ZIP file whose bytes are determined by the names and contents of its members
#
# Members are stored without compression, one right after the other, in ZIP64 form whatever their
# size, all with the time 1980-01-01 and the same permissions. So the headers can be computed from
# names and contents, and must be equal. (PKWARE's APPNOTE.TXT, sections 4.3 and 4.5.)
# ------------------------------------------------------------------------------------------------

FIXED_NAMES = (
    "entries.jsonl",
    "checkpoints.txt",
    "public-key.txt",
    "HOW-TO-CHECK.md",
    "offline_verifier.py",
)
REPORT_NAME = re.compile(r"reports/[a-z0-9][a-z0-9._-]{0,99}", re.ASCII)
MANIFEST = "manifest.txt"
MAX_MEMBERS = 1000

_ZIP64 = 45  # the version of the ZIP specification with ZIP64
_UNIX = 3 << 8
_MIDNIGHT, _FIRST_DAY = 0, 1 << 5 | 1
_RIGHTS = 0o100644 << 16
_IN_EXTRA = 0xFFFFFFFF
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_CENTRAL_EXTRA = struct.Struct("<2H3Q")
_END_RECORD = struct.Struct("<4s4H2IH")
_LONGEST_COMMENT = 0xFFFF
_TAIL = 56 + 20 + 22
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Member:
    """A file in the pack; ``crc`` is the CRC-32 of its content."""

    name: str
    crc: int
    size: int

    def header(self) -> bytes:
        """Return the bytes before the content."""
        name = self.name.encode()
        return (
            struct.pack(
                "<4s5H3I2H",
                *(b"PK\x03\x04", _ZIP64, 0, 0, _MIDNIGHT, _FIRST_DAY),
                *(self.crc, _IN_EXTRA, _IN_EXTRA, len(name), 20),
            )
            + name
            + struct.pack("<2H2Q", 1, 16, self.size, self.size)
        )


def directory(members: Sequence[Member]) -> bytes:
    """Return the bytes after the last content, up to the end of the file."""
    offset = 0
    entries = []
    for member in members:
        name = member.name.encode()
        fixed = _CENTRAL.pack(
            *(b"PK\x01\x02", _UNIX | _ZIP64, _ZIP64, 0, 0, _MIDNIGHT, _FIRST_DAY),
            *(member.crc, _IN_EXTRA, _IN_EXTRA, len(name), _CENTRAL_EXTRA.size),
            *(0, 0, 0, _RIGHTS, _IN_EXTRA),
        )
        entries.append(fixed + name + _CENTRAL_EXTRA.pack(1, 24, member.size, member.size, offset))
        offset += len(member.header()) + member.size
    listed = b"".join(entries)
    count, end = len(members), offset + len(listed)
    return (
        listed
        + struct.pack("<4sQ2H2I", b"PK\x06\x06", 44, _UNIX | _ZIP64, _ZIP64, 0, 0)
        + struct.pack("<4Q", count, count, len(listed), offset)
        + struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
        + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, _IN_EXTRA, _IN_EXTRA, 0)
    )


def manifest_text(origin: str, size: int, root: bytes, digests: Iterable[tuple[str, str]]) -> str:
    """Return the text of the manifest, which is signed as a note.

    Its second line differs from that of every checkpoint, so neither can be taken for the other.

    Args:
        origin: name of the ledger.
        size, root: size and root of the tree over its entries.
        digests: name and SHA-256 in hex of all other members, in their order.
    """
    listed = "".join(f"{digest}  {name}\n" for name, digest in digests)
    head = (
        f"Keyledger audit pack 1\norigin {origin}\nsize {size}\nroot {b64encode(root).decode()}\n"
    )
    return head + listed


class _Content:
    """Read a member once, in chunks, and compute its SHA-256 and CRC-32."""

    def __init__(self, file: BinaryIO, member: Member, offset: int) -> None:
        self.name = member.name
        self.crc = 0
        self._file = file
        self._sha = sha256()
        self._next, self._end = offset, offset + member.size

    def chunks(self) -> Iterator[bytes]:
        while self._next < self._end:
            # Another member may have been read since.
            self._file.seek(self._next)
            chunk = self._file.read(min(_CHUNK, self._end - self._next))
            if not chunk:  # the file was truncated while it was read
                return
            self._next += len(chunk)
            self._sha.update(chunk)
            self.crc = crc32(chunk, self.crc)
            yield chunk

    def lines(self, longest: int) -> Iterator[list[bytes]]:
        """Yield the lines without their ends, many at a time.

        Raises:
            ValueError: a line is much longer than ``longest`` bytes, or the last has no end.
        """
        rest = b""
        for chunk in self.chunks():
            *lines, rest = (rest + chunk).split(b"\n")
            yield lines
            if len(rest) > longest:
                message = f"a line is longer than {longest} bytes"
                raise ValueError(message)
        if rest:
            message = "the last line has no end: the file was truncated"
            raise ValueError(message)

    def digest(self) -> str:
        """Return the SHA-256 of the whole content, and read what was not read yet."""
        for _ in self.chunks():
            pass
        return self._sha.hexdigest()


def _members_of(file: BinaryIO) -> list[Member]:
    """Read the directory of a pack, and verify every byte outside the contents.

    Raises:
        ValueError: a byte is not as the format requires.
    """
    length = file.seek(0, 2)
    cut = f"it is truncated: it has {length} bytes"
    if _is_another_archive(file, length):
        message = (
            "it is a complete ZIP archive, but not in the form of a pack: another program packed"
            " its files again. They may be right: unpack it and follow HOW-TO-CHECK.md, or ask for"
            " the file that the ledger wrote"
        )
        raise ValueError(message)
    if length < _TAIL:
        raise ValueError(cut)
    file.seek(length - _TAIL)
    magic, listed, start = struct.unpack("<4s36x2Q", file.read(56))
    if magic != b"PK\x06\x06" or start + listed + _TAIL != length:
        raise ValueError(cut + ", and has no directory where a pack has it")
    if listed > MAX_MEMBERS * 300:
        message = f"it has more than {MAX_MEMBERS} members"
        raise ValueError(message)
    file.seek(start)
    tail = file.read()
    members = _listed_members(tail[:listed])
    if any(member.size > length for member in members) or directory(members) != tail:
        message = "its directory is not in the form of a pack's"
        raise ValueError(message)
    offset = 0
    for member in members:
        header = member.header()
        file.seek(offset)
        if file.read(len(header)) != header:
            message = f"the header of {member.name} differs from the directory"
            raise ValueError(message)
        offset += len(header) + member.size
    names = [member.name for member in members]
    reports = names[len(FIXED_NAMES) : -1]
    if names != [*FIXED_NAMES, *sorted(set(reports)), MANIFEST] or not all(
        REPORT_NAME.fullmatch(name) for name in reports
    ):
        message = f"it does not have the members of a pack, but: {', '.join(names)[:1000]}"
        raise ValueError(message)
    return members


def _is_another_archive(file: BinaryIO, length: int) -> bool:
    """Return whether a file is a complete ZIP archive but not a pack.

    An archive's end record has the lengths of its directory and comment (APPNOTE.TXT, 4.3.16). A
    pack is always ZIP64, and has them elsewhere.
    """
    file.seek(max(0, length - _END_RECORD.size - _LONGEST_COMMENT))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END_RECORD.size:
        return False
    _, *_, listed, start, comment = _END_RECORD.unpack_from(tail, at)
    is_whole = len(tail) - at - _END_RECORD.size == comment
    return bool(is_whole and 0 < start + listed <= length and start != _IN_EXTRA)


def _listed_members(listed: bytes) -> list[Member]:
    members = []
    at = 0
    while at < len(listed):
        fixed = listed[at : at + _CENTRAL.size].ljust(_CENTRAL.size, b"\0")
        *_, crc, _, _, name_length, _, _, _, _, _, _ = _CENTRAL.unpack(fixed)
        at += _CENTRAL.size
        name = listed[at : at + name_length].decode("ascii")
        at += name_length
        extra = listed[at : at + _CENTRAL_EXTRA.size].ljust(_CENTRAL_EXTRA.size, b"\0")
        members.append(Member(name, crc, _CENTRAL_EXTRA.unpack(extra)[2]))
        at += _CENTRAL_EXTRA.size
    return members


# ------------------------------------------------------------------------------------------------
# 3. Entries: one pattern for each type of event
#
# A pattern fixes the fields and their form: RFC 8785 sorts names, allows nothing between the parts,
# and has exactly these escapes. So no entry can be written in two ways.
# ------------------------------------------------------------------------------------------------

MAX_ENTRY_LENGTH = 65_535

_PLAIN = r'[^"\\\x00-\x1f]*+'
_TEXT = rf'"{_PLAIN}(?:\\(?:["\\bfnrt]|u00(?:0[0-7bef]|1[0-9a-f])){_PLAIN})*+"'
_TIME = r"[0-9]{4}-[0-9][0-9]-[0-9][0-9]T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{6}Z"
_KEY_ID = r"apikey_[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_SHA_256 = r'"[0-9a-f]{64}"'
_SCOPES = rf"\[{_TEXT}(?:,{_TEXT})*\]"
_END = rf'"(?P<expires_at>{_TIME})"'

_SIZE_IN_JSON = r"(?:0|[1-9][0-9]{0,15})"
_FORKED = "AuditLog.Forked"
_RESEALED = "AuditLog.Resealed"
_HEX_16 = r'"[0-9a-f]{16}"'

DATA = {
    _FORKED: {
        "origin": rf"(?P<origin>{_TEXT})",
        "previous_origin": _TEXT,
        "previous_root": _SHA_256,
        "previous_size": _SIZE_IN_JSON,
        "reason": _TEXT,
    },
    _RESEALED: {
        "events": _SIZE_IN_JSON,
        "previous_secret_id": rf"(?:null|{_HEX_16})",
        "reason": _TEXT,
        "secret_id": _HEX_16,
    },
    "ApiKey.Created": {
        "expires_at": rf"(?:null|{_END})",
        "lookup_id": _TEXT,
        "name": _TEXT,
        "request_sha256": rf"(?:null|{_SHA_256})",
        "role": _TEXT,
        "rotated_from": rf'(?:null|"(?P<rotated_from>{_KEY_ID})")',
        "scopes": _SCOPES,
        "token_prefix": _TEXT,
        "verifier_sha256": _SHA_256,
        "workspace": _TEXT,
    },
    "ApiKey.Revoked": {"comment": rf"(?:null|{_TEXT})", "reason": rf"(?:null|{_TEXT})"},
    "ApiKey.Expired": {},
    "ApiKey.Rotated": {"expires_at": _END, "successor_id": rf'"(?P<successor_id>{_KEY_ID})"'},
    "ApiKey.ExpirationChanged": {"expires_at": rf"(?:null|{_END})"},
    "ApiKey.Renamed": {"name": _TEXT},
    "ApiKey.ScopesChanged": {"scopes": _SCOPES},
}


def _pattern(event_type: str, data: dict[str, str]) -> re.Pattern[str]:
    own = ",".join(f'"{name}":{value}' for name, value in sorted(data.items()))
    # Forks and sealings concern the whole ledger, so they have no key.
    key_id = "null" if event_type in {_FORKED, _RESEALED} else f'"(?P<key_id>{_KEY_ID})"'
    return re.compile(
        rf'\{{"actor":\{{"id":{_TEXT},"type":"(?:cli|key|system)"\}},"data":\{{{own}\}},'
        rf'"key_id":{key_id},"occurred_at":"(?P<occurred_at>{_TIME})",'
        rf'"request_id":(?:null|{_TEXT}),"source_ip":(?:null|{_TEXT}),'
        rf'"type":"{re.escape(event_type)}","version":(?P<version>[1-9][0-9]{{0,15}})\}}'
    )


_PATTERNS = {event_type: _pattern(event_type, data) for event_type, data in DATA.items()}


def match_entry(line: bytes) -> tuple[str, re.Match[str]]:
    """Return the event type of a line, and the match with its pattern.

    Raises:
        ValueError: the line is not an event of the ledger, or not canonical.
    """
    text = line.decode() if line.isascii() else utf_8(line)
    event_type = text[text.rfind('"type":"') + 8 : text.rfind('","version":')]
    pattern = _PATTERNS.get(event_type)
    match = pattern.fullmatch(text) if pattern else None
    if match is None or len(line) > MAX_ENTRY_LENGTH:
        raise ValueError(_describe_problem(text))
    return event_type, match


def _describe_problem(text: str) -> str:
    if len(text.encode()) > MAX_ENTRY_LENGTH:
        return f"it is longer than {MAX_ENTRY_LENGTH} bytes"
    try:
        value = json.loads(text)
        canonical = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    except (ValueError, RecursionError):
        return "it is not valid JSON"
    if canonical != text:
        return "it is not canonical JSON (RFC 8785)"
    event_type = value.get("type") if isinstance(value, dict) else None
    if event_type not in DATA:
        return f"it is not a known type of event: {str(event_type)[:60]!r}"
    return f"a field of this {event_type} is missing, unknown, or has a value that is not allowed"


# ------------------------------------------------------------------------------------------------
# 4. Keys: which event may follow which
# ------------------------------------------------------------------------------------------------


class _KeyState:
    """The state of a key that its next events depend on; times are text, which sorts correctly."""

    __slots__ = ("expires_at", "final", "rotated", "version")

    def __init__(self) -> None:
        self.version = 0
        self.expires_at: str | None = None
        self.rotated = False
        self.final: str | None = None


class Histories:
    """Check the history of every key at once."""

    def __init__(self, report: Report) -> None:
        """Begin before the first entry; add findings to the report."""
        self._report = report
        self._keys: dict[str, _KeyState] = {}
        # A rotation has two entries next to each other: the old key's and the successor's. The
        # first of them is kept here until the other one comes.
        self._rotations: dict[tuple[str, str], int] = {}

    def take(self, leaf_index: int, event_type: str, event: re.Match[str]) -> None:
        """Check the next event."""
        if event_type == _FORKED:
            self._fork(leaf_index, event)
            return
        if event_type == _RESEALED:
            self._reseal(leaf_index, event)
            return
        key_id, at, version = event.group("key_id", "occurred_at", "version")
        key = self._keys.get(key_id)
        wrong = None
        if key is None:
            self._keys[key_id] = key = _KeyState()
            if event_type != "ApiKey.Created":
                wrong = f"the history of {key_id} begins with {event_type}, not with its creation"
        elif event_type == "ApiKey.Created":
            wrong = f"{key_id} is created a second time"
        previous, key.version = key.version, int(version)
        if key.version != previous + 1:
            wrong = wrong or f"version {version} of {key_id} comes after version {previous}"
        broken = CHECKS[event_type](key, event, at)
        wrong = wrong or _invalid_day(at[:10]) or broken
        if wrong is not None:
            self._report.add_entry(leaf_index, wrong, BROKEN_RULE)
        if event_type == "ApiKey.Rotated":
            self._pair(leaf_index, key_id, event["successor_id"])
        elif event_type == "ApiKey.Created" and event["rotated_from"] is not None:
            self._pair(leaf_index, event["rotated_from"], key_id)

    def _fork(self, leaf_index: int, event: re.Match[str]) -> None:
        """Record that the log gets another name, which it must not have had before."""
        origin = json.loads(event["origin"])
        wrong = _invalid_day(event["occurred_at"][:10])
        if event["version"] != "1":
            wrong = wrong or f"a fork has version 1, not {event['version']}"
        if origin in self._report.forks:
            wrong = wrong or f"the log was already forked to {origin}"
        self._report.forks[origin] = leaf_index
        if wrong is not None:
            self._report.add_entry(leaf_index, wrong, BROKEN_RULE)

    def _reseal(self, leaf_index: int, event: re.Match[str]) -> None:
        """Check an event that says that the ledger was sealed with another secret."""
        wrong = _invalid_day(event["occurred_at"][:10])
        if event["version"] != "1":
            wrong = wrong or f"a sealing has version 1, not {event['version']}"
        if wrong is not None:
            self._report.add_entry(leaf_index, wrong, BROKEN_RULE)

    def finish(self) -> None:
        """Report what is still missing after the last entry."""
        self._report.keys = len(self._keys)
        for (old, successor), leaf_index in self._rotations.items():
            wrong = f"the rotation of {old} to {successor} has only one of its two entries"
            self._report.add_entry(leaf_index, wrong, BROKEN_RULE)

    def _pair(self, leaf_index: int, old: str, successor: str) -> None:
        if self._rotations.pop((old, successor), None) is None:
            self._rotations[old, successor] = leaf_index


_NEVER = "for ever"  # sorts after every time


@lru_cache(maxsize=4096)
def _invalid_day(day: str) -> str | None:
    try:
        date.fromisoformat(day)
    except ValueError:
        return f"there is no day {day}"
    return None


def _created(key: _KeyState, event: re.Match[str], at: str) -> str | None:
    key.expires_at = event["expires_at"]
    if key.expires_at is not None and key.expires_at <= at:
        return f"the key is created with the end {key.expires_at}, which is not after {at}"
    return _invalid_end(key)


def _revoked(key: _KeyState, _event: re.Match[str], _at: str) -> str | None:
    wrong = "the key was already revoked, which is final" if key.final == "revoked" else None
    key.final = "revoked"
    return wrong


def _expired(key: _KeyState, _event: re.Match[str], at: str) -> str | None:
    if key.final is not None:
        return f"the key was already {key.final}"
    key.final = "expired"
    if key.expires_at is None or at < key.expires_at:
        return f"the key expires at {at}, but its end is {key.expires_at or 'never'}"
    return None


def _changed(key: _KeyState, _event: re.Match[str], at: str) -> str | None:
    if key.final is not None:
        return f"the key was already {key.final}, and is changed nevertheless"
    if key.expires_at is not None and at >= key.expires_at:
        return f"the key is changed at {at}, but its end was {key.expires_at}"
    return None


def _expiration_changed(key: _KeyState, event: re.Match[str], at: str) -> str | None:
    wrong = _changed(key, event, at)
    before, key.expires_at = key.expires_at, event["expires_at"]
    if key.expires_at is not None and key.expires_at <= at:
        wrong = wrong or f"the key's new end, {key.expires_at}, is not after {at}"
    if key.rotated and (key.expires_at or _NEVER) > (before or _NEVER):
        wrong = wrong or f"a rotated key's end is moved later, from {before} to {key.expires_at}"
    return wrong or _invalid_end(key)


def _rotated(key: _KeyState, event: re.Match[str], at: str) -> str | None:
    wrong = _changed(key, event, at)
    if key.rotated:
        wrong = wrong or "the key was already rotated"
    before, key.expires_at = key.expires_at, event["expires_at"]
    if not at <= key.expires_at <= (before or _NEVER):
        wrong = wrong or (
            f"the rotation at {at} moves the key's end from {before or 'never'} to {key.expires_at}"
        )
    key.rotated = True
    return wrong or _invalid_end(key)


def _invalid_end(key: _KeyState) -> str | None:
    return None if key.expires_at is None else _invalid_day(key.expires_at[:10])


CHECKS = {
    "ApiKey.Created": _created,
    "ApiKey.Revoked": _revoked,
    "ApiKey.Expired": _expired,
    "ApiKey.Rotated": _rotated,
    "ApiKey.ExpirationChanged": _expiration_changed,
    "ApiKey.Renamed": _changed,
    "ApiKey.ScopesChanged": _changed,
}


# ------------------------------------------------------------------------------------------------
# 5. The tree (RFC 9162, section 2.1)
# ------------------------------------------------------------------------------------------------


class Tree:
    """Compute the root over appended leaves; store only the roots of complete subtrees."""

    def __init__(self) -> None:
        """Begin with the empty tree."""
        self.size = 0
        # For each level, the subtree without a right sibling, if there is one.
        self._unpaired: list[list[bytes]] = []

    def extend(self, entries: Sequence[bytes]) -> None:
        """Append leaves, and join every two sibling subtrees on each level."""
        self.size += len(entries)
        nodes = [sha256(b"\x00" + entry).digest() for entry in entries]
        level = 0
        while nodes:
            if level == len(self._unpaired):
                self._unpaired.append([])
            nodes = self._unpaired[level] + nodes
            self._unpaired[level] = nodes[len(nodes) // 2 * 2 :]
            pairs = zip(nodes[::2], nodes[1::2], strict=False)
            nodes = [sha256(b"\x01" + left + right).digest() for left, right in pairs]
            level += 1

    def root(self) -> bytes:
        """Return the root: the subtrees joined, from the smallest to the largest."""
        subtrees = [subtree for unpaired in self._unpaired for subtree in unpaired]
        if not subtrees:
            return sha256().digest()
        joined, *others = subtrees
        for left in others:
            joined = sha256(b"\x01" + left + joined).digest()
        return joined


class _CheckpointComparison:
    """Compare the growing tree with checkpoints of increasing sizes."""

    def __init__(self, checkpoints: Iterator[tuple[str, Checkpoint]], remedy: str) -> None:
        self._checkpoints = checkpoints
        self._remedy = remedy
        self._agreed = 0
        self._differs = False
        self._next = next(checkpoints, None)
        self.last: Checkpoint | None = None

    def until_next(self, size: int) -> int | None:
        """Return the number of leaves until the next checkpoint; None if there is none."""
        return None if self._next is None else self._next[1].size - size

    def compare(self, tree: Tree, report: Report) -> None:
        """Compare the current tree with all checkpoints of its size."""
        while self._next is not None and self._next[1].size <= tree.size:
            name, self.last = self._next
            self._next = next(self._checkpoints, None)
            if self.last.size < tree.size:
                report.add(name, "it is smaller than the checkpoint before it", self._remedy)
            elif self.last.root == tree.root():
                self._agreed = tree.size
            elif not self._differs:
                # All later checkpoints differ too, for the same reason.
                self._differs = True
                wrong = (
                    f"the entries do not have its root: at least one of entries {self._agreed} to"
                    f" {tree.size - 1} was changed or moved after it was signed"
                )
                report.add(name, wrong, self._remedy, self._agreed)

    def finish(self, tree: Tree, report: Report) -> None:
        """Report checkpoints that cover more entries than the pack has."""
        if self._next is not None:
            name, checkpoint = self._next
            wrong = (
                f"it covers {checkpoint.size} entries, but the pack ends after {tree.size}: entries"
                f" {tree.size} to {checkpoint.size - 1} are missing"
            )
            report.add(name, wrong, self._remedy, tree.size)
            for _ in self._checkpoints:  # still verify their signatures
                pass


# ------------------------------------------------------------------------------------------------
# 6. The whole pack
# ------------------------------------------------------------------------------------------------


def verify_pack(pack: Path, *, public_key: str, previous: str | None = None) -> Report:
    """Verify a pack.

    Args:
        pack: the file.
        public_key: the ledger's public key, as published: ``NAME+KEYID+BASE64``.
        previous: one or more checkpoints that were kept from earlier, as signed notes.

    Raises:
        ValueError: the public key is malformed, or ``previous`` is not signed with it.
        OSError: the file cannot be read.
    """
    key = PublicKey(public_key.strip())
    kept = _previous_checkpoints(previous, key)
    report = Report(key.origin)
    with pack.open("rb") as file:
        try:
            members = _members_of(file)
        except ValueError as error:
            report.add("the pack", str(error), ASK_AGAIN)
            return report
        contents = {}
        offset = 0
        for member in members:
            offset += len(member.header())
            contents[member.name] = _Content(file, member, offset)
            offset += member.size
        _check_history(contents, key, kept, report)
        _check_public_key(contents["public-key.txt"], key, report)
        _check_manifest(contents, key, report)
        for member in members:
            content = contents[member.name]
            content.digest()
            if content.crc != member.crc:
                report.add(member.name, "its CRC-32 is not the one in the directory", ASK_AGAIN)
    return report


def _previous_checkpoints(previous: str | None, key: PublicKey) -> list[tuple[str, Checkpoint]]:
    if previous is None:
        return []
    try:
        opened = [
            open_checkpoint(note, key)
            for note in notes_in(previous.rstrip("\n").encode().split(b"\n"))
        ]
    except ValueError as error:
        message = f"the previous checkpoint cannot be used: {error}"
        raise ValueError(message) from error
    opened.sort(key=lambda checkpoint: checkpoint.size)
    return [(f"your checkpoint at {each.size} entries", each) for each in opened]


def _check_history(
    contents: dict[str, _Content],
    key: PublicKey,
    kept: list[tuple[str, Checkpoint]],
    report: Report,
) -> None:
    tree, histories = Tree(), Histories(report)
    signed = _CheckpointComparison(
        _signed_checkpoints(contents["checkpoints.txt"], key, report), ASK_AGAIN
    )
    known = _CheckpointComparison(iter(kept), REWRITTEN)
    signed.compare(tree, report)
    known.compare(tree, report)
    try:
        for lines in contents["entries.jsonl"].lines(MAX_ENTRY_LENGTH):
            done = 0
            while done < len(lines):
                ahead = [each.until_next(tree.size) for each in (signed, known)]
                end = min([len(lines), *(done + each for each in ahead if each is not None)])
                _check_entries(tree.size, lines[done:end], histories, report)
                tree.extend(lines[done:end])
                done = end
                signed.compare(tree, report)
                known.compare(tree, report)
    except ValueError as error:
        report.add_entry(tree.size, str(error), ASK_AGAIN)
    histories.finish()
    signed.finish(tree, report)
    known.finish(tree, report)
    for name, leaf_index in list(report.forks.items())[-1:]:
        if name != key.origin:
            wrong = f"the log is named {name} from here on, but the pack is of {key.origin}"
            report.add_entry(leaf_index, wrong, CHECK_KEY)
    report.entries, report.root = tree.size, tree.root()
    if signed.last is None or signed.last.size != tree.size:
        wrong = f"the last checkpoint does not cover the {tree.size} entries in the pack"
        report.add("checkpoints.txt", wrong, ASK_AGAIN)


def _check_entries(
    begin: int, lines: Sequence[bytes], histories: Histories, report: Report
) -> None:
    for leaf_index, line in enumerate(lines, begin):
        try:
            histories.take(leaf_index, *match_entry(line))
        except ValueError as error:
            report.add_entry(leaf_index, str(error), ASK_AGAIN)


def _signed_checkpoints(
    content: _Content, key: PublicKey, report: Report
) -> Iterator[tuple[str, Checkpoint]]:
    """Open the checkpoints in the pack one by one; report and skip invalid ones."""
    number = 0
    try:
        for number, note in enumerate(notes_in(chain.from_iterable(content.lines(_CHUNK))), 1):
            try:
                yield f"checkpoint {number} in the pack", open_checkpoint(note, key)
            except ValueError as error:
                report.add(f"checkpoint {number} in the pack", str(error), CHECK_KEY)
            report.checkpoints = number
    except ValueError as error:
        report.add(f"checkpoint {number + 1} in the pack", str(error), ASK_AGAIN)


def _check_public_key(content: _Content, key: PublicKey, report: Report) -> None:
    """Compare the key in the pack with the one that the caller gave; never use it."""
    if content.digest() != sha256(f"{key.text}\n".encode()).hexdigest():
        report.add("public-key.txt", "it is not the public key that you gave", CHECK_KEY)


def _check_manifest(contents: dict[str, _Content], key: PublicKey, report: Report) -> None:
    """Compute the manifest from the contents of the pack; it must equal the signed one."""
    try:
        # A chunk is larger than any manifest.
        manifest = next(contents[MANIFEST].chunks(), b"")
        signed = key.open(manifest)
    except ValueError as error:
        report.add(MANIFEST, str(error), CHECK_KEY)
        return
    if manifest.count(b"\n") != signed.count("\n") + 2:
        report.add(MANIFEST, "it has more than one signature", ASK_AGAIN)
    digests = [(name, each.digest()) for name, each in contents.items() if name != MANIFEST]
    found = manifest_text(key.origin, report.entries, report.root, digests)
    if found == signed:
        return
    ours, theirs = found.split("\n"), signed.split("\n")
    for line in ours:
        if line not in theirs:
            _, _, name = line.partition("  ")
            wrong = f"the manifest does not match the pack; it should have the line: {line}"
            report.add(name or "the pack", wrong, ASK_AGAIN)
    for line in theirs:
        if line not in ours:
            report.add(MANIFEST, f"it has a line that does not match the pack: {line}", ASK_AGAIN)
    if sorted(ours) == sorted(theirs):
        report.add(MANIFEST, "its lines are in another order", ASK_AGAIN)


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify a pack from the command line; return 0 if valid, 1 if not, 2 for a usage error."""
    parser = argparse.ArgumentParser(
        description="Verify an audit pack of Keyledger offline.",
        epilog="Exit status: 0 valid, 1 something is wrong, 2 usage error.",
    )
    parser.add_argument("pack", type=Path, help="audit pack, a ZIP file")
    parser.add_argument(
        "--public-key",
        required=True,
        metavar="KEY",
        help="public key of the ledger, NAME+KEYID+BASE64, or a file with it (not the pack's own)",
    )
    parser.add_argument(
        "--previous",
        type=Path,
        metavar="FILE",
        help="one or more signed checkpoints that you kept from earlier",
    )
    options = parser.parse_args(arguments)
    try:
        text = options.public_key
        report = verify_pack(
            options.pack,
            public_key=text if _KEY.fullmatch(text) else Path(text).read_text(encoding="utf-8"),
            previous=options.previous and options.previous.read_text(encoding="utf-8"),
        )
    except (OSError, ValueError) as error:
        parser.print_usage(sys.stderr)
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 2
    for line in _report_lines(report, kept=options.previous is not None):
        sys.stdout.write(f"{line}\n")
    return 1 if report.findings else 0


def _report_lines(report: Report, *, kept: bool) -> Iterator[str]:
    for finding in report.findings:
        yield f"WRONG  {finding.where}: {finding.wrong}."
        yield f"       What to do: {finding.remedy}."
    if report.not_listed:
        yield f"WRONG  and {report.not_listed} more findings, which are not listed."
    yield (
        f"{'WRONG' if report.findings else 'SOUND'}  {report.origin}: {report.entries} entries of"
        f" {report.keys} keys, {report.checkpoints} checkpoints, root"
        f" {b64encode(report.root).decode() or 'unknown'}."
    )
    for name, leaf_index in report.forks.items():
        yield (
            f"       Entry {leaf_index} is a fork to {name}: the log was replaced by a new one. The"
            " entry says why, and up to which size and root the previous one was signed."
        )
    if not kept:
        yield (
            "       No earlier checkpoint was given (--previous), so the verifier cannot tell"
            " whether the ledger's owner signed a different history before. Keep checkpoints.txt of"
            " this pack for the next time."
        )


if __name__ == "__main__":
    sys.exit(main())
