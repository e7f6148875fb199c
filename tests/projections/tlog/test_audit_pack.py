"""The form of a pack: any archiver can read it, and no byte of it can differ."""

import hashlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import pytest

from projections.tlog import offline_verifier
from projections.tlog.audit_pack import HOW_TO_CHECK, write_pack
from projections.tlog.checkpoint import open_checkpoint
from projections.tlog.notes import open_note
from projections.tlog.offline_verifier import FIXED_NAMES, MANIFEST
from tests.projections.tlog.packs import (
    ANOTHER_KEY,
    KEY,
    PUBLIC_KEY,
    a_creation,
    a_line,
    a_pack,
    checked,
    checkpoint_notes,
    findings_of,
    forged,
    made_entries,
)

ENTRIES = [
    a_creation(name="Zoë 👩‍💻"),
    a_line("Renamed", 2, name="one"),
    a_line("ScopesChanged", 3, scopes=["*"]),
    a_line("Revoked", 4, reason="leaked", comment=None),
]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack to be read; who changes it puts it right again."""
    place = tmp_path_factory.mktemp("small")
    return a_pack(place, ENTRIES, sizes=[1], reports={"keys.csv": [b"key_id\n", b"x\n"]})


class TestForm:
    def test_any_archiver_reads_it(self, small: Path) -> None:
        with ZipFile(small) as archive:
            assert archive.testzip() is None
            infos = archive.infolist()
            contents = {info.filename: archive.read(info) for info in infos}

        assert list(contents) == [*FIXED_NAMES, "reports/keys.csv", MANIFEST]
        assert {info.compress_type for info in infos} == {ZIP_STORED}
        assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}
        assert {info.external_attr >> 16 for info in infos} == {0o100644}
        assert contents["entries.jsonl"] == b"".join(entry + b"\n" for entry in ENTRIES)
        assert contents["public-key.txt"].decode() == f"{PUBLIC_KEY}\n"
        assert contents["HOW-TO-CHECK.md"] == HOW_TO_CHECK.read_bytes()
        assert contents["offline_verifier.py"] == Path(offline_verifier.__file__).read_bytes()
        assert contents["reports/keys.csv"] == b"key_id\nx\n"

    def test_the_checkpoints_are_there_as_they_were_signed(self, small: Path) -> None:
        with ZipFile(small) as archive:
            kept = archive.read("checkpoints.txt").decode()

        assert kept == "\n".join(checkpoint_notes(ENTRIES, [1, 4]))

    def test_the_manifest_is_signed_and_names_everything_else(self, small: Path) -> None:
        with ZipFile(small) as archive:
            text, _ = open_note(archive.read(MANIFEST).decode(), [KEY.verifier_key])
            others = [name for name in archive.namelist() if name != MANIFEST]
            digests = [hashlib.sha256(archive.read(name)).hexdigest() for name in others]
        size, root = checkpoint_notes(ENTRIES, [4])[0].split("\n")[1:3]

        assert text.split("\n") == [
            "Keyledger audit pack 1",
            "origin ledger.example/audit",
            f"size {size}",
            f"root {root}",
            *(f"{digest}  {name}" for name, digest in zip(others, digests, strict=True)),
            "",
        ]

    def test_the_manifest_can_never_be_taken_for_a_checkpoint(self, small: Path) -> None:
        with (
            ZipFile(small) as archive,
            pytest.raises(ValueError, match="second line of a checkpoint"),
        ):
            open_checkpoint(archive.read(MANIFEST).decode(), [KEY.verifier_key])

    def test_the_same_contents_give_the_same_bytes(self, small: Path, tmp_path: Path) -> None:
        again = a_pack(tmp_path, ENTRIES, sizes=[1], reports={"keys.csv": [b"key_id\nx\n"]})

        assert again.read_bytes() == small.read_bytes()

    def test_it_is_sound(self, small: Path) -> None:
        report = checked(small)

        assert findings_of(report) == []
        assert (report.origin, report.entries, report.keys) == (KEY.name, 4, 1)
        assert report.checkpoints == 2

    def test_an_empty_history_is_sound(self, tmp_path: Path) -> None:
        report = checked(a_pack(tmp_path, []))

        assert findings_of(report) == []
        assert report.root == hashlib.sha256(b"").digest()

    def test_a_large_history_is_sound(self, tmp_path: Path) -> None:
        entries = made_entries(3000)

        report = checked(a_pack(tmp_path, entries, sizes=[0, 1, 2, 777, 777, 2048]))

        assert findings_of(report) == []
        assert report.entries == len(entries)
        assert report.keys == sum(b"ApiKey.Created" in entry for entry in entries)
        assert report.checkpoints == 7


class TestWriting:
    def test_an_invalid_pack_is_not_written(self) -> None:
        for checkpoints in (
            [],
            checkpoint_notes(ENTRIES, [3]),
            checkpoint_notes(ENTRIES[::-1], [4]),
        ):
            with pytest.raises(ValueError, match="does not cover the 4 entries"):
                write_pack(
                    io.BytesIO(), entries=ENTRIES, checkpoints=checkpoints, key=KEY, reports={}
                )

    def test_another_keys_checkpoint_is_refused(self) -> None:
        notes = checkpoint_notes(ENTRIES, [4], key=ANOTHER_KEY)

        with pytest.raises(ValueError, match="and not by"):
            write_pack(io.BytesIO(), entries=ENTRIES, checkpoints=notes, key=KEY, reports={})

    @pytest.mark.parametrize("name", ["", "../keys.csv", "a/b", "Keys.csv", "-", ".x", "a\n"])
    def test_a_report_has_a_plain_name(self, name: str) -> None:
        with pytest.raises(ValueError, match="characters a-z"):
            write_pack(
                io.BytesIO(),
                entries=ENTRIES,
                checkpoints=checkpoint_notes(ENTRIES, [4]),
                key=KEY,
                reports={name: []},
            )

    def test_contents_are_streamed(self) -> None:
        """No entry is asked for before the one before it was written."""
        target = io.BytesIO()

        def entries() -> Iterator[bytes]:
            for entry in ENTRIES:
                yield entry
                assert entry in target.getvalue()

        write_pack(
            target,
            entries=entries(),
            checkpoints=iter(checkpoint_notes(ENTRIES, [4])),
            key=KEY,
            reports={},
        )


class _Stream:
    """A file that can be written to and not be sought in."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, content: bytes) -> int:
        return self._file.write(content)

    def flush(self) -> None:
        self._file.flush()


class TestTampering:
    def test_every_flipped_byte_is_found(self, small: Path) -> None:
        content = small.read_bytes()
        with ZipFile(small) as archive:
            documents = [
                content.index(archive.read(name)) + at
                for name in ("HOW-TO-CHECK.md", "offline_verifier.py")
                for at in range(archive.getinfo(name).file_size)
            ]
        # Of the two long documents, which are hashed like all the rest, every 211th.
        places = sorted({*range(len(content))} - {*documents} | {*documents[::211]})
        assert len(places) > 3000
        unnoticed = []
        with small.open("r+b", buffering=0) as file:
            for at in places:
                os.pwrite(file.fileno(), bytes([content[at] ^ 1 << at % 8]), at)
                if not checked(small).findings:
                    unnoticed.append(at)
                os.pwrite(file.fileno(), content[at : at + 1], at)

        assert unnoticed == []
        assert findings_of(checked(small)) == []

    def test_every_cut_is_found(self, small: Path, tmp_path: Path) -> None:
        content = small.read_bytes()
        cut = tmp_path / "cut.zip"
        cut.write_bytes(content)
        unnoticed = []
        for length in range(len(content) - 1, -1, -1):
            os.truncate(cut, length)
            if not checked(cut).findings:
                unnoticed.append(length)

        assert unnoticed == []

    @pytest.mark.parametrize("more", [b"\0", b"more", b"PK\x05\x06" + bytes(18)])
    def test_bytes_before_after_and_between_are_found(
        self, small: Path, tmp_path: Path, more: bytes
    ) -> None:
        content = small.read_bytes()
        second = content.index(b"PK\x03\x04", 4)
        for at in (0, second, len(content)):
            changed = tmp_path / "changed.zip"
            changed.write_bytes(content[:at] + more + content[at:])

            assert findings_of(checked(changed))

    def test_an_archive_of_the_same_files_is_not_a_pack(self, small: Path, tmp_path: Path) -> None:
        again = tmp_path / "again.zip"
        with ZipFile(small) as archive, ZipFile(again, "w") as other:
            for info in archive.infolist():
                other.writestr(info, archive.read(info))

        assert [where for where, _ in findings_of(checked(again))] == ["the pack"]

    @pytest.mark.parametrize("compression", [ZIP_STORED, ZIP_DEFLATED])
    @pytest.mark.parametrize("into", ["a file", "a stream"])
    @pytest.mark.parametrize("comment", [b"", b"packed again"])
    def test_a_repacked_archive_is_not_called_truncated(
        self, small: Path, tmp_path: Path, compression: int, into: str, comment: bytes
    ) -> None:
        again = tmp_path / "again.zip"
        with again.open("wb") as file:
            # Into what cannot be sought in, sizes are written after the contents.
            target = file if into == "a file" else _Stream(file)
            with ZipFile(small) as archive, ZipFile(target, "w", compression) as other:  # type: ignore[call-overload]
                other.comment = comment
                for name in reversed(archive.namelist()):
                    other.writestr(name, archive.read(name))

        ((where, wrong),) = findings_of(checked(again))

        assert where == "the pack"
        assert "another program packed its files again" in wrong
        assert "it is truncated" not in wrong

    @pytest.mark.parametrize("name", ["HOW-TO-CHECK", "offline_verifier", "reports/keys"])
    def test_a_replaced_document_is_named(self, small: Path, tmp_path: Path, name: str) -> None:
        copy = tmp_path / "copy.zip"
        copy.write_bytes(small.read_bytes())

        wheres = [where for where, _ in findings_of(checked(forged(copy, **{name: b"other\n"})))]

        assert len(wheres) == 2
        assert wheres[0].startswith(name)
        assert wheres[1] == MANIFEST


class TestDirections:
    """HOW-TO-CHECK.md is followed to the letter."""

    @pytest.fixture
    def unpacked(self, small: Path, tmp_path: Path) -> Path:
        with ZipFile(small) as archive:
            archive.extractall(tmp_path)
        return tmp_path

    def test_the_files_are_those_that_were_signed(self, unpacked: Path) -> None:
        (command,) = re.findall(r"^grep .*$", HOW_TO_CHECK.read_text(), re.MULTILINE)

        done = subprocess.run(
            ["/bin/sh", "-c", command], cwd=unpacked, check=True, capture_output=True, text=True
        )

        assert done.stdout.splitlines() == [
            f"{name}: OK" for name in [*FIXED_NAMES, "reports/keys.csv"]
        ]

    def test_the_entries_have_the_root_that_was_signed(self, unpacked: Path) -> None:
        (program,) = re.findall(
            r"^```python\n(.*?)^```$", HOW_TO_CHECK.read_text(), re.MULTILINE | re.DOTALL
        )

        done = subprocess.run(
            [sys.executable, "-I", "-c", program],
            cwd=unpacked,
            check=True,
            capture_output=True,
            text=True,
        )

        assert done.stdout.strip() == checkpoint_notes(ENTRIES, [4])[0].split("\n")[2]
