"""Appends: creating and revoking a key, compared with one bare row of the same durability.

The baseline uses SQLite's driver on a connection configured like the ledger's writer. It inserts an
event of a generated history into the same table and commits. A command does more: it loads the key
and decides, hashes the secret (with the cheapest Argon2id, which is no part of an append), and
updates the views and the digest in the same transaction.

The share of the audit log, the entry and its leaf, is measured with the same command on a copy of
the ledger whose recorder maintains all other views.
"""

import secrets
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, cast

from api.composition import OpenLedger, opened_ledger
from api.settings import read_settings
from benchmarks.claims import Row, at_least
from benchmarks.made_history import MadeHistory
from benchmarks.made_keys import SCOPE, make_keys
from benchmarks.made_ledger import make_ledger, to_rows
from domain.caller import system
from domain.credential import issue
from domain.key_ledger import KeyLedger
from domain.names import DEFAULT_WORKSPACE
from domain.verifiers import CHEAPEST, Argon2Gate
from projections.auth.pepper_file import read_or_make_pepper
from projections.recorder import LedgerRecorder
from projections.store.database import Database
from projections.store.schema import events
from projections.store.sqlite_driver import driver as sqlite3
from projections.views import entries
from projections.views.registry import VIEWS

_STORED_BEFORE = 10_000
_ROUNDS = 9
_APPENDS = 200
_THREADS = (1, 4)
_LEAST = 0.05
_BY = system("bench")
_INSERT = (
    f"INSERT INTO {events.name} (originator_id, originator_version, topic, state)"  # noqa: S608
    " VALUES (:originator_id, :originator_version, :topic, :state)"
)

Append = Callable[[], object]


def run(*, quick: bool) -> list[Row]:
    """Measure the baseline and both commands in turn, with one writer and with several."""
    rounds, appends = (2, 40) if quick else (_ROUNDS, _APPENDS)
    stored = _STORED_BEFORE // 10 if quick else _STORED_BEFORE
    with TemporaryDirectory(prefix="keyledger-bench-") as folder:
        data_dir, untold = Path(folder) / "data", Path(folder) / "untold"
        make_keys(data_dir, stored)
        shutil.copytree(data_dir, untold)
        history = MadeHistory()
        bare = make_ledger(Path(folder), history, stored)
        with opened_ledger(read_settings(data_dir=data_dir), argon2_profile=CHEAPEST) as ledger:
            commands = _Commands(ledger)
            needed = len(_THREADS) * (1 + rounds) * appends
            floor = _Bare(bare, list(to_rows(islice(history.events(), needed))))
            rows = []
            for threads in _THREADS:
                rows += _against_floor(floor, commands, threads, rounds, appends)
            floor.close()
            with opened_ledger(read_settings(data_dir=untold), argon2_profile=CHEAPEST) as other:
                without = _Commands(replace(other, ledger=_without_entries(other)))
                rows.append(_entry_and_leaf(commands, without, rounds, appends))
        bare.close()
    return rows


def _without_entries(opened: OpenLedger) -> KeyLedger:
    gate = Argon2Gate(at_once=1, waiting=0, profile=CHEAPEST)
    pepper = read_or_make_pepper(opened.settings.pepper_path, secrets.token_bytes)
    views = [view for view in VIEWS if view is not entries.VIEW]
    return KeyLedger(
        LedgerRecorder(opened.database, views),
        lambda prefix: issue(prefix, random=secrets.token_bytes, gate=gate, pepper=pepper),
    )


def _entry_and_leaf(commands: "_Commands", without: "_Commands", rounds: int, appends: int) -> Row:
    """Compare creating keys with and without writing an entry and hashing its leaf."""
    with ThreadPoolExecutor(1) as pool:
        pairs = [
            (
                rate(pool, commands.create_key, 1, appends),
                rate(pool, without.create_key, 1, appends),
            )
            # The first round is a warm-up.
            for _ in range(1 + rounds)
        ][1:]
    told, untold = (1e3 / median(each) for each in zip(*pairs, strict=True))
    share = median(1 - one / other for one, other in pairs)
    return Row(
        "the entry and its leaf, of a create_key",
        f"{told - untold:.2f} ms of {told:.2f}",
        f"{untold:.2f} ms without them",
        share,
    )


class _Bare:
    """Appends bare rows to an event store."""

    def __init__(self, database: Database, rows: list[dict[str, Any]]) -> None:
        self._pooled = database.writer.raw_connection()
        self._connection = cast("sqlite3.Connection", self._pooled.driver_connection)
        self._rows = rows
        self._lock = threading.Lock()

    def append(self) -> None:
        """Append a row."""
        # A connection belongs to one thread at a time, and SQLite has one writer at a time anyway.
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute(_INSERT, self._rows.pop())
            self._connection.execute("COMMIT")

    def close(self) -> None:
        """Return the connection."""
        self._pooled.close()


class _Commands:
    """Runs commands on a ledger."""

    def __init__(self, ledger: OpenLedger) -> None:
        self._ledger = ledger
        self._living: list[str] = []

    def create_key(self) -> None:
        """Create a key."""
        issued = self._ledger.ledger.create_key(
            workspace=DEFAULT_WORKSPACE,
            name="bench",
            scopes=[SCOPE],
            expires_at=None,
            token_prefix="key",
            by=_BY,
            at=self._ledger.clock(),
        )
        self._living.append(issued.key_id)

    def revoke_key(self) -> None:
        """Revoke a key that was created before; each only once."""
        self._ledger.ledger.revoke_key(
            self._living.pop(),
            workspace=DEFAULT_WORKSPACE,
            reason="no longer used",
            comment=None,
            by=_BY,
            at=self._ledger.clock(),
        )


def _against_floor(
    floor: _Bare, commands: _Commands, threads: int, rounds: int, appends: int
) -> list[Row]:
    measured: dict[str, Append] = {
        "floor": floor.append,
        "create_key": commands.create_key,
        "revoke_key": commands.revoke_key,
    }
    rates: dict[str, list[float]] = {name: [] for name in measured}
    with ThreadPoolExecutor(threads) as pool:
        # The first round is a warm-up.
        for turn in range(1 + rounds):
            for name, append in measured.items():
                found = rate(pool, append, threads, appends)
                if turn:
                    rates[name].append(found)
    bare = rates.pop("floor")
    rows = []
    for name, ours in rates.items():
        what = f"{name}, {threads} writer{'s'[: threads - 1]}"
        figure = f"{median(ours):,.0f} events/s"
        floor_figure = f"{median(bare):,.0f} events/s of bare rows"
        ratio = median(one / other for one, other in zip(ours, bare, strict=True))
        row = at_least(what, figure, floor_figure, ratio, _LEAST)
        # With several writers both only take turns: that is shown, and one writer is the claim.
        rows.append(row if threads == 1 else Row(what, figure, floor_figure, ratio))
    return rows


def rate(pool: ThreadPoolExecutor, append: Append, threads: int, appends: int) -> float:
    """Return the appends per second of all threads of a pool together."""

    def share() -> None:
        for _ in range(appends // threads):
            append()

    started = time.perf_counter()
    done = [pool.submit(share) for _ in range(threads)]
    for each in done:
        each.result()
    return appends / (time.perf_counter() - started)
