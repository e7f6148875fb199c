"""Pages of the key list, now and in the past: with a million keys, compared with a thousand.

Measured on SQLite and on PostgreSQL.

Both workspaces have the same shares of each status, and every second key was used, so a page has
the same contents at both sizes. Past pages are read as of the end of the history, when hardly
anything has changed since, and as of times before most of the keys were created, or revoked, or had
expired.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory

from sqlalchemy import URL

from benchmarks.claims import Row, at_most
from benchmarks.databases import new_database, server
from benchmarks.made_history import START, WORKSPACES, MadeHistory
from benchmarks.made_ledger import store_at
from domain.api_key import ApiKey
from projections.queries.filters import Filters
from projections.queries.keys_as_of import list_keys_at
from projections.queries.keys_now import list_keys
from projections.rebuild.rebuild import build_outdated_views
from projections.store.database import Database
from projections.store.last_uses import LastUses
from projections.views import key_list, key_versions
from tests.engines import file_address

_MANY, _FEW = 1_000_000, 1_000
_CALLS = 300
_CALLS_OF_SCANS = 5
_PAGE = 100
# In a small ledger, fewer keys were revoked by mid-history than fit on a larger page.
_PAST_PAGE = 50
_MOST = 2.0
_WORKSPACE = WORKSPACES[0]
_SPAN = timedelta(days=60)
_EARLY, _MIDDLE, _LATE = 0.2, 0.6, 0.98


def run(*, quick: bool) -> list[Row]:
    """Read each kind of page at both sizes in turn."""
    with TemporaryDirectory(prefix="keyledger-bench-") as folder:
        large, small = (file_address(Path(folder) / size) for size in ("large", "small"))
        rows = pages(large, small, quick=quick)
    with server() as on, new_database(on) as large, new_database(on) as small:
        return [
            *rows,
            *(
                replace(row, what=f"PostgreSQL: {row.what}")
                for row in pages(large, small, quick=quick)
            ),
        ]


def pages(at_large: URL, at_small: URL, *, quick: bool) -> list[Row]:
    """Create a large and a small ledger in new databases, and compare their pages."""
    many, calls = (_MANY // 50, 30) if quick else (_MANY, _CALLS)
    large, small = made(at_large, many), made(at_small, _FEW)
    rows = [_compared(what, ask, small, large, calls, claimed=True) for what, ask in PAGES.items()]
    rows += [
        _compared(what, ask, small, large, _CALLS_OF_SCANS, claimed=False)
        for what, ask in SCANS.items()
    ]
    for ledger in (small, large):
        ledger.database.close()
    return rows


@dataclass(frozen=True, slots=True)
class Listed:
    """A ledger with one workspace, to be listed.

    Args:
        keys: number of keys.
        last: position of the newest key.
        now: time of its creation, which is the end of the history.
    """

    database: Database
    keys: int
    last: int
    now: datetime


Ask = Callable[[Listed, Random], float]
"""Reads a page, and returns which share of it was full; a random page if there are many."""


def _page(filters: Filters, *, middle: bool = False) -> Ask:
    def ask(ledger: Listed, chance: Random) -> float:
        before = chance.randint(ledger.last // 4, ledger.last * 3 // 4) if middle else None
        with ledger.database.read() as connection:
            page = list_keys(
                connection, _WORKSPACE, filters, now=ledger.now, before=before, limit=_PAGE
            )
        return len(page) / _PAGE

    return ask


def _past_page(filters: Filters, *, share: float) -> Ask:
    """Read the first page as of the time when a share of the history had happened."""

    def ask(ledger: Listed, _chance: Random) -> float:
        at = START + share * (ledger.now - START)
        with ledger.database.read() as connection:
            page = list_keys_at(connection, _WORKSPACE, filters, at=at, limit=_PAST_PAGE)
        return len(page) / _PAST_PAGE

    return ask


PAGES: dict[str, Ask] = {
    "first page": _page(Filters()),
    "a page anywhere in the middle": _page(Filters(), middle=True),
    "active keys": _page(Filters(status="active")),
    "revoked keys": _page(Filters(status="revoked")),
    "expired keys": _page(Filters(status="expired")),
    "a text that fits many": _page(Filters(text="key 1")),
    "a scope that many have": _page(Filters(scope="billing:read")),
    "keys that were never used": _page(Filters(never_used=True)),
    "as of late": _past_page(Filters(), share=_LATE),
    "as of late, active keys": _past_page(Filters(status="active"), share=_LATE),
    "as of late, revoked keys": _past_page(Filters(status="revoked"), share=_LATE),
    "as of late, expired keys": _past_page(Filters(status="expired"), share=_LATE),
    "as of late, a text that fits many": _past_page(Filters(text="key 1"), share=_LATE),
    "as of early": _past_page(Filters(), share=_EARLY),
    "as of early, active keys": _past_page(Filters(status="active"), share=_EARLY),
    "as of the middle, revoked keys": _past_page(Filters(status="revoked"), share=_MIDDLE),
    "as of the middle, expired keys": _past_page(Filters(status="expired"), share=_MIDDLE),
}
SCANS: dict[str, Ask] = {"a text that fits none, for which all are read": _page(Filters(text="#"))}
"""Pages whose time must depend on the size; nothing is claimed for them."""


def _compared(
    what: str, ask: Ask, small: Listed, large: Listed, calls: int, *, claimed: bool
) -> Row:
    chance = Random(7)
    times: dict[int, list[float]] = {small.keys: [], large.keys: []}
    for _ in range(calls):
        for ledger in (small, large):
            started = time.perf_counter()
            full = ask(ledger, chance)
            times[ledger.keys].append(time.perf_counter() - started)
            if full != claimed:
                raise RuntimeError(f"{what}: a page of {ledger.keys:,} keys was {full:.0%} full")
    few, many = median(times[small.keys]), median(times[large.keys])
    measured = f"{many * 1e3:.2f} ms of {large.keys:,} keys"
    floor = f"{few * 1e3:.2f} ms of {small.keys:,}"
    if claimed:
        return at_most(what, measured, floor, many / few, _MOST)
    return Row(what, measured, floor, many / few)


def made(address: URL, keys: int) -> Listed:
    """Create a ledger in a new database, with the views that pages are read from."""
    uses = LastUses()
    history = MadeHistory(created_share=0.6, workspaces=[_WORKSPACE], step=_SPAN / keys)
    database = store_at(address, _used(keys_of(history, keys), uses))
    build_outdated_views(database, [key_list.VIEW, key_versions.VIEW], clock=_now)
    uses.flush(database)
    with database.read() as connection:
        (newest,) = list_keys(
            connection, _WORKSPACE, Filters(), now=datetime.now(UTC), before=None, limit=1
        )
    return Listed(database, keys, newest.position, newest.created_at)


def keys_of(history: MadeHistory, keys: int) -> Iterator[ApiKey.Event]:
    """Yield events of a history until this many keys are created."""
    for event in history.events():
        yield event
        keys -= isinstance(event, ApiKey.Created)
        if not keys:
            return


def _used(made: Iterator[ApiKey.Event], uses: LastUses) -> Iterator[ApiKey.Event]:
    """Record a use of every second key."""
    used = False
    # In a new store, positions count from 1.
    for position, event in enumerate(made, 1):
        yield event
        if isinstance(event, ApiKey.Created):
            used = not used
            if used:
                uses.touch(position, event.timestamp)


def _now() -> datetime:
    return datetime.now(UTC)
