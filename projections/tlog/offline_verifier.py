"""Checks an audit pack of Keyledger, with nothing but a public key.

Usage: ``python offline_verifier.py pack.zip --public-key KEY [--previous KEPT-CHECKPOINT]``

This one file needs Python 3.11 or newer and the package ``cryptography``; nothing of Keyledger,
no database and no network. A pack is a ZIP file with these members, in this order:

- ``entries.jsonl``: the whole history, an event on each line, the oldest first;
- ``checkpoints.txt``: what the ledger signed as it grew, the oldest first;
- ``public-key.txt``: the key that it signed with, for comparison only;
- ``HOW-TO-CHECK.md`` and ``offline_verifier.py``: how to check the pack, and a copy of this file;
- ``reports/...``: tables made from the entries, if there are any;
- ``manifest.txt``: the SHA-256 of each of them, signed.

What is checked, in this order below:

1. Notes: every signature is of the key that *you* name, never of the one in the pack.
2. The pack: not one byte of the file is outside what its members say (no gaps, no variants).
3. Entries: every line is an event of the ledger, in canonical JSON (RFC 8785), the only spelling.
4. Keys: the events of every key follow on each other as the ledger's rules allow: versions from 1
   without gaps, the creation first, nothing after a revocation, and so on. A fork, by which the
   ledger's owner goes on with a log that is not the one that was signed, is allowed and told.
5. The tree: the entries have the roots that all the checkpoints say (RFC 9162, section 2.1). So
   none was changed, left out, put in or moved after the checkpoint over it was signed.
6. If you kept a checkpoint from earlier (``--previous``): the history up to there is still the
   same. Without one, a ledger whose owner wrote and signed all of it anew cannot be told apart.

Reports are covered by the manifest alone: they are as the ledger made them, and whether they are
true can be computed from the entries.
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
"""More are counted and not listed."""

ASK_AGAIN = (
    "get the pack again, from where it was made; if it is the same there, take nothing in it for"
    " proved and keep it as evidence"
)
CHECK_KEY = (
    "make sure that the public key you gave is the ledger's, from a source other than this pack; if"
    " it is, the pack is forged"
)
REWRITTEN = (
    "keep this pack and your checkpoint: together they prove that the ledger's history was not only"
    " added to; ask its owner for `keyledger audit fork` entries and for the database as it was"
)
BROKEN_RULE = (
    "the ledger refuses to do this, so the entry was not written by it, or by a faulty version; ask"
    " its owner how it came about"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong.

    Args:
        where: the entry, the checkpoint or the member of the pack.
        wrong: what is wrong there.
        remedy: what to do about it.
        leaf_index: of the entry, counted from 0, if it is about one.
    """

    where: str
    wrong: str
    remedy: str
    leaf_index: int | None = None

    def __str__(self) -> str:
        """Return all of it as a line of text."""
        return f"{self.where}: {self.wrong}; {self.remedy}"


@dataclass(slots=True)
class Report:
    """The result of checking a pack: it is sound if there are no findings."""

    origin: str
    entries: int = 0
    keys: int = 0
    checkpoints: int = 0
    root: bytes = b""
    forks: dict[str, int] = field(default_factory=dict)
    """The names that the log was given by forks, the last one last, and the entries that say so."""
    findings: list[Finding] = field(default_factory=list)
    not_listed: int = 0

    def add(self, where: str, wrong: str, remedy: str, leaf_index: int | None = None) -> None:
        """Take down a finding; from `MAX_FINDINGS` on, only count it."""
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(where, wrong, remedy, leaf_index))
        else:
            self.not_listed += 1

    def add_entry(self, leaf_index: int, wrong: str, remedy: str) -> None:
        """Take down a finding about one entry."""
        self.add(f"entry {leaf_index} (line {leaf_index + 1})", wrong, remedy, leaf_index)


# ------------------------------------------------------------------------------------------------
# 1. Notes: texts with signatures under them (C2SP signed-note), by Ed25519 keys (RFC 8032)
# ------------------------------------------------------------------------------------------------

_KEY = re.compile(r"([^+\s]+)\+([0-9a-f]{8})\+([0-9A-Za-z+/]+=*)")
_SIGNATURE = re.compile(r"— ([^+\s]+) ([0-9A-Za-z+/]+=*)")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_MAX_NOTE_LINES = 200


class PublicKey:
    """The key whose signatures count; its name is the ledger's ``origin``, ``text`` the line."""

    def __init__(self, text: str) -> None:
        """Read the line that the ledger's owner published: ``NAME+KEYID+BASE64``.

        Raises:
            ValueError: it is no such line, or was misprinted.
        """
        match = _KEY.fullmatch(text)
        if match is None:
            message = "a public key is one line of the form NAME+KEYID+BASE64"
            raise ValueError(message)
        self.text = text
        self.origin, key_id, encoded = match.groups()
        # The first byte is the kind of the key; 1 is Ed25519, whose keys have 32 bytes.
        typed_key = decoded(encoded)
        self.key_id = sha256(f"{self.origin}\n".encode() + typed_key).digest()[:4]
        if typed_key[:1] != b"\x01" or len(typed_key) != 1 + 32 or self.key_id.hex() != key_id:
            message = "the public key is misprinted: its parts do not belong together"
            raise ValueError(message)
        self._key = Ed25519PublicKey.from_public_bytes(typed_key[1:])

    def open(self, note: bytes) -> str:
        """Return the text of a note that this key has signed; signatures of others do not count.

        Raises:
            ValueError: it is no note, or the key has not signed this text.
        """
        content = utf_8(note)
        text, blank_line, signatures = content.rpartition("\n\n")
        if not blank_line or not signatures.endswith("\n") or _CONTROL.search(content):
            message = "it has not the form of a note: a text, an empty line, and signatures"
            raise ValueError(message)
        text += "\n"
        signed = False
        for line in signatures[:-1].split("\n"):
            match = _SIGNATURE.fullmatch(line)
            if match is None:
                message = f"no line of a signature: {line[:100]!r}"
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
            message = "its signature is wrong: the text was changed after it was signed"
            raise ValueError(message) from None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the ledger signed when it had ``size`` entries (C2SP tlog-checkpoint)."""

    size: int
    root: bytes


def open_checkpoint(note: bytes, key: PublicKey) -> Checkpoint:
    """Return the checkpoint in a note.

    Raises:
        ValueError: it is none that the ledger with this key has signed.
    """
    lines = key.open(note).split("\n")[:-1]
    if len(lines) < 3 or not all(lines) or not _SIZE.fullmatch(lines[1]):  # noqa: PLR2004
        message = "it has not the form of a checkpoint: origin, size and root on a line each"
        raise ValueError(message)
    if lines[0] != key.origin:
        message = f"it is of {lines[0]}, another ledger"
        raise ValueError(message)
    root = decoded(lines[2])
    if len(root) != 32:  # noqa: PLR2004 - SHA-256
        message = f"its root has {len(root)} bytes, not 32"
        raise ValueError(message)
    return Checkpoint(int(lines[1]), root)


def notes_in(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Take a file of notes apart; an empty line separates each from the next, and is in each.

    Raises:
        ValueError: a note goes on without end.
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
    """Read a text.

    Raises:
        ValueError: it is none in UTF-8.
    """
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        message = f"it is not in UTF-8: byte {error.start} is {content[error.start]:#04x}"
        raise ValueError(message) from None


def decoded(text: str) -> bytes:
    """Read base64 (RFC 4648, section 4), which has one spelling for everything.

    Raises:
        ValueError: it is none, or spelled otherwise.
    """
    try:
        value = b64decode(text, validate=True)
    except NotBase64:
        value = b""
    if b64encode(value).decode() != text:
        message = f"no base64: {text[:100]!r}"
        raise ValueError(message)
    return value


# ------------------------------------------------------------------------------------------------
# 2. The pack: a ZIP file in which nothing is left to choice
#
# Members are stored, not compressed, one right after the other, in ZIP64 form whatever their size,
# with the same time, 1980-01-01, and the same rights. So names and contents determine every byte:
# the headers are made anew here, and must be the same. (APPNOTE.TXT of PKWARE, sections 4.3, 4.5.)
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

_ZIP64 = 45  # the version of the format that knows it
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
        """Return the bytes that stand before the content."""
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
    """Return the bytes that stand after the last content, up to the end of the file."""
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

    Its second line is never that of a checkpoint, so that neither can be taken for the other.

    Args:
        origin: the ledger.
        size, root: of the tree over its entries.
        digests: the names of all the other members, in their order, with their SHA-256 in hex.
    """
    listed = "".join(f"{digest}  {name}\n" for name, digest in digests)
    head = (
        f"Keyledger audit pack 1\norigin {origin}\nsize {size}\nroot {b64encode(root).decode()}\n"
    )
    return head + listed


class _Content:
    """Reads a member once, in chunks, and computes what its content should be known by."""

    def __init__(self, file: BinaryIO, member: Member, offset: int) -> None:
        self.name = member.name
        self.crc = 0
        self._file = file
        self._sha = sha256()
        self._next, self._end = offset, offset + member.size

    def chunks(self) -> Iterator[bytes]:
        while self._next < self._end:
            # Another member may have been read in between.
            self._file.seek(self._next)
            chunk = self._file.read(min(_CHUNK, self._end - self._next))
            if not chunk:  # the file was cut while it was read
                return
            self._next += len(chunk)
            self._sha.update(chunk)
            self.crc = crc32(chunk, self.crc)
            yield chunk

    def lines(self, longest: int) -> Iterator[list[bytes]]:
        """Give the lines without their ends, many at a time.

        Raises:
            ValueError: one is longer than ``longest`` bytes by far, or the last has no end.
        """
        rest = b""
        for chunk in self.chunks():
            *lines, rest = (rest + chunk).split(b"\n")
            yield lines
            if len(rest) > longest:
                message = f"a line is longer than {longest} bytes"
                raise ValueError(message)
        if rest:
            message = "the last line has no end: something is cut off"
            raise ValueError(message)

    def digest(self) -> str:
        """Return the SHA-256 of the whole content, reading what has not been read yet."""
        for _ in self.chunks():
            pass
        return self._sha.hexdigest()


def _members_of(file: BinaryIO) -> list[Member]:
    """Read the directory of a pack, and hold everything in the file but the contents to it.

    Raises:
        ValueError: there is a byte that is not as it has to be.
    """
    length = file.seek(0, 2)
    cut = f"it ends in the middle: it has {length} bytes"
    if _is_another_archive(file, length):
        message = (
            "it is a whole ZIP archive, but not written as a pack is: its files were packed again"
            " by another program. They may be right: unpack it and follow HOW-TO-CHECK.md, or ask"
            " for the file that the ledger wrote"
        )
        raise ValueError(message)
    if length < _TAIL:
        raise ValueError(cut)
    file.seek(length - _TAIL)
    magic, listed, start = struct.unpack("<4s36x2Q", file.read(56))
    if magic != b"PK\x06\x06" or start + listed + _TAIL != length:
        raise ValueError(cut + ", and none of them is where a pack's directory should be")
    if listed > MAX_MEMBERS * 300:
        message = f"it has more than {MAX_MEMBERS} members"
        raise ValueError(message)
    file.seek(start)
    tail = file.read()
    members = _listed_members(tail[:listed])
    if any(member.size > length for member in members) or directory(members) != tail:
        message = "its directory is not written as a pack's is"
        raise ValueError(message)
    offset = 0
    for member in members:
        header = member.header()
        file.seek(offset)
        if file.read(len(header)) != header:
            message = f"the header of {member.name} is not as the directory says"
            raise ValueError(message)
        offset += len(header) + member.size
    names = [member.name for member in members]
    reports = names[len(FIXED_NAMES) : -1]
    if names != [*FIXED_NAMES, *sorted(set(reports)), MANIFEST] or not all(
        REPORT_NAME.fullmatch(name) for name in reports
    ):
        message = f"it has not the members of a pack, but: {', '.join(names)[:1000]}"
        raise ValueError(message)
    return members


def _is_another_archive(file: BinaryIO, length: int) -> bool:
    """Tell whether a file ends as a whole ZIP archive does that is no pack.

    The end of an archive says how long its directory and its comment are (APPNOTE.TXT, 4.3.16); in
    a pack, which is always of ZIP64 form, it says so elsewhere.
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
# 3. Entries: the form of every event, as one pattern each
#
# A pattern says what is in an event and how it is spelled: in RFC 8785 names are sorted, nothing
# is put between the parts, and text has just these escapes. So no entry can be written in two ways.
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

_DATA = {
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
    # A fork is of the ledger as a whole, and of no key, as is a sealing.
    key_id = "null" if event_type in {_FORKED, _RESEALED} else f'"(?P<key_id>{_KEY_ID})"'
    return re.compile(
        rf'\{{"actor":\{{"id":{_TEXT},"type":"(?:cli|key|system)"\}},"data":\{{{own}\}},'
        rf'"key_id":{key_id},"occurred_at":"(?P<occurred_at>{_TIME})",'
        rf'"request_id":(?:null|{_TEXT}),"source_ip":(?:null|{_TEXT}),'
        rf'"type":"{re.escape(event_type)}","version":(?P<version>[1-9][0-9]{{0,15}})\}}'
    )


_PATTERNS = {event_type: _pattern(event_type, data) for event_type, data in _DATA.items()}


def match_entry(line: bytes) -> tuple[str, re.Match[str]]:
    """Return the type of the event on a line, and the match with its pattern.

    Raises:
        ValueError: the line is no event of the ledger, or not in its one spelling.
    """
    text = line.decode() if line.isascii() else utf_8(line)
    event_type = text[text.rfind('"type":"') + 8 : text.rfind('","version":')]
    pattern = _PATTERNS.get(event_type)
    match = pattern.fullmatch(text) if pattern else None
    if match is None or len(line) > MAX_ENTRY_LENGTH:
        raise ValueError(_what_is_wrong_with(text))
    return event_type, match


def _what_is_wrong_with(text: str) -> str:
    if len(text.encode()) > MAX_ENTRY_LENGTH:
        return f"it is longer than {MAX_ENTRY_LENGTH} bytes"
    try:
        value = json.loads(text)
        canonical = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    except (ValueError, RecursionError):
        return "it is no JSON"
    if canonical != text:
        return "it is not in canonical JSON (RFC 8785), the one spelling that entries have"
    event_type = value.get("type") if isinstance(value, dict) else None
    if event_type not in _DATA:
        return f"it is no event that the ledger knows (its type is {str(event_type)[:60]!r})"
    return f"a field of this {event_type} is missing, not known, or has no value it can have"


# ------------------------------------------------------------------------------------------------
# 4. Keys: what may follow what in the history of a key
# ------------------------------------------------------------------------------------------------


class _Key:
    """As much of a key as its next events depend on; times are texts, which compare as they do."""

    __slots__ = ("expires_at", "final", "rotated", "version")

    def __init__(self) -> None:
        self.version = 0
        self.expires_at: str | None = None
        self.rotated = False
        self.final: str | None = None


class Histories:
    """Follows the history of every key at once."""

    def __init__(self, report: Report) -> None:
        """Begin before the first entry; what is wrong goes into the report."""
        self._report = report
        self._keys: dict[str, _Key] = {}
        # A rotation is told by two entries next to each other: the old key's and the successor's.
        # The first of them waits here for the other.
        self._rotations: dict[tuple[str, str], int] = {}

    def take(self, leaf_index: int, event_type: str, event: re.Match[str]) -> None:
        """Go on by one event."""
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
            self._keys[key_id] = key = _Key()
            if event_type != "ApiKey.Created":
                wrong = f"the history of {key_id} begins with {event_type}, not with its creation"
        elif event_type == "ApiKey.Created":
            wrong = f"{key_id} is created a second time"
        previous, key.version = key.version, int(version)
        if key.version != previous + 1:
            wrong = wrong or f"version {version} of {key_id} comes after version {previous}"
        broken = _CHECKS[event_type](key, event, at)
        wrong = wrong or _wrong_day(at[:10]) or broken
        if wrong is not None:
            self._report.add_entry(leaf_index, wrong, BROKEN_RULE)
        if event_type == "ApiKey.Rotated":
            self._pair(leaf_index, key_id, event["successor_id"])
        elif event_type == "ApiKey.Created" and event["rotated_from"] is not None:
            self._pair(leaf_index, event["rotated_from"], key_id)

    def _fork(self, leaf_index: int, event: re.Match[str]) -> None:
        """Take down that the log goes on under another name, which it never had before."""
        origin = json.loads(event["origin"])
        wrong = _wrong_day(event["occurred_at"][:10])
        if event["version"] != "1":
            wrong = wrong or f"a fork has the version 1, not {event['version']}"
        if origin in self._report.forks:
            wrong = wrong or f"the log is forked to {origin} a second time"
        self._report.forks[origin] = leaf_index
        if wrong is not None:
            self._report.add_entry(leaf_index, wrong, BROKEN_RULE)

    def _reseal(self, leaf_index: int, event: re.Match[str]) -> None:
        """Check an event that says that the ledger was sealed with another secret."""
        wrong = _wrong_day(event["occurred_at"][:10])
        if event["version"] != "1":
            wrong = wrong or f"a sealing has the version 1, not {event['version']}"
        if wrong is not None:
            self._report.add_entry(leaf_index, wrong, BROKEN_RULE)

    def finish(self) -> None:
        """Tell what is still missing after the last entry."""
        self._report.keys = len(self._keys)
        for (old, successor), leaf_index in self._rotations.items():
            wrong = f"only one half of the rotation of {old} to {successor} is told"
            self._report.add_entry(leaf_index, wrong, BROKEN_RULE)

    def _pair(self, leaf_index: int, old: str, successor: str) -> None:
        if self._rotations.pop((old, successor), None) is None:
            self._rotations[old, successor] = leaf_index


_NEVER = "for ever"  # later than any time in digits


@lru_cache(maxsize=4096)
def _wrong_day(day: str) -> str | None:
    try:
        date.fromisoformat(day)
    except ValueError:
        return f"there is no day {day}"
    return None


def _created(key: _Key, event: re.Match[str], at: str) -> str | None:
    key.expires_at = event["expires_at"]
    if key.expires_at is not None and key.expires_at <= at:
        return f"the key is created to end at {key.expires_at}, which is not after {at}"
    return _wrong_end(key)


def _revoked(key: _Key, _event: re.Match[str], _at: str) -> str | None:
    wrong = "the key was revoked before, which is final" if key.final == "revoked" else None
    key.final = "revoked"
    return wrong


def _expired(key: _Key, _event: re.Match[str], at: str) -> str | None:
    if key.final is not None:
        return f"the key was {key.final} before"
    key.final = "expired"
    if key.expires_at is None or at < key.expires_at:
        return f"the key expires at {at}, and its end is {key.expires_at or 'never'}"
    return None


def _changed(key: _Key, _event: re.Match[str], at: str) -> str | None:
    if key.final is not None:
        return f"the key was {key.final} before, and is changed all the same"
    if key.expires_at is not None and at >= key.expires_at:
        return f"the key is changed at {at}, and its end was {key.expires_at}"
    return None


def _expiration_changed(key: _Key, event: re.Match[str], at: str) -> str | None:
    wrong = _changed(key, event, at)
    before, key.expires_at = key.expires_at, event["expires_at"]
    if key.expires_at is not None and key.expires_at <= at:
        wrong = wrong or f"the key's new end, {key.expires_at}, is not after {at}"
    if key.rotated and (key.expires_at or _NEVER) > (before or _NEVER):
        wrong = wrong or f"a rotated key's end is put off, from {before} to {key.expires_at}"
    return wrong or _wrong_end(key)


def _rotated(key: _Key, event: re.Match[str], at: str) -> str | None:
    wrong = _changed(key, event, at)
    if key.rotated:
        wrong = wrong or "the key was rotated before"
    before, key.expires_at = key.expires_at, event["expires_at"]
    if not at <= key.expires_at <= (before or _NEVER):
        wrong = wrong or (
            f"the rotation at {at} puts the key's end from {before or 'never'} to {key.expires_at}"
        )
    key.rotated = True
    return wrong or _wrong_end(key)


def _wrong_end(key: _Key) -> str | None:
    return None if key.expires_at is None else _wrong_day(key.expires_at[:10])


_CHECKS = {
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
    """Takes leaves and knows the root; keeps only the roots of the complete subtrees so far."""

    def __init__(self) -> None:
        """Begin with the empty tree."""
        self.size = 0
        # For each level the subtree that waits for its right sibling, if there is one.
        self._waiting: list[list[bytes]] = []

    def extend(self, entries: Sequence[bytes]) -> None:
        """Add leaves, and on each level join every two subtrees that belong together."""
        self.size += len(entries)
        nodes = [sha256(b"\x00" + entry).digest() for entry in entries]
        level = 0
        while nodes:
            if level == len(self._waiting):
                self._waiting.append([])
            nodes = self._waiting[level] + nodes
            self._waiting[level] = nodes[len(nodes) // 2 * 2 :]
            pairs = zip(nodes[::2], nodes[1::2], strict=False)
            nodes = [sha256(b"\x01" + left + right).digest() for left, right in pairs]
            level += 1

    def root(self) -> bytes:
        """Join the subtrees, from the smallest to the largest."""
        subtrees = [subtree for waiting in self._waiting for subtree in waiting]
        if not subtrees:
            return sha256().digest()
        joined, *others = subtrees
        for left in others:
            joined = sha256(b"\x01" + left + joined).digest()
        return joined


class _Expected:
    """Holds the growing tree to checkpoints, which come with growing sizes."""

    def __init__(self, checkpoints: Iterator[tuple[str, Checkpoint]], remedy: str) -> None:
        self._checkpoints = checkpoints
        self._remedy = remedy
        self._agreed = 0
        self._differs = False
        self._next = next(checkpoints, None)
        self.last: Checkpoint | None = None

    def until_due(self, size: int) -> int | None:
        """Tell how many leaves are to come before the next checkpoint; None if no more comes."""
        return None if self._next is None else self._next[1].size - size

    def compare(self, tree: Tree, report: Report) -> None:
        """Compare the tree, as it is now, with all the checkpoints of its size."""
        while self._next is not None and self._next[1].size <= tree.size:
            name, self.last = self._next
            self._next = next(self._checkpoints, None)
            if self.last.size < tree.size:
                report.add(name, "it is of a smaller size than the one before it", self._remedy)
            elif self.last.root == tree.root():
                self._agreed = tree.size
            elif not self._differs:
                # All the later ones differ too, for the same reason.
                self._differs = True
                wrong = (
                    f"the entries do not have its root: at least one of entries {self._agreed} to"
                    f" {tree.size - 1} is not as it was when it was signed, or not in its place"
                )
                report.add(name, wrong, self._remedy, self._agreed)

    def finish(self, tree: Tree, report: Report) -> None:
        """Tell of checkpoints that are of more entries than there are."""
        if self._next is not None:
            name, checkpoint = self._next
            wrong = (
                f"it is of {checkpoint.size} entries, and the pack ends with {tree.size}: entries"
                f" {tree.size} to {checkpoint.size - 1} are missing"
            )
            report.add(name, wrong, self._remedy, tree.size)
            for _ in self._checkpoints:  # their signatures are checked all the same
                pass


# ------------------------------------------------------------------------------------------------
# 6. All of it
# ------------------------------------------------------------------------------------------------


def verify_pack(pack: Path, *, public_key: str, previous: str | None = None) -> Report:
    """Check a pack.

    Args:
        pack: the file.
        public_key: the ledger's, as its owner published it: ``NAME+KEYID+BASE64``.
        previous: one checkpoint or more that were kept from earlier, as signed notes.

    Raises:
        ValueError: the public key is none, or ``previous`` is not signed with it.
        OSError: the file cannot be read.
    """
    key = PublicKey(public_key.strip())
    kept = _kept_checkpoints(previous, key)
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


def _kept_checkpoints(previous: str | None, key: PublicKey) -> list[tuple[str, Checkpoint]]:
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
    signed = _Expected(_signed_checkpoints(contents["checkpoints.txt"], key, report), ASK_AGAIN)
    known = _Expected(iter(kept), REWRITTEN)
    signed.compare(tree, report)
    known.compare(tree, report)
    try:
        for lines in contents["entries.jsonl"].lines(MAX_ENTRY_LENGTH):
            done = 0
            while done < len(lines):
                ahead = [each.until_due(tree.size) for each in (signed, known)]
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
            wrong = f"the log is called {name} from here on, and the pack is of {key.origin}"
            report.add_entry(leaf_index, wrong, CHECK_KEY)
    report.entries, report.root = tree.size, tree.root()
    if signed.last is None or signed.last.size != tree.size:
        wrong = f"the last one is not of the {tree.size} entries in the pack"
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
    """Open the checkpoints in the pack, one by one; wrong ones are told and passed over."""
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
    """Compare the key in the pack with the one that counts; it is never used."""
    if content.digest() != sha256(f"{key.text}\n".encode()).hexdigest():
        report.add("public-key.txt", "it is not the public key that you gave", CHECK_KEY)


def _check_manifest(contents: dict[str, _Content], key: PublicKey, report: Report) -> None:
    """Write the manifest anew, from all that is in the pack; it must be the one that was signed."""
    try:
        # One chunk is room for far more members than a pack can have.
        manifest = next(contents[MANIFEST].chunks(), b"")
        signed = key.open(manifest)
    except ValueError as error:
        report.add(MANIFEST, str(error), CHECK_KEY)
        return
    if manifest.count(b"\n") != signed.count("\n") + 2:
        report.add(MANIFEST, "it has more signatures than one", ASK_AGAIN)
    digests = [(name, each.digest()) for name, each in contents.items() if name != MANIFEST]
    found = manifest_text(key.origin, report.entries, report.root, digests)
    if found == signed:
        return
    ours, theirs = found.split("\n"), signed.split("\n")
    for line in ours:
        if line not in theirs:
            _, _, name = line.partition("  ")
            wrong = (
                f"the manifest was signed for something else; of what is here it would say: {line}"
            )
            report.add(name or "the pack", wrong, ASK_AGAIN)
    for line in theirs:
        if line not in ours:
            report.add(MANIFEST, f"it was signed for something that is not here: {line}", ASK_AGAIN)
    if sorted(ours) == sorted(theirs):
        report.add(MANIFEST, "its lines are in another order", ASK_AGAIN)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a pack from the command line; returns 0 if it is sound, 1 if not, 2 if misused."""
    parser = argparse.ArgumentParser(
        description="Checks an audit pack of Keyledger offline.",
        epilog="Exit status: 0 sound, 1 something is wrong, 2 called wrongly.",
    )
    parser.add_argument("pack", type=Path, help="the pack, a ZIP file")
    parser.add_argument(
        "--public-key",
        required=True,
        metavar="KEY",
        help="the ledger's public key, NAME+KEYID+BASE64, or a file with it (not the pack's own)",
    )
    parser.add_argument(
        "--previous",
        type=Path,
        metavar="FILE",
        help="a signed checkpoint that you kept from earlier, or several",
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
    for line in _told(report, kept=options.previous is not None):
        sys.stdout.write(f"{line}\n")
    return 1 if report.findings else 0


def _told(report: Report, *, kept: bool) -> Iterator[str]:
    for finding in report.findings:
        yield f"WRONG  {finding.where}: {finding.wrong}."
        yield f"       What to do: {finding.remedy}."
    if report.not_listed:
        yield f"WRONG  and {report.not_listed} more, which are not listed."
    yield (
        f"{'WRONG' if report.findings else 'SOUND'}  {report.origin}: {report.entries} entries of"
        f" {report.keys} keys, {report.checkpoints} checkpoints, root"
        f" {b64encode(report.root).decode() or 'unknown'}."
    )
    for name, leaf_index in report.forks.items():
        yield (
            f"       Entry {leaf_index} is a fork to {name}: the log is not the one that was signed"
            " before. The entry says why, and up to what size and root the other one was signed."
        )
    if not kept:
        yield (
            "       No earlier checkpoint was given (--previous), so that nothing is said about"
            " whether the ledger's owner has signed another history before. Keep checkpoints.txt of"
            " this pack for the next time."
        )


if __name__ == "__main__":
    sys.exit(main())
