"""PostgreSQL: verifications, appends by many writers, and rebuilds during verifications."""

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Self

import psycopg
from sqlalchemy import URL

from api.composition import OpenLedger, opened_ledger
from api.settings import read_settings
from benchmarks.append import rate
from benchmarks.claims import Row, at_most
from benchmarks.databases import new_database, server
from benchmarks.made_history import MadeHistory
from benchmarks.made_ledger import SEALS, store_at, to_rows
from benchmarks.rebuild import memory, speed
from benchmarks.servers import bare_app, keyledger
from benchmarks.verify import against_floor, floods
from domain.caller import system
from domain.key_ledger import Changes, Issued
from domain.names import DEFAULT_WORKSPACE
from domain.verdict import Code
from domain.verifiers import CHEAPEST
from projections.rebuild.rebuild import build_outdated_views
from projections.store.database import open_database
from projections.views.registry import VIEWS

_ROUNDS = 5
_SECONDS = 2.0
_EVENTS = 1_000_000
_WRITERS = (1, 8, 32)
_APPENDS = 640
_BY = system("bench")
_INSERT = (
    "INSERT INTO events (originator_id, originator_version, topic, state) VALUES (%s, %s, %s, %s)"
)


def run(*, quick: bool) -> list[Row]:
    """Measure the claims about PostgreSQL, and some further values."""
    rounds, seconds = (1, 0.5) if quick else (_ROUNDS, _SECONDS)
    events = _EVENTS // 50 if quick else _EVENTS
    with server() as on:
        rows = _checks(on, rounds, seconds)
        rows += _appends(on, rounds, _APPENDS // 10 if quick else _APPENDS)
        return rows + _rebuilds(on, events, 1 if quick else 2)


def _checks(on: URL, rounds: int, seconds: float) -> list[Row]:
    with (
        new_database(on) as url,
        bare_app() as floor,
        keyledger(database_url=_text(url)) as served,
    ):
        rows = against_floor(floor, served, rounds, seconds, least=0.50)
        rows += floods(served, 2 * seconds)
    with (
        new_database(on) as url,
        bare_app() as floor,
        keyledger(database_url=_text(url), verify_staleness_seconds=1) as served,
    ):
        stale = against_floor(floor, served, rounds, seconds, least=0.50)
    return rows + [
        Row(f"{row.what}, a second of staleness allowed", row.measured, row.floor, row.ratio)
        for row in stale
    ]


def _appends(on: URL, rounds: int, appends: int) -> list[Row]:
    rows = []
    with (
        TemporaryDirectory(prefix="keyledger-bench-") as folder,
        new_database(on) as url,
        new_database(on) as bare,
    ):
        store_at(bare, ()).close()
        settings = read_settings(
            data_dir=Path(folder) / "data",
            database_url=_text(url),
            database_connections=max(_WRITERS),
        )
        with opened_ledger(settings, argon2_profile=CHEAPEST) as ledger:
            renaming = _Renaming(ledger, appends)
            for writers in _WRITERS:
                floor = _BareRows(bare, writers, (1 + rounds) * appends)
                with ThreadPoolExecutor(writers) as pool:
                    pairs = [
                        (
                            rate(pool, floor.append, writers, appends),
                            rate(pool, renaming.append, writers, appends),
                        )
                        # The first round is a warm-up.
                        for _ in range(1 + rounds)
                    ][1:]
                floor.close()
                rows.append(
                    Row(
                        f"renaming keys, {writers} writer{'s'[: writers - 1]}",
                        f"{median(ours for _, ours in pairs):,.0f} events/s",
                        f"{median(one for one, _ in pairs):,.0f} bare rows/s, each committed",
                        median(ours / one for one, ours in pairs),
                    )
                )
    return rows


class _BareRows:
    """Appends rows, each with its own commit, on as many connections as there are writers."""

    def __init__(self, url: URL, writers: int, needed: int) -> None:
        plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._connections = [psycopg.connect(plain, autocommit=True) for _ in range(writers)]
        # The database assigns the positions, and a history may be stored only once.
        made = to_rows(islice(MadeHistory(seed=writers).events(), needed))
        self._rows = [tuple(row.values()) for row in made]
        self._lock = threading.Lock()

    def append(self) -> None:
        """Append a row."""
        with self._lock:
            connection, row = self._connections.pop(), self._rows.pop()
        key, *rest = row
        connection.execute(_INSERT, (key.hex(), *rest))
        self._connections.append(connection)

    def close(self) -> None:
        """Return the connections."""
        for connection in self._connections:
            connection.close()


class _Renaming:
    """Renames the keys in turn: with a single key, ever more events would have to be read."""

    def __init__(self, ledger: OpenLedger, keys: int) -> None:
        self._ledger = ledger
        self._names = 0
        self._free = deque(_make_key(ledger).key_id for _ in range(keys))

    def append(self) -> None:
        """Rename the next key."""
        key_id = self._free.popleft()
        self._names += 1
        self._ledger.ledger.update_key(
            key_id,
            Changes(name=f"bench {self._names}"),
            workspace=DEFAULT_WORKSPACE,
            by=_BY,
            at=self._ledger.clock(),
        )
        self._free.append(key_id)


def _rebuilds(on: URL, events: int, rounds: int) -> list[Row]:
    with (
        TemporaryDirectory(prefix="keyledger-bench-") as folder,
        new_database(on) as url,
        new_database(on) as small,
    ):
        for place, count in ((small, events // 10), (url, events)):
            database = store_at(place, islice(MadeHistory().events(), count))
            build_outdated_views(database, VIEWS, clock=lambda: datetime.now(UTC))
            database.close()
        database = open_database(url).sealed_by(SEALS)
        settings = read_settings(data_dir=Path(folder) / "data", database_url=_text(url))
        with opened_ledger(settings, argon2_profile=CHEAPEST) as ledger, _Checker(ledger) as checks:
            rows = speed(database, events, rounds)
        database.close()
        rows.append(memory(url, small, events))
    wrong = at_most(
        "checks meanwhile that failed or were stale",
        f"{checks.wrong} of {checks.made:,}",
        "0",
        float(checks.wrong),
        0.0,
    )
    return [*rows, wrong]


class _Checker:
    """Verifies a valid key and a revoked one, again and again."""

    def __init__(self, ledger: OpenLedger) -> None:
        self._ledger = ledger
        good, revoked = _make_key(ledger), _make_key(ledger)
        ledger.ledger.revoke_key(
            revoked.key_id,
            workspace=DEFAULT_WORKSPACE,
            reason=None,
            comment=None,
            by=_BY,
            at=ledger.clock(),
        )
        self._good, self._revoked = _token_of(good), _token_of(revoked)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._check)
        self.made = 0
        self.wrong = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _check(self) -> None:
        verify = self._ledger.authentication.verify
        while not self._ended.wait(0.005):
            for token, right in ((self._good, Code.VALID), (self._revoked, Code.REVOKED)):
                self.made += 1
                try:
                    told = verify(token, (), now=self._ledger.clock()).verdict.code
                except Exception:  # noqa: BLE001 - whatever it is, it is counted
                    self.wrong += 1
                else:
                    self.wrong += told is not right


def _make_key(ledger: OpenLedger) -> Issued:
    return ledger.ledger.create_key(
        workspace=DEFAULT_WORKSPACE,
        name="bench",
        scopes=["a:b"],
        expires_at=None,
        token_prefix="key",
        by=_BY,
        at=ledger.clock(),
    )


def _token_of(issued: Issued) -> str:
    if issued.token is None:
        raise RuntimeError("a new key has a token")
    return issued.token.reveal()


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)
