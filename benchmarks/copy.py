"""Copies of a ledger: against reading the same events once, and nothing else.

A copy reads all events and writes them with their index; then it makes the views at the target, as
a rebuild does (whose benchmark has them), and reads all events on both sides to compare each byte.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from uuid import uuid4

import psycopg
from sqlalchemy import URL, make_url

from benchmarks.claims import Row
from benchmarks.made_history import MadeHistory
from benchmarks.made_ledger import make_ledger
from projections.database import Database, open_database
from projections.ledger_copy import AT_ONCE, copy_ledger
from projections.rebuild import build_outdated_views
from projections.stored_events import read_rows
from projections.views import VIEWS

_EVENTS = 200_000
_ROUNDS = 3
_SERVER = "BENCHMARK_DATABASE_URL"
"""Names a PostgreSQL server for the time it takes, and a user who may make databases there."""


NewTarget = Callable[[], AbstractContextManager[Database]]


def run(*, quick: bool) -> list[Row]:
    """Copy a ledger in a file to another file, and to PostgreSQL and back where there is one."""
    events, rounds = (_EVENTS // 10, 1) if quick else (_EVENTS, _ROUNDS)
    with TemporaryDirectory(prefix="keyledger-bench-") as folder, ExitStack() as opened:
        new_file = partial(_new_file, Path(folder))
        file = opened.enter_context(closing(make_ledger(Path(folder), MadeHistory(), events)))
        build_outdated_views(file, VIEWS, clock=_now)
        rows = _copies("file to file", file, new_file, events, rounds)
        if _SERVER not in os.environ:
            return [*rows, Row("file to PostgreSQL, and back", f"name a server by {_SERVER}")]
        new_database = partial(_new_database, make_url(os.environ[_SERVER]))
        server = opened.enter_context(new_database())
        copy_ledger(file, server, clock=_now)
        return [
            *rows,
            *_copies("file to PostgreSQL", file, new_database, events, rounds),
            *_copies("PostgreSQL to file", server, new_file, events, rounds),
        ]


def _copies(
    what: str, source: Database, new_target: NewTarget, events: int, rounds: int
) -> list[Row]:
    """Measure the reading and the copying in turn; return the whole and its first part."""
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
    """Takes the time from when a copy begins to copy events to when it begins the next thing."""

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
    with closing(open_database(f"sqlite:///{folder / uuid4().hex}")) as database:
        yield database


@contextmanager
def _new_database(server: URL) -> Iterator[Database]:
    url = server.set(database=f"keyledger_benchmark_{uuid4().hex}")
    plain = server.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{url.database}" TEMPLATE template0'.encode())
        try:
            with closing(open_database(url)) as database:
                yield database
        finally:
            connection.execute(f'DROP DATABASE "{url.database}"'.encode())


def _now() -> datetime:
    return datetime.now(UTC)
