"""The offline verifier finds every kind of damage, and says what, where and what to do."""

import ast
import json
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable
from dataclasses import fields
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID
from zipfile import ZipFile

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from domain.api_key import ApiKey
from domain.audit_log import Forked, fork_uuid
from domain.errors import LedgerError
from domain.public_event import entry_of
from domain.serialization import EVENT_CLASSES
from projections.tlog import offline_verifier
from projections.tlog.merkle import CompactRange
from projections.tlog.notes import SigningKey, sign_note
from projections.tlog.offline_verifier import FIXED_NAMES, MAX_FINDINGS, Tree, main
from tests.domain.builders import ADA, NOON, PATIENT, a_credential, a_new_key
from tests.projections.tlog.packs import (
    ANOTHER_KEY,
    FIRST_KEY,
    KEY,
    PUBLIC_KEY,
    SECOND_KEY,
    a_creation,
    a_fork,
    a_line,
    a_pack,
    checked,
    checkpoint_notes,
    contents_of,
    findings_of,
    forged,
    made_entries,
    repacked,
)

ENTRIES = made_entries(40)
(LAST_NOTE,) = checkpoint_notes(ENTRIES, [len(ENTRIES)])
LAST_TEXT = LAST_NOTE.partition("\n\n")[0] + "\n"
DAY_1, DAY_2, DAY_3, DAY_4 = (f"2026-03-0{day}T12:00:00.000000Z" for day in range(1, 5))


ENVELOPE = {"originator_id", "originator_version", "originator_topic", "timestamp", "actor"}
ENVELOPE |= {"request_id", "source_ip"}


@pytest.mark.parametrize("topic", EVENT_CLASSES)
def test_the_verifier_knows_each_event_and_each_of_its_fields(topic: str) -> None:
    declared = {field.name for field in fields(EVENT_CLASSES[topic])} - ENVELOPE
    public = {"verifier_sha256" if name == "verifier" else name for name in declared}
    known = offline_verifier.DATA.get(topic)
    assert known is not None, f"offline_verifier.py has no pattern for {topic} in DATA"
    assert set(known) == public, f"offline_verifier.py: DATA has other fields for {topic}"
    assert topic in offline_verifier.CHECKS or topic.startswith("AuditLog.")


def jsonl(entries: list[bytes]) -> bytes:
    return b"".join(entry + b"\n" for entry in entries)


class TestForgery:
    """Someone without the ledger's key changes the entries."""

    @pytest.mark.parametrize("at", range(len(ENTRIES)))
    def test_a_history_cut_at_any_line_is_found(self, tmp_path: Path, at: int) -> None:
        pack = forged(a_pack(tmp_path, ENTRIES, sizes=[10, 20]), entries=jsonl(ENTRIES[:at]))

        report = checked(pack)

        (missing,) = [each for each in report.findings if "are missing" in each.wrong]
        assert missing.leaf_index == at
        assert f"entries {at} to" in missing.wrong
        assert "entries.jsonl" in [each.where for each in report.findings]

    @pytest.mark.parametrize("at", range(len(ENTRIES)))
    def test_a_replaced_entry_is_narrowed_down(self, tmp_path: Path, at: int) -> None:
        other = ENTRIES[at].replace(b'"source_ip":"10.', b'"source_ip":"11.')
        assert other != ENTRIES[at]
        pack = a_pack(tmp_path, ENTRIES, sizes=[10, 20, 30])

        report = checked(forged(pack, entries=jsonl([*ENTRIES[:at], other, *ENTRIES[at + 1 :]])))

        first = at // 10 * 10
        last = min(first + 10, len(ENTRIES)) - 1
        (differs,) = [each for each in report.findings if each.leaf_index is not None]
        assert f"at least one of entries {first} to {last} was changed or moved" in differs.wrong
        assert "keep it as evidence" in differs.remedy

    @pytest.mark.parametrize("at", range(len(ENTRIES)))
    def test_a_removed_or_repeated_entry_is_found_near_its_place(
        self, tmp_path: Path, at: int
    ) -> None:
        for entries in (
            [*ENTRIES[:at], *ENTRIES[at + 1 :]],
            [*ENTRIES[:at], ENTRIES[at], *ENTRIES[at:]],
        ):
            pack = a_pack(tmp_path, ENTRIES, sizes=[10, 20, 30])

            report = checked(forged(pack, entries=jsonl(entries)))

            named = [each.leaf_index for each in report.findings if each.leaf_index is not None]
            # The one before, where that is the other half of a rotation.
            assert min(named) >= at // 10 * 10 - 1

    def test_a_checkpoint_of_another_key_is_found(self, tmp_path: Path) -> None:
        pack = a_pack(tmp_path, ENTRIES)
        notes = "\n".join(checkpoint_notes(ENTRIES, [len(ENTRIES)], key=ANOTHER_KEY))

        wrong = findings_of(checked(forged(pack, checkpoints=notes.encode())))

        assert wrong[:2] == [
            ("checkpoint 1 in the pack", "it is not signed with the public key that you gave"),
            (
                "checkpoints.txt",
                f"the last checkpoint does not cover the {len(ENTRIES)} entries in the pack",
            ),
        ]

    @pytest.mark.parametrize(
        ("notes", "expected"),
        [
            ([], "it is not a note"),
            (checkpoint_notes(ENTRIES, [5]), "does not cover the"),
            ([LAST_NOTE, LAST_NOTE], "manifest does not match"),
            (
                [*checkpoint_notes(ENTRIES, [9, len(ENTRIES)])[::-1]],
                "smaller than the checkpoint before it",
            ),
            (
                [checkpoint_notes(ENTRIES, [len(ENTRIES)])[0].replace("\n\n", "\n")],
                "it is not a note",
            ),
            ([LAST_NOTE.rstrip("\n")], "no end"),
            ([LAST_NOTE, ""], "it is not a note"),
            (["x\n" * 300], "more than 200 lines"),
        ],
    )
    def test_checkpoints_that_are_not_as_they_were_are_found(
        self, tmp_path: Path, notes: list[str], expected: str
    ) -> None:
        pack = forged(a_pack(tmp_path, ENTRIES), checkpoints="\n".join(notes).encode())

        assert any(expected in wrong for _, wrong in findings_of(checked(pack)))

    def test_a_pack_of_another_ledger_is_invalid_under_this_key(self, tmp_path: Path) -> None:
        pack = a_pack(tmp_path, ENTRIES, key=ANOTHER_KEY)

        report = checked(pack)

        assert [where for where, _ in findings_of(report)] == [
            "checkpoint 1 in the pack",
            "checkpoints.txt",
            "public-key.txt",
            "manifest.txt",
        ]
        assert "source other than this pack" in report.findings[0].remedy
        assert findings_of(checked(pack, public_key=str(ANOTHER_KEY.verifier_key))) == []

    def test_the_key_in_the_pack_is_never_trusted(self, tmp_path: Path) -> None:
        pack = a_pack(tmp_path, ENTRIES, key=ANOTHER_KEY)
        pack = forged(pack, **{"public-key": f"{PUBLIC_KEY}\n".encode()})

        assert checked(pack).findings

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (LAST_TEXT.replace(KEY.name, "elsewhere.example"), "another ledger, elsewhere.example"),
            (LAST_TEXT.replace("\n", "\t\n", 1), "it is not a note"),
            (LAST_TEXT.rpartition("\n")[0].rpartition("\n")[0] + "\nAAAA\n", "3 bytes, not 32"),
            (
                LAST_TEXT.replace(f"\n{len(ENTRIES)}\n", f"\n0{len(ENTRIES)}\n"),
                "it is not a checkpoint",
            ),
            (LAST_TEXT.partition("\n")[0] + "\n", "it is not a checkpoint"),
            (LAST_TEXT + "\nmore\n", "not a signature line"),
        ],
    )
    def test_a_signed_text_that_is_not_a_checkpoint_is_found(
        self, tmp_path: Path, text: str, expected: str
    ) -> None:
        signature = Ed25519PrivateKey.from_private_bytes(KEY.seed).sign(text.encode())
        encoded = b64encode(KEY.verifier_key.key_id + signature).decode()
        note = f"{text}\n— {KEY.name} {encoded}\n"

        report = checked(forged(a_pack(tmp_path, ENTRIES), checkpoints=note.encode()))

        where, wrong = findings_of(report)[0]
        assert where == "checkpoint 1 in the pack"
        assert expected in wrong

    def test_a_signature_in_another_base64_encoding_is_found(self, tmp_path: Path) -> None:
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        pack = a_pack(tmp_path, ENTRIES)
        manifest = contents_of(pack)["manifest.txt"].decode()
        # 68 bytes in base64: the last digit before "=" has two bits that mean nothing.
        twin = alphabet[alphabet.index(manifest[-3]) + 1]

        report = checked(forged(pack, manifest=f"{manifest[:-3]}{twin}=\n".encode()))

        assert [where for where, _ in findings_of(report)] == ["manifest.txt"]
        assert "not base64" in report.findings[0].wrong

    def test_another_signature_under_the_manifest_is_found(self, tmp_path: Path) -> None:
        pack = a_pack(tmp_path, ENTRIES)
        manifest = contents_of(pack)["manifest.txt"]
        line = sign_note("x\n", ANOTHER_KEY).encode().rpartition(b"\n\n")[2]

        assert findings_of(checked(forged(pack, manifest=manifest + line))) == [
            ("manifest.txt", "it has more than one signature")
        ]

    def test_a_manifest_in_another_order_is_found(self, tmp_path: Path) -> None:
        pack = a_pack(tmp_path, ENTRIES)
        manifest = contents_of(pack)["manifest.txt"].decode()
        *lines, last = manifest.partition("\n\n")[0].split("\n")
        text = "\n".join([*lines[:-1], last, lines[-1], ""])

        assert findings_of(checked(forged(pack, manifest=sign_note(text, KEY).encode()))) == [
            ("manifest.txt", "its lines are in another order")
        ]

    def test_wrong_checksums_in_headers_and_directory_are_found(self, tmp_path: Path) -> None:
        pack = a_pack(tmp_path, ENTRIES)
        contents = contents_of(pack)

        report = checked(repacked(pack, contents.items(), crc_off_by=1))

        assert findings_of(report) == [
            (name, "its CRC-32 is not the one in the directory") for name in contents
        ]

    @pytest.mark.parametrize(
        "names",
        [
            ["entries.jsonl", "manifest.txt"],
            [*FIXED_NAMES],
            [*FIXED_NAMES[::-1], "manifest.txt"],
            [*FIXED_NAMES, "manifest.txt", "more.txt"],
            [*FIXED_NAMES, "more.txt", "manifest.txt"],
            [*FIXED_NAMES, "reports/b", "reports/a", "manifest.txt"],
            [*FIXED_NAMES, "reports/a", "reports/a", "manifest.txt"],
            [*FIXED_NAMES, "reports/../../a", "manifest.txt"],
            [*FIXED_NAMES, *(f"reports/{number:05}" for number in range(4000)), "manifest.txt"],
        ],
    )
    def test_other_members_than_a_packs_are_found(self, tmp_path: Path, names: list[str]) -> None:
        pack = a_pack(tmp_path, ENTRIES)
        contents = contents_of(pack)

        report = checked(repacked(pack, [(name, contents.get(name, b"")) for name in names]))

        ((where, wrong),) = findings_of(report)
        assert where == "the pack"
        assert "members" in wrong

    def test_a_manifest_of_another_pack_is_found(self, tmp_path: Path) -> None:
        other = a_pack(tmp_path, ENTRIES[:-1])
        with ZipFile(other) as archive:
            manifest = archive.read("manifest.txt")

        report = checked(forged(a_pack(tmp_path, ENTRIES), manifest=manifest))

        assert {where for where, _ in findings_of(report)} == {
            "the pack",
            "entries.jsonl",
            "checkpoints.txt",
            "manifest.txt",
        }


class TestRewriting:
    """The ledger's owner, who has the key, writes and signs another history."""

    KEPT = "\n".join(checkpoint_notes(ENTRIES, [7, 25]))

    def test_a_history_that_only_grew_is_sound(self, tmp_path: Path) -> None:
        for size in (25, 26, len(ENTRIES)):
            entries = ENTRIES[:size]
            while b'"rotated_from":"' in entries[-1]:
                entries = ENTRIES[: len(entries) + 1]
            assert findings_of(checked(a_pack(tmp_path, entries), previous=self.KEPT)) == []

    @pytest.mark.parametrize("at", range(25))
    def test_one_entry_rewritten_is_found(self, tmp_path: Path, at: int) -> None:
        entries = list(ENTRIES)
        entries[at] = entries[at].replace(b'"request_id":"', b'"request_id":"0')
        pack = a_pack(tmp_path, entries, sizes=[7, 25])

        report = checked(pack, previous=self.KEPT)

        assert findings_of(checked(pack)) == [], "nothing but the kept checkpoint tells it"
        (finding,) = report.findings
        kept, first = (7, 0) if at < 7 else (25, 7)
        assert finding.where == f"your checkpoint at {kept} entries"
        assert f"one of entries {first} to {kept - 1} was changed or moved" in finding.wrong
        assert "together they prove" in finding.remedy

    @pytest.mark.parametrize("size", range(25))
    def test_a_history_cut_short_is_found(self, tmp_path: Path, size: int) -> None:
        report = checked(a_pack(tmp_path, ENTRIES[:size]), previous=self.KEPT)

        (missing,) = [each for each in report.findings if "are missing" in each.wrong]
        assert missing.leaf_index == size
        assert missing.where.startswith("your checkpoint at ")

    def test_a_log_that_differs_after_the_fork_is_found(self, tmp_path: Path) -> None:
        fork = [*ENTRIES[:20], *made_entries(80)[len(ENTRIES) + 5 :]]

        report = checked(a_pack(tmp_path, fork), previous=self.KEPT)

        assert "your checkpoint at 25 entries" in {where for where, _ in findings_of(report)}
        assert "your checkpoint at 7 entries" not in {where for where, _ in findings_of(report)}

    @pytest.mark.parametrize(
        "previous", ["", "x", KEPT + "\n\n", KEPT.replace("7", "8"), KEPT[:-20] + "\n"]
    )
    def test_a_malformed_previous_checkpoint_is_refused(
        self, tmp_path: Path, previous: str
    ) -> None:
        if previous == self.KEPT + "\n\n":
            assert findings_of(checked(a_pack(tmp_path, ENTRIES), previous=previous)) == []
        else:
            with pytest.raises(ValueError, match="previous checkpoint cannot be used"):
                checked(a_pack(tmp_path, ENTRIES), previous=previous)

    def test_a_kept_checkpoint_of_another_key_is_refused(self, tmp_path: Path) -> None:
        (kept,) = checkpoint_notes(ENTRIES, [7], key=ANOTHER_KEY)

        with pytest.raises(ValueError, match="not signed with the public key"):
            checked(a_pack(tmp_path, ENTRIES), previous=kept)


def found(entries: list[bytes], place: Path) -> list[tuple[int | None, str]]:
    """What is wrong with entries that are otherwise in order: signed, and in a pack."""
    return [(each.leaf_index, each.wrong) for each in checked(a_pack(place, entries)).findings]


def respelled(line: bytes) -> bytes:
    """The same JSON with a blank after each colon."""
    return json.dumps(json.loads(line), sort_keys=True).encode()


class TestForm:
    LINE = a_line("Renamed", 2, name='Zoë "1" \n\u2028')

    def test_the_form_of_the_ledger_is_accepted(self, tmp_path: Path) -> None:
        assert found([a_creation(), self.LINE], tmp_path) == []

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            (LINE.replace(b"\xc3\xab", b"\xff"), "not valid UTF-8"),
            (LINE.replace(b"\xc3\xab", b"\xed\xa0\x80"), "not valid UTF-8"),
            (LINE.replace(b"\xc3\xab", b"\xc0\xaf"), "not valid UTF-8"),
            (b"", "not valid JSON"),
            (b"{}", "not a known type of event"),
            (b"[1]", "not a known type of event"),
            (LINE[:-1], "not valid JSON"),
            (LINE + b" ", "not canonical JSON"),
            (LINE + b"\r", "not canonical JSON"),
            (respelled(LINE), "not canonical JSON"),
            (LINE.replace(b"\\n", b"\\u000a"), "not canonical JSON"),
            (LINE.replace(b"\\n", b"\n"), "not valid JSON"),
            (LINE.replace(b"\xc3\xab", b"\\u00eb"), "not canonical JSON"),
            (LINE.replace(b"Zo", b"\\u005ao"), "not canonical JSON"),
            (LINE.replace(b"Zo", b"\\/"), "not canonical JSON"),
            (LINE.replace(b'"version":2', b'"version":2,"version":2'), "not canonical JSON"),
            (LINE.replace(b'"version":2', b'"version":02'), "not valid JSON"),
            (LINE.replace(b'"version":2', b'"version":2e0'), "not canonical JSON"),
            (LINE.replace(b'"version":2', b'"version":2.0'), "a field of this ApiKey.Renamed"),
            (LINE.replace(b'"version":2', b'"version":0'), "a field of this ApiKey.Renamed"),
            (LINE.replace(b'"version":2', b'"version":"2"'), "a field of this ApiKey.Renamed"),
            (LINE.replace(b'"version":2', b'"version":-2'), "a field of this ApiKey.Renamed"),
            (LINE.replace(b',"version":2', b""), "a field of this ApiKey.Renamed"),
            (LINE.replace(b'"version":2', b'"version":2,"z":1'), "a field of this ApiKey.Renamed"),
            (LINE.replace(b'"cli"', b'"mob"'), "a field of this ApiKey.Renamed"),
            (LINE.replace(b'"source_ip":null', b'"source_ip":1'), "a field of this ApiKey"),
            (LINE.replace(b"T12:00", b"T24:00"), "a field of this ApiKey.Renamed"),
            (LINE.replace(b"T12:00", b" 12:00"), "a field of this ApiKey.Renamed"),
            (LINE.replace(b".000000Z", b"Z"), "a field of this ApiKey.Renamed"),
            (LINE.replace(b"2026-03-03", b"2026-02-29"), "no day 2026-02-29"),
            (LINE.replace(b"apikey_0", b"apikey_A"), "a field of this ApiKey.Renamed"),
            (a_line("Renamed", 2, title="x"), "a field of this ApiKey.Renamed"),
            (a_line("Renamed", 2, name=None), "a field of this ApiKey.Renamed"),
            (a_line("ScopesChanged", 2, scopes=[]), "a field of this ApiKey.ScopesChanged"),
            (a_line("Rotated", 2, successor_id="x", expires_at=DAY_4), "a field of this ApiKey"),
            (a_line("Forgotten", 2), "not a known type of event: 'ApiKey.Forgotten'"),
            (b"[" * 20_000, "not valid JSON"),
            (a_line("Renamed", 2, name="n" * 65_535), "longer than 65535 bytes"),
        ],
    )
    def test_any_other_line_is_named(self, tmp_path: Path, line: bytes, expected: str) -> None:
        findings = found([a_creation(), line], tmp_path)

        assert findings[0][0] == 1
        assert expected in findings[0][1]

    @pytest.mark.parametrize(
        "changed",
        [
            {"expires_at": "never"},
            {"lookup_id": None},
            {"verifier_sha256": "AB" * 32},
            {"verifier_sha256": "ab" * 31},
            {"request_sha256": "x"},
            {"rotated_from": "x"},
            {"scopes": []},
            {"scopes": "*"},
            {"verifier": "$argon2id$"},
        ],
    )
    def test_a_malformed_creation_is_named(self, tmp_path: Path, changed: dict[str, Any]) -> None:
        ((leaf_index, wrong),) = found([a_creation(**changed)], tmp_path)

        assert leaf_index == 0
        assert "a field of this ApiKey.Created is missing, unknown" in wrong

    def test_a_line_without_end_is_not_read_into_memory(self, tmp_path: Path) -> None:
        pack = forged(a_pack(tmp_path, ENTRIES), entries=jsonl(ENTRIES) + b"x" * 3_000_000)

        assert any("longer than 65535" in wrong for _, wrong in findings_of(checked(pack)))

    def test_a_long_list_of_findings_is_cut(self, tmp_path: Path) -> None:
        report = checked(a_pack(tmp_path, [b"{}"] * 1000))

        assert len(report.findings) == MAX_FINDINGS
        assert report.not_listed == 1000 - MAX_FINDINGS


def created(*, end: str | None = DAY_3, key_id: str = FIRST_KEY, **changed: Any) -> bytes:  # noqa: ANN401
    """A key made on the first day."""
    event = json.loads(a_creation(key_id=key_id, expires_at=end, **changed))
    event["occurred_at"] = DAY_1
    return json.dumps(event, separators=(",", ":"), sort_keys=True).encode()


def renamed(version: int, *, at: str = DAY_2) -> bytes:
    return a_line("Renamed", version, at=at, name="other")


def revoked(version: int, *, at: str = DAY_2) -> bytes:
    return a_line("Revoked", version, at=at, reason=None, comment=None)


def expired(version: int, *, at: str = DAY_3) -> bytes:
    return a_line("Expired", version, at=at)


def moved(version: int, end: str | None, *, at: str = DAY_2) -> bytes:
    return a_line("ExpirationChanged", version, at=at, expires_at=end)


def rotated(version: int, end: str = DAY_3, *, at: str = DAY_2) -> bytes:
    return a_line("Rotated", version, at=at, successor_id=SECOND_KEY, expires_at=end)


SUCCESSOR = created(key_id=SECOND_KEY, rotated_from=FIRST_KEY)


class TestRules:
    @pytest.mark.parametrize(
        "entries",
        [
            [created(), renamed(2), expired(3), revoked(4, at=DAY_4)],
            [created(), revoked(2)],
            [created(), SUCCESSOR, rotated(2), expired(3)],
            [created(), rotated(2), SUCCESSOR, moved(3, DAY_3), revoked(4)],
            [created(end=None), SUCCESSOR, rotated(2, DAY_2), revoked(3, at=DAY_1)],
            [created(end=None), moved(2, DAY_4), moved(3, None), renamed(4, at=DAY_4)],
            [created(), moved(2, DAY_4), expired(3, at=DAY_4)],
        ],
    )
    def test_histories_that_the_ledger_allows_have_no_findings(
        self, tmp_path: Path, entries: list[bytes]
    ) -> None:
        assert found(entries, tmp_path) == []

    @pytest.mark.parametrize(
        ("entries", "expected"),
        [
            ([created(), revoked(2), revoked(3)], "already revoked, which is final"),
            ([created(), revoked(2), renamed(3)], "already revoked, and is changed nevertheless"),
            ([created(), revoked(2), expired(3)], "the key was already revoked"),
            ([created(), revoked(2), moved(3, DAY_4)], "already revoked, and is changed"),
            ([created(), expired(2), renamed(3, at=DAY_2)], "already expired, and is changed"),
            ([created(), expired(2), expired(3)], "the key was already expired"),
            ([created(), expired(2, at=DAY_2)], f"expires at {DAY_2}, but its end is {DAY_3}"),
            ([created(end=None), expired(2)], "but its end is never"),
            ([created(), renamed(2, at=DAY_3)], f"changed at {DAY_3}, but its end was {DAY_3}"),
            ([created(), moved(2, DAY_4, at=DAY_3)], f"but its end was {DAY_3}"),
            ([created(), moved(2, DAY_2)], f"new end, {DAY_2}, is not after {DAY_2}"),
            ([created(end=DAY_1)], f"is created with the end {DAY_1}"),
            ([created(), SUCCESSOR, rotated(2), moved(3, DAY_4)], "end is moved later"),
            ([created(), SUCCESSOR, rotated(2), moved(3, None)], "end is moved later"),
            ([created(), SUCCESSOR, rotated(2, DAY_4)], f"from {DAY_3} to {DAY_4}"),
            ([created(), SUCCESSOR, rotated(2, DAY_1)], f"from {DAY_3} to {DAY_1}"),
            ([created(), SUCCESSOR, rotated(2), rotated(3)], "was already rotated"),
            ([created(), SUCCESSOR, expired(2), rotated(3)], "already expired, and is changed"),
            ([created(), renamed(3)], "version 3 of apikey_00000000-0000-4000-8000-000000000001"),
            ([created(), renamed(1)], "comes after version 1"),
            ([created(), renamed(2), renamed(2)], "version 2 of"),
            ([renamed(1)], "begins with ApiKey.Renamed, not with its creation"),
            ([created(version=2)], "version 2 of apikey_00000000-0000-4000-8000-000000000001"),
            ([created(), created(version=2)], "is created a second time"),
        ],
    )
    def test_a_forbidden_event_is_found_at_its_entry(
        self, tmp_path: Path, entries: list[bytes], expected: str
    ) -> None:
        findings = found(entries, tmp_path)

        assert (len(entries) - 1) in {leaf_index for leaf_index, _ in findings}
        assert any(expected in wrong for _, wrong in findings)
        assert (
            found(entries[:-1], tmp_path) == [] or "rotation" in found(entries[:-1], tmp_path)[0][1]
        )

    @pytest.mark.parametrize(
        ("entries", "at"),
        [
            ([created(), rotated(2)], 1),
            ([created(), SUCCESSOR], 1),
            ([created(), created(key_id=SECOND_KEY), rotated(2)], 2),
        ],
    )
    def test_half_a_rotation_is_found(self, tmp_path: Path, entries: list[bytes], at: int) -> None:
        ((leaf_index, wrong),) = found(entries, tmp_path)

        assert leaf_index == at
        assert (
            wrong == f"the rotation of {FIRST_KEY} to {SECOND_KEY} has only one of its two entries"
        )

    @PATIENT
    @given(st.integers(0, 2**32))
    def test_histories_made_by_the_ledger_have_no_findings(self, seed: int) -> None:
        """No false findings: random commands at random times, with clocks that go back too."""
        entries = lived(Random(seed))
        with TemporaryDirectory() as place:
            assert found(entries, Path(place)) == []


class TestFork:
    """The log continues under another name, and an entry records it."""

    def test_it_is_valid_at_every_index(self, tmp_path: Path) -> None:
        for at in range(3):
            entries = [created(), renamed(2)]
            entries.insert(at, a_fork())
            assert found(entries, tmp_path) == []

    def test_one_after_the_other_is_sound_if_the_pack_is_of_the_last(self, tmp_path: Path) -> None:
        assert found([a_fork("ledger.example/second"), created(), a_fork()], tmp_path) == []

    def test_its_form_is_the_ledgers(self, tmp_path: Path) -> None:
        event = Forked(
            originator_id=fork_uuid(KEY.name),
            originator_version=1,
            timestamp=NOON,
            actor=ADA.actor.as_json(),
            request_id=None,
            source_ip=None,
            reason='lost: "db-1" é',
            origin=KEY.name,
            previous_origin="keyledger/0011223344556677",
            previous_size=0,
            previous_root="e3" * 32,
        )
        assert found([entry_of(event)], tmp_path) == []

    @pytest.mark.parametrize(
        ("fork", "expected"),
        [
            (a_fork().replace(b'"key_id":null', f'"key_id":"{FIRST_KEY}"'.encode()), "a field of"),
            (a_fork(previous_size="7"), "a field of this AuditLog.Forked"),
            (a_fork(previous_size=-1), "a field of this AuditLog.Forked"),
            (a_fork(previous_root="AB" * 32), "a field of this AuditLog.Forked"),
            (a_fork(previous_root=None), "a field of this AuditLog.Forked"),
            (a_fork(reason=None), "a field of this AuditLog.Forked"),
            (a_fork(comment=None), "a field of this AuditLog.Forked"),
            (a_fork(version=2), "a fork has version 1, not 2"),
            (a_fork(at="2026-02-29T12:00:00.000000Z"), "no day 2026-02-29"),
            (a_line("Renamed", 2, name="x").replace(f'"{FIRST_KEY}"'.encode(), b"null"), "a field"),
        ],
    )
    def test_one_of_another_form_is_named(self, tmp_path: Path, fork: bytes, expected: str) -> None:
        findings = found([created(), fork], tmp_path)

        assert findings[0][0] == 1
        assert expected in findings[0][1]

    def test_a_name_that_the_log_had_before_is_found(self, tmp_path: Path) -> None:
        ((leaf_index, wrong),) = found([a_fork(), created(), a_fork()], tmp_path)

        assert (leaf_index, wrong) == (2, f"the log was already forked to {KEY.name}")

    def test_a_pack_of_a_forked_log_is_not_valid_under_the_old_name(self, tmp_path: Path) -> None:
        ((leaf_index, wrong),) = found([created(), a_fork("ledger.example/new")], tmp_path)

        assert leaf_index == 1
        assert wrong.startswith("the log is named ledger.example/new from here on")

    def test_a_checkpoint_of_another_name_in_the_pack_is_found(self, tmp_path: Path) -> None:
        entries = [created(), renamed(2), a_fork()]
        notes = [
            *checkpoint_notes(entries, [2], key=SigningKey("ledger.example/before", KEY.seed)),
            *checkpoint_notes(entries, [3]),
        ]
        pack = forged(a_pack(tmp_path, entries), checkpoints="\n".join(notes).encode())

        wrong = "it is not signed with the public key that you gave"
        assert ("checkpoint 1 in the pack", wrong) in findings_of(checked(pack))

    def test_a_check_reports_it(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        pack = a_pack(tmp_path, [created(), a_fork()])

        assert status_of([str(pack), "--public-key", PUBLIC_KEY]) == 0
        said = capsys.readouterr().out
        assert f"Entry 1 is a fork to {KEY.name}: the log was replaced by a new one" in said

    def test_the_page_in_the_pack_says_what_it_is(self, tmp_path: Path) -> None:
        page = contents_of(a_pack(tmp_path, [created()]))["HOW-TO-CHECK.md"].decode()

        assert "## If there is a fork" in page
        assert all(name in page for name in ("AuditLog.Forked", "previous_root", "previous_size"))


def lived(random: Random) -> list[bytes]:
    """Return entries of keys after random commands."""
    now = NOON
    keys: list[ApiKey] = []
    entries: list[bytes] = []

    def a_time() -> Any:  # noqa: ANN401 - a time or none
        return random.choice([None, now + timedelta(minutes=random.randint(-5, 60))])

    commands: list[Callable[[ApiKey], object]] = [
        lambda key: key.revoke(reason="r", comment=None, by=ADA, at=now),
        lambda key: key.expire(by=ADA, at=now),
        lambda key: key.rename(f"n{random.random()}", by=ADA, at=now),
        lambda key: key.change_scopes([f"a:b{random.randint(0, 9)}"], by=ADA, at=now),
        lambda key: key.change_expiration(a_time(), by=ADA, at=now),
        lambda key: keys.append(
            key.rotate(
                a_credential(),
                successor_id=UUID(int=random.getrandbits(128)),
                grace=timedelta(minutes=random.randint(0, 30)),
                by=ADA,
                at=now,
            )
        ),
    ]
    for _ in range(random.randint(1, 60)):
        now += timedelta(minutes=random.randint(-3, 20))
        try:
            if not keys or random.random() < 0.2:
                uuid = UUID(int=random.getrandbits(128))
                keys.append(a_new_key(key_id=uuid, expires_at=a_time(), at=now))
            else:
                random.choices(commands, [1, 2, 3, 2, 5, 2])[0](random.choice(keys))
        except LedgerError:
            continue
        for key in keys:
            entries += [
                entry_of(event) for event in key.collect_events() if isinstance(event, ApiKey.Event)
            ]
    return entries


@PATIENT
@given(st.lists(st.lists(st.binary(max_size=2), max_size=20), max_size=8))
def test_the_verifiers_tree_is_the_ledgers(batches: list[list[bytes]]) -> None:
    """Two trees that share no code."""
    tree, growth = Tree(), CompactRange(0, lambda _nodes: [])
    for batch in batches:
        tree.extend(batch)
        for entry in batch:
            growth.append(entry)

        assert (tree.size, tree.root()) == (growth.size, growth.root())


_TYPED_KEY = b"\x02" + KEY.verifier_key.public_key
KEY_FOR_ANOTHER_ALGORITHM = "+".join(
    [
        KEY.name,
        sha256(f"{KEY.name}\n".encode() + _TYPED_KEY).hexdigest()[:8],
        b64encode(_TYPED_KEY).decode(),
    ]
)


def status_of(arguments: list[str]) -> object:
    try:
        return main(arguments)
    except SystemExit as stopped:  # argparse's own way
        return stopped.code


class TestCommand:
    """The file from the pack, without the rest of the program."""

    @pytest.fixture
    def alone(self, tmp_path: Path) -> Path:
        pack = a_pack(tmp_path, ENTRIES, sizes=[7])
        with ZipFile(pack) as archive:
            archive.extract("offline_verifier.py", tmp_path)
        (tmp_path / "kept.txt").write_text(checkpoint_notes(ENTRIES, [7])[0])
        (tmp_path / "key.txt").write_text(f"{PUBLIC_KEY}\n")
        return tmp_path

    def run(self, place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-I", "offline_verifier.py", *arguments],
            cwd=place,
            capture_output=True,
            text=True,
            check=False,
        )

    def test_a_sound_pack(self, alone: Path) -> None:
        done = self.run(alone, "pack.zip", "--public-key", PUBLIC_KEY, "--previous", "kept.txt")

        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"SOUND  {KEY.name}: {len(ENTRIES)} entries of ")
        assert "2 checkpoints" in done.stdout
        assert "--previous" not in done.stdout

    def test_the_key_may_be_in_a_file_and_the_kept_checkpoint_missing(self, alone: Path) -> None:
        done = self.run(alone, "pack.zip", "--public-key", "key.txt")

        assert done.returncode == 0
        assert "No earlier checkpoint was given" in done.stdout

    def test_a_forged_pack(self, alone: Path) -> None:
        forged(alone / "pack.zip", entries=jsonl(ENTRIES[::-1]))

        done = self.run(alone, "pack.zip", "--public-key", PUBLIC_KEY)

        assert done.returncode == 1
        assert "WRONG  entry 1 (line 2): the history of apikey_" in done.stdout
        assert "       What to do: " in done.stdout
        assert "SOUND" not in done.stdout

    @pytest.mark.parametrize(
        "arguments",
        [
            [],
            ["pack.zip"],
            ["--public-key", PUBLIC_KEY],
            ["missing.zip", "--public-key", PUBLIC_KEY],
            ["pack.zip", "--public-key", "missing.txt"],
            ["pack.zip", "--public-key", PUBLIC_KEY.replace("+A", "+B")],
            ["pack.zip", "--public-key", PUBLIC_KEY.replace("ledger.", "ledgers.")],
            ["pack.zip", "--public-key", KEY_FOR_ANOTHER_ALGORITHM],
            ["pack.zip", "--public-key", "kept.txt"],
            ["pack.zip", "--public-key", PUBLIC_KEY, "--previous", "missing.txt"],
            ["pack.zip", "--public-key", PUBLIC_KEY, "--previous", "key.txt"],
        ],
    )
    def test_a_usage_error(
        self,
        alone: Path,
        arguments: list[str],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(alone)

        assert status_of(arguments) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert "usage:" in said.err

    def test_it_needs_nothing_but_python_and_cryptography(self) -> None:
        tree = ast.parse(Path(offline_verifier.__file__).read_text())
        imported = {
            name.partition(".")[0]
            for node in ast.walk(tree)
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }

        assert imported - set(sys.stdlib_module_names) == {"cryptography"}
