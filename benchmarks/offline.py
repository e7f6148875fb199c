"""Audit packs: time and memory for verifying a whole history offline."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.claims import Row, at_most
from benchmarks.made_history import MadeHistory
from domain.public_event import entry_of
from projections.tlog.audit_pack import write_pack
from projections.tlog.checkpoint import Checkpoint, sign_checkpoint
from projections.tlog.merkle import CompactRange
from projections.tlog.notes import SigningKey
from projections.tlog.offline_verifier import verify_pack

_ENTRIES = 1_000_000
_SECONDS = 15
_ROUNDS = 3
_CHECKPOINTS = 100
_KEY = SigningKey("ledger.example/audit", bytes(range(32)))


def run(*, quick: bool) -> list[Row]:
    """Measure audit packs, each step in a process of its own."""
    entries, rounds = (_ENTRIES // 20, 1) if quick else (_ENTRIES, _ROUNDS)
    with TemporaryDirectory(prefix="keyledger-bench-") as folder:
        large, small = Path(folder) / "large", Path(folder) / "small"
        for place, count in ((large, entries), (small, entries // 10)):
            place.mkdir()
            _make_history(place, count)
        written, written_small = _step("write", large), _step("write", small)
        checks = [_step("check", large) for _ in range(rounds)]
    checked, seconds = checks[0], median(each["seconds"] for each in checks)
    allowed = _SECONDS * entries / _ENTRIES
    each = checked["bytes"] / checked["keys"]
    return [
        at_most(
            f"offline verification of {checked['entries']:,} entries",
            f"{seconds:.1f} s",
            f"{allowed:.2g} s",
            seconds / allowed,
            1.0,
        ),
        Row(
            f"memory that it takes for the histories of {checked['keys']:,} keys",
            f"{checked['bytes'] / 2**20:.0f} MiB, {each:.0f} bytes a key",
        ),
        Row(f"writing a pack of {checked['entries']:,} entries", f"{written['seconds']:.1f} s"),
        at_most(
            "peak memory of writing it",
            f"{written['peak'] / 2**20:.0f} MiB",
            f"{written_small['peak'] / 2**20:.0f} MiB for a tenth",
            written["peak"] / written_small["peak"],
            1.2,
        ),
    ]


def _make_history(place: Path, count: int) -> None:
    """Write entries; write one more at the end if a rotation lacks its second entry."""
    with (place / "entries.jsonl").open("wb") as file:
        last = b""
        events = MadeHistory().events()
        for event in islice(events, count):
            last = entry_of(event)
            file.write(last + b"\n")
        if b'"rotated_from":"' in last:
            file.write(entry_of(next(events)) + b"\n")
    tree = CompactRange(0, lambda _nodes: [])
    sizes = range(0, count, count // _CHECKPOINTS)
    with (place / "notes.json").open("w") as file:
        notes = []
        for entry in _entries(place):
            if tree.size in sizes:
                notes.append(_note(tree))
            tree.append(entry)
        json.dump([*notes, _note(tree)], file)


def _entries(place: Path) -> Iterator[bytes]:
    with (place / "entries.jsonl").open("rb") as file:
        for line in file:
            yield line[:-1]


def _note(tree: CompactRange) -> str:
    return sign_checkpoint(Checkpoint(_KEY.name, tree.size, tree.root()), _KEY)


def _step(what: str, place: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.offline", what, str(place)],
        check=True,
        capture_output=True,
        text=True,
    )
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def _write(place: Path) -> dict[str, int]:
    notes = json.loads((place / "notes.json").read_text())
    with (place / "pack.zip").open("wb") as target:
        write_pack(target, entries=_entries(place), checkpoints=notes, key=_KEY, reports={})
    return {}


def _check(place: Path) -> dict[str, int]:
    before = _peak()
    report = verify_pack(place / "pack.zip", public_key=str(_KEY.verifier_key))
    if report.findings:
        message = f"the pack is not sound: {report.findings[0]}"
        raise RuntimeError(message)
    return {"entries": report.entries, "keys": report.keys, "bytes": _peak() - before}


def _peak() -> int:
    """Return the maximum memory of this process, in bytes.

    `resource.getrusage` would include the memory of the parent process.
    """
    status = Path("/proc/self/status").read_text()
    (kilobytes,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(kilobytes) * 1024


if __name__ == "__main__":
    begun = time.perf_counter()
    told = {"write": _write, "check": _check}[sys.argv[1]](Path(sys.argv[2]))
    seconds = time.perf_counter() - begun
    print(json.dumps({"seconds": seconds, "peak": _peak(), **told}))
