"""Pages of the key list: of a workspace with a million keys, against one with a thousand.

Both have keys of every status in like shares, and every second key was used, so that a page holds
the same at both sizes.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.claims import Row, at_most
from benchmarks.made_history import WORKSPACES, MadeHistory
from benchmarks.made_ledger import store
from domain.api_key import ApiKey
from projections.database import Database
from projections.key_filters import Filters
from projections.key_list import VIEW, list_keys
from projections.last_used import LastUses
from projections.rebuild import build_outdated_views

_MANY, _FEW = 1_000_000, 1_000
_CALLS = 300
_CALLS_OF_SCANS = 5
_PAGE = 100
_MOST = 2.0
_WORKSPACE = WORKSPACES[0]
_SPAN = timedelta(days=60)


def run(*, quick: bool) -> list[Row]:
    """Ask for each kind of page at both sizes in turn."""
    many, calls = (_MANY // 50, 30) if quick else (_MANY, _CALLS)
    with TemporaryDirectory(prefix="keyledger-bench-") as folder:
        large = _made(Path(folder) / "large", many)
        small = _made(Path(folder) / "small", _FEW)
        rows = [
            _compared(what, ask, small, large, calls, claimed=True) for what, ask in PAGES.items()
        ]
        rows += [
            _compared(what, ask, small, large, _CALLS_OF_SCANS, claimed=False)
            for what, ask in SCANS.items()
        ]
        for ledger in (small, large):
            ledger.database.close()
    return rows


@dataclass(frozen=True, slots=True)
class Listed:
    """A ledger of one workspace, to be listed.

    Args:
        keys: how many there are.
        last: the position of the newest key.
        now: the time when that was made, which is the end of the history.
    """

    database: Database
    keys: int
    last: int
    now: datetime


Ask = Callable[[Listed, Random], int]
"""Asks for a page, and tells how many keys were on it; by chance, where there are many such."""


def _page(filters: Filters, *, middle: bool = False) -> Ask:
    def ask(ledger: Listed, chance: Random) -> int:
        before = chance.randint(ledger.last // 4, ledger.last * 3 // 4) if middle else None
        with ledger.database.read() as connection:
            page = list_keys(
                connection, _WORKSPACE, filters, now=ledger.now, before=before, limit=_PAGE
            )
        return len(page)

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
}
SCANS: dict[str, Ask] = {"a text that fits none, for which all are read": _page(Filters(text="#"))}
"""Pages that cannot take the same time at both sizes; for them nothing is claimed."""


def _compared(
    what: str, ask: Ask, small: Listed, large: Listed, calls: int, *, claimed: bool
) -> Row:
    chance = Random(7)
    times: dict[int, list[float]] = {small.keys: [], large.keys: []}
    for _ in range(calls):
        for ledger in (small, large):
            started = time.perf_counter()
            found = ask(ledger, chance)
            times[ledger.keys].append(time.perf_counter() - started)
            if found != (_PAGE if claimed else 0):
                raise RuntimeError(f"{what}: {found} of {ledger.keys:,} keys were on the page")
    few, many = median(times[small.keys]), median(times[large.keys])
    measured = f"{many * 1e3:.2f} ms of {large.keys:,} keys"
    floor = f"{few * 1e3:.2f} ms of {small.keys:,}"
    if claimed:
        return at_most(what, measured, floor, many / few, _MOST)
    return Row(what, measured, floor, many / few)


def _made(folder: Path, keys: int) -> Listed:
    folder.mkdir()
    uses = LastUses()
    history = MadeHistory(created_share=0.6, workspaces=[_WORKSPACE], step=_SPAN / keys)
    database = store(folder, _used(_of_keys(history, keys), uses))
    build_outdated_views(database, [VIEW], clock=_now)
    uses.flush(database)
    with database.read() as connection:
        (newest,) = list_keys(
            connection, _WORKSPACE, Filters(), now=datetime.now(UTC), before=None, limit=1
        )
    return Listed(database, keys, newest.position, newest.created_at)


def _of_keys(history: MadeHistory, keys: int) -> Iterator[ApiKey.Event]:
    """Take events of a history until so many keys were made."""
    for event in history.events():
        yield event
        keys -= isinstance(event, ApiKey.Created)
        if not keys:
            return


def _used(made: Iterator[ApiKey.Event], uses: LastUses) -> Iterator[ApiKey.Event]:
    """Note a use of every second key."""
    used = False
    # In a new store the positions are counted from 1.
    for position, event in enumerate(made, 1):
        yield event
        if isinstance(event, ApiKey.Created):
            used = not used
            if used:
                uses.touch(position, event.timestamp)


def _now() -> datetime:
    return datetime.now(UTC)
