"""Copying a ledger, compared with only reading the same events once.

A copy reads all events and writes them with their index. Then it builds the views in the target,
like a rebuild (which has its own benchmark), and reads all events on both sides to compare them
byte for byte.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from uuid import uuid4

from sqlalchemy import URL

from benchmarks.claims import Row
from benchmarks.databases import new_database, server
from benchmarks.made_history import MadeHistory
from benchmarks.made_ledger import SEALS, make_ledger
from projections.ledger_copy.copy import AT_ONCE, copy_ledger
from projections.rebuild.rebuild import build_outdated_views
from projections.store.database import Database, open_database
from projections.store.events import read_rows
from projections.views.registry import VIEWS

_EVENTS = 200_000
_ROUNDS = 3


NewTarget = Callable[[], AbstractContextManager[Database]]


def run(*, quick: bool) -> list[Row]:
    """Copy a ledger from a file to another file, and to PostgreSQL and back."""
    events, rounds = (_EVENTS // 10, 1) if quick else (_EVENTS, _ROUNDS)
    with TemporaryDirectory(prefix="keyledger-bench-") as folder, ExitStack() as opened:
        new_file = partial(_new_file, Path(folder))
        file = opened.enter_context(closing(make_ledger(Path(folder), MadeHistory(), events)))
        build_outdated_views(file, VIEWS, clock=_now)
        rows = _copies("file to file", file, new_file, events, rounds)
        on = opened.enter_context(server())
        new_on_server = partial(_new_database, on)
        there = opened.enter_context(new_on_server())
        copy_ledger(file, there, clock=_now)
        return [
            *rows,
            *_copies("file to PostgreSQL", file, new_on_server, events, rounds),
            *_copies("PostgreSQL to file", there, new_file, events, rounds),
        ]


def _copies(
    what: str, source: Database, new_target: NewTarget, events: int, rounds: int
) -> list[Row]:
    """Measure reading and copying in turn; return the whole copy and its first part."""
    read, copied, whole = [], [], []
    for _ in range(rounds):
        read.append(_read(source))
        with new_target() as target:
            watch = _Watch()
            whole.append(copy_ledger(source, target, clock=_now, progress=watch).seconds)
            copied.append(watch.seconds)
    floor = f"{median(read):.2f} s, {events / median(read):,.0f} events/s read"
    return [
        Row(
            f"{what}, {events:,} events, {part}",
            f"{median(taken):.2f} s, {events / median(taken):,.0f} events/s",
            floor,
            median(one / other for one, other in zip(read, taken, strict=True)),
        )
        for part, taken in (("the copying alone", copied), ("with views and proof", whole))
    ]


class _Watch:
    """Measures the time from the start of copying events to the start of the next step."""

    def __init__(self) -> None:
        self._begun = 0.0
        self.seconds = 0.0

    def __call__(self, what: str, _done: int, _last: int) -> None:
        self._begun = self._begun or time.perf_counter()
        if what != "copying" and not self.seconds:
            self.seconds = time.perf_counter() - self._begun


def _read(database: Database) -> float:
    started, position = time.perf_counter(), 0
    while True:
        with database.read() as connection:
            rows = read_rows(connection, after=position, limit=AT_ONCE)
        if len(rows) < AT_ONCE:
            return time.perf_counter() - started
        position = rows[-1].id


@contextmanager
def _new_file(folder: Path) -> Iterator[Database]:
    with closing(open_database(f"sqlite:///{folder / uuid4().hex}").sealed_by(SEALS)) as database:
        yield database


@contextmanager
def _new_database(on: URL) -> Iterator[Database]:
    with new_database(on) as url, closing(open_database(url).sealed_by(SEALS)) as database:
        yield database


def _now() -> datetime:
    return datetime.now(UTC)
