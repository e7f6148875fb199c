"""Rebuilding views, compared with only reading and decoding the same events."""

import json
import re
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Self

from sqlalchemy import URL

from benchmarks.claims import Row, at_least, at_most
from benchmarks.made_history import MadeHistory
from benchmarks.made_ledger import SEALS, make_ledger
from projections.rebuild.rebuild import ReplayReport, build_outdated_views, rebuild
from projections.store.database import Database, open_database
from projections.store.events import decoded, read_rows
from projections.views import auth_lookup, key_list
from projections.views.registry import VIEWS

_EVENTS = 1_000_000
_ROUNDS = 3
_READ_AT_ONCE = 10_000
_CLAIMED = frozenset({key_list.VIEW.name, auth_lookup.VIEW.name})


def run(*, quick: bool) -> list[Row]:
    """Measure rebuilding."""
    events, rounds = (_EVENTS // 20, 1) if quick else (_EVENTS, _ROUNDS)
    with TemporaryDirectory(prefix="keyledger-bench-") as folder:
        large, small = Path(folder) / "large", Path(folder) / "small"
        for place, count in ((large, events), (small, events // 10)):
            place.mkdir()
            database = make_ledger(place, MadeHistory(), count)
            build_outdated_views(database, VIEWS, clock=_now)
            database.close()
        database = open_database(_url_of(large)).sealed_by(SEALS)
        rows = speed(database, events, rounds)
        database.close()
        return [*rows, memory(_url_of(large), _url_of(small), events)]


def speed(database: Database, events: int, rounds: int) -> list[Row]:
    """Rebuild each view of a ledger of this many events while another thread appends."""
    pairs: dict[str, list[tuple[float, ReplayReport]]] = {view.name: [] for view in VIEWS}
    with _Writer(database) as writer:
        for _ in range(rounds):
            for view in VIEWS:
                floor = _read_and_decode(database)
                pairs[view.name].append((floor, rebuild(database, view, clock=_now)))
    rows = []
    for name, made in pairs.items():
        ratio = median(floor / report.seconds for floor, report in made)
        seconds = median(report.seconds for _, report in made)
        floor = median(floor for floor, _ in made)
        measured = f"{seconds:.2f} s, {events / seconds:,.0f} events/s"
        read = f"{floor:.2f} s, {events / floor:,.0f} events/s read and decoded"
        row = at_least(f"{name}, {events:,} events", measured, read, ratio, 0.50)
        # The other views also write and hash a row for each event.
        rows.append(row if name in _CLAIMED else Row(row.what, measured, read, ratio))
    locked = max(report.locked_seconds for made in pairs.values() for _, report in made)
    rows.append(at_most("cutover pause", f"{locked * 1e3:.0f} ms", "250 ms", locked / 0.25, 1.0))
    rows.append(Row("longest wait of a writer during all this", f"{writer.longest * 1e3:.0f} ms"))
    return rows


class _Writer:
    """Takes the append lock every few milliseconds, and keeps the longest wait for it."""

    def __init__(self, database: Database) -> None:
        # Like another process: it does not queue for this process's connection.
        self._database = open_database(database.url).sealed_by(SEALS)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self.longest = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._database.close()

    def _write(self) -> None:
        while not self._stopped.wait(0.02):
            started = time.perf_counter()
            with self._database.append():
                self.longest = max(self.longest, time.perf_counter() - started)


def memory(large: URL, small: URL, events: int) -> Row:
    """Rebuild each view of a ledger of this many events, and of one a tenth of the size."""
    most, least = _peak(large), _peak(small)
    what = f"peak memory of a process that rebuilds {events:,} events"
    return at_most(what, f"{most:.0f} MiB", f"{least:.0f} MiB for a tenth", most / least, 1.2)


def _peak(url: URL) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.rebuild"],
        input=url.render_as_string(hide_password=False),
        check=True,
        capture_output=True,
        text=True,
    )
    return float(json.loads(done.stdout)) / 1024


def _read_and_decode(database: Database) -> float:
    """Keep no events: traversing them would take the garbage collector as long as the rest."""
    started, position, count = time.perf_counter(), 0, _READ_AT_ONCE
    while count == _READ_AT_ONCE:
        with database.read() as connection:
            rows = read_rows(connection, after=position, limit=_READ_AT_ONCE)
        for recorded in decoded(rows):
            position = recorded.position
        count = len(rows)
    return time.perf_counter() - started


def _url_of(place: Path) -> URL:
    return URL.create("sqlite", database=str(place / "ledger.sqlite3"))


def _now() -> datetime:
    return datetime.now(UTC)


if __name__ == "__main__":
    opened = open_database(sys.stdin.read()).sealed_by(SEALS)
    for each in VIEWS:
        rebuild(opened, each, clock=_now)
    # The values of getrusage for a child include those of its parent.
    status = Path("/proc/self/status").read_text()
    print(re.findall(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)[0])
