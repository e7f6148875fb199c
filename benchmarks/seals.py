"""The cost of seals in a rebuild, compared with a rebuild without seals."""

from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.claims import Row, at_most
from benchmarks.made_history import MadeHistory
from benchmarks.made_ledger import SEALS, make_ledger
from domain.pepper import PEPPER_LENGTH, Pepper
from projections.rebuild.rebuild import build_outdated_views, rebuild
from projections.store.database import Database
from projections.store.seals import NoSeals, Seals
from projections.views.registry import VIEWS
from projections.views.view import View

_EVENTS = 200_000
_ROUNDS = 6
_WITHOUT = NoSeals(Pepper(bytes(PEPPER_LENGTH)))


def run(*, quick: bool) -> list[Row]:
    """Measure a rebuild of each view, and of all."""
    events, rounds = (_EVENTS // 10, 4) if quick else (_EVENTS, _ROUNDS)
    with TemporaryDirectory(prefix="keyledger-bench-") as folder:
        database = make_ledger(Path(folder), MadeHistory(), events)
        build_outdated_views(database, VIEWS, clock=_now)
        pairs = {
            view.name: [_pair(database, view, turn=turn) for turn in range(rounds)]
            for view in VIEWS
        }
        database.close()
    rows = [_row(name, made) for name, made in pairs.items()]
    whole = [
        (sum(with_them for with_them, _ in each), sum(without for _, without in each))
        for each in zip(*pairs.values(), strict=True)
    ]
    with_them, without = (median(each) for each in zip(*whole, strict=True))
    ratio = median(one / other for one, other in whole)
    return [
        *rows,
        at_most(
            f"all views, {events:,} events",
            f"{with_them:.2f} s",
            f"{without:.2f} s without seals",
            ratio,
            1.15,
        ),
    ]


def _row(name: str, made: list[tuple[float, float]]) -> Row:
    with_them, without = (median(each) for each in zip(*made, strict=True))
    ratio = median(one / other for one, other in made)
    return Row(name, f"{with_them:.2f} s", f"{without:.2f} s without seals", ratio)


def _pair(database: Database, view: View, *, turn: int) -> tuple[float, float]:
    """Measure a rebuild with seals and one without, in alternating order."""
    # A rebuild leaves a larger write-ahead log and free pages, which affect the next one.
    if turn % 2:
        without = _seconds(database, view, _WITHOUT)
        return _seconds(database, view, SEALS), without
    return _seconds(database, view, SEALS), _seconds(database, view, _WITHOUT)


def _seconds(database: Database, view: View, seals: Seals) -> float:
    return rebuild(database.sealed_by(seals), view, clock=_now).seconds


def _now() -> datetime:
    return datetime.now(UTC)
