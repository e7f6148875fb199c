"""Audit endpoints: the export of a whole history, and proofs from trees of two sizes."""

import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory

from api.composition import opened_ledger
from api.settings import read_settings
from benchmarks.claims import Row, at_most
from benchmarks.made_history import START, MadeHistory
from benchmarks.made_ledger import store
from benchmarks.servers import keyledger_on
from domain.api_key import ApiKey
from domain.caller import system
from domain.verifiers import CHEAPEST
from projections.audit_log.proofs import prove_consistency, prove_inclusion
from projections.store.database import Database
from projections.views.entries import size_of

_MANY, _FEW = 1_000_000, 1_000
_PROOFS = 1000
_MOST_MEMORY = 1.2
_MOST_TIME = 2.0
_CHUNK = 1 << 20


def run(*, quick: bool) -> list[Row]:
    """Export both ledgers from a server, then prove entries of both in turn."""
    many, proofs = (_MANY // 20, 100) if quick else (_MANY, _PROOFS)
    with TemporaryDirectory(prefix="keyledger-bench-") as folder:
        large = _made(Path(folder) / "large", many)
        small = _made(Path(folder) / "small", many // 10)
        few = _made(Path(folder) / "few", _FEW)
        rows = _exports(large, small)
        rows += _proofs(large, few, proofs)
    return rows


@dataclass(frozen=True, slots=True)
class Made:
    """The folder of a ledger, and the token of a key that may read all its events."""

    data_dir: Path
    token: str


@dataclass(frozen=True, slots=True)
class Exported:
    """The cost of an export; ``peak`` is the maximum memory of the server, in bytes."""

    lines: int
    seconds: float
    peak: int


def _made(data_dir: Path, events: int) -> Made:
    data_dir.mkdir()
    store(data_dir, _from_now_on(islice(MadeHistory().events(), events))).close()
    (data_dir / "ledger.sqlite3").rename(data_dir / "keyledger.sqlite3")
    with opened_ledger(read_settings(data_dir=data_dir), argon2_profile=CHEAPEST) as opened:
        issued = opened.ledger.create_key(
            workspace="root",
            name="auditor",
            scopes=["audit:read"],
            expires_at=None,
            token_prefix="key",
            by=system("benchmark"),
            at=datetime.now(UTC),
        )
    if issued.token is None:
        raise RuntimeError("a key was made without a token")
    return Made(data_dir, issued.token.reveal())


def _from_now_on(made: Iterator[ApiKey.Event]) -> Iterator[ApiKey.Event]:
    """Shift a history so that no key is due and the server does not append while measured."""
    later = datetime.now(UTC) - START
    for event in made:
        values = vars(event)
        values["timestamp"] += later
        if values.get("expires_at") is not None:
            values["expires_at"] += later
        yield event


def _exports(large: Made, small: Made) -> list[Row]:
    exported, exported_small = _export(large), _export(small)
    rate = exported.lines / exported.seconds
    return [
        Row(f"NDJSON of {exported.lines:,} events over HTTP", f"{rate:,.0f} lines/s"),
        at_most(
            "peak memory of the server",
            f"{exported.peak / 2**20:.0f} MiB",
            f"{exported_small.peak / 2**20:.0f} MiB for {exported_small.lines:,} events",
            exported.peak / exported_small.peak,
            _MOST_MEMORY,
        ),
    ]


def _export(made: Made) -> Exported:
    with keyledger_on(made.data_dir) as started:
        request = urllib.request.Request(
            f"http://127.0.0.1:{started.port}/v1/events?workspace=*",
            headers={
                "Authorization": f"Bearer {made.token}",
                "Accept": "application/x-ndjson",
            },
        )
        began = time.perf_counter()
        lines = 0
        with urllib.request.urlopen(request) as answer:  # noqa: S310 - as above
            while chunk := answer.read(_CHUNK):
                lines += chunk.count(b"\n")
        return Exported(lines, time.perf_counter() - began, _peak(started.process_id))


def _peak(process_id: int) -> int:
    """Return the maximum memory of a process, in bytes."""
    status = Path(f"/proc/{process_id}/status").read_text()
    (kilobytes,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(kilobytes) * 1024


def _proofs(large: Made, few: Made, count: int) -> list[Row]:
    with (
        opened_ledger(read_settings(data_dir=large.data_dir)) as many_entries,
        opened_ledger(read_settings(data_dir=few.data_dir)) as few_entries,
    ):
        databases = [many_entries.database, few_entries.database]
        rows = []
        for what, prove in (("inclusion", _include), ("consistency", _compare)):
            chance = Random(7)
            times: list[list[float]] = [[], []]
            sizes = [_size(database) for database in databases]
            for _ in range(count):
                for each, database in enumerate(databases):
                    at = chance.randrange(1, sizes[each])
                    began = time.perf_counter()
                    prove(database, at, sizes[each])
                    times[each].append(time.perf_counter() - began)
            many, fewer = median(times[0]), median(times[1])
            rows.append(
                at_most(
                    f"a proof of {what} among {sizes[0]:,} entries",
                    f"{many * 1e3:.2f} ms",
                    f"{fewer * 1e3:.2f} ms among {sizes[1]:,}",
                    many / fewer,
                    _MOST_TIME,
                )
            )
    return rows


def _include(database: Database, at: int, size: int) -> None:
    with database.read() as connection:
        prove_inclusion(connection, at, size)


def _compare(database: Database, at: int, size: int) -> None:
    with database.read() as connection:
        prove_consistency(connection, at, size)


def _size(database: Database) -> int:
    with database.read() as connection:
        return size_of(connection)
