"""Last uses: the cost of recording and storing them, compared with the machine's noise.

Two servers that rarely store last uses are equal, so their difference is noise. A third one stores
them every second: all its keys are in use, and each flush covers all of them. It changes their rows
once a minute, because uses are stored to the minute.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

from api.composition import opened_ledger
from api.settings import read_settings
from benchmarks.checks import answered, figures, forward_auth
from benchmarks.claims import Row, at_least, at_most
from benchmarks.load import Demand, Load
from benchmarks.made_keys import SCOPE, make_keys
from benchmarks.servers import keyledger_on
from domain.pepper import Pepper
from domain.verifiers import CHEAPEST, Argon2Gate
from projections.auth.authentication import Authentication

_KEYS = 1_000
_ROUNDS = 13
_SECONDS = 2.0
_OFTEN, _RARELY = 1, 60
_CONNECTIONS = 32
_LEAST = 0.97
_CALLS = 100


def run(*, quick: bool) -> list[Row]:
    """Measure the servers in turn, in another order each round, and then only the recording."""
    rounds, seconds = (3, 0.5) if quick else (_ROUNDS, _SECONDS)
    with TemporaryDirectory(prefix="keyledger-bench-") as folder, ExitStack() as servers:
        measured = []
        for name, every in (("rarely", _RARELY), ("rarely too", _RARELY), ("often", _OFTEN)):
            data_dir = Path(folder) / name.replace(" ", "-")
            requests = [forward_auth(token) for token in make_keys(data_dir, _KEYS)]
            started = servers.enter_context(keyledger_on(data_dir, last_used_seconds=every))
            measured.append(_Server(started.port, requests))
        for server in measured:
            answered(Demand(server.port, server.requests, 204, _CONNECTIONS, 0, once=True))
        for turn in range(rounds):
            for server in measured[turn % 3 :] + measured[: turn % 3]:
                server.measure(seconds)
    return [*_compared(*measured), _noting(50 if quick else 500)]


@dataclass(slots=True)
class _Server:
    """A server under measurement."""

    port: int
    requests: list[str]
    loads: list[Load] = field(default_factory=list)

    def measure(self, seconds: float) -> None:
        """Verify all keys in turn, for this many seconds."""
        self.loads.append(answered(Demand(self.port, self.requests, 204, _CONNECTIONS, seconds)))


def _compared(rarely: _Server, rarely_too: _Server, often: _Server) -> list[Row]:
    noise, cost = _pairs(rarely_too, rarely), _pairs(often, rarely)
    low, _, high = quantiles(map(_rates, noise), n=4, method="inclusive")
    equal = f"two equal servers, written each {_RARELY} s: the noise"
    written = f"forward-auth of {_KEYS:,} keys, written each {_OFTEN} s"
    one, other = noise[len(noise) // 2]
    ours, floor = cost[len(cost) // 2]
    spread = f"{figures(one)}; half the ratios are {low:.2f} to {high:.2f}"
    ratio, least = _rates((ours, floor)), min(_LEAST, low)
    return [
        Row(equal, spread, figures(other), _rates((one, other))),
        Row("the same, p99", "", "", median(map(_p99s, noise))),
        at_least(written, figures(ours), figures(floor), ratio, least),
        Row("the same, p99", "", "", median(map(_p99s, cost))),
    ]


def _pairs(one: _Server, other: _Server) -> list[tuple[Load, Load]]:
    """Return the results of two servers in each round, sorted by the ratio of their rates."""
    return sorted(zip(one.loads, other.loads, strict=True), key=_rates)


def _rates(pair: tuple[Load, Load]) -> float:
    return pair[0].rate / pair[1].rate


def _p99s(pair: tuple[Load, Load]) -> float:
    return pair[0].p99 / pair[1].p99


def _noting(rounds: int) -> Row:
    """Compare recording a use with the whole verification that includes it."""
    noted: list[tuple[Any, ...]] = []

    def note(*use: object) -> None:
        noted.append(use)

    with TemporaryDirectory(prefix="keyledger-bench-") as folder:
        tokens = make_keys(Path(folder), _KEYS)
        with opened_ledger(read_settings(data_dir=Path(folder))) as ledger:
            pepper = Pepper(ledger.settings.pepper_path.read_bytes())
            gate = Argon2Gate(at_once=1, waiting=0, profile=CHEAPEST)
            watched = Authentication(ledger.database, gate, pepper, on_use=note)
            now = ledger.clock()

            def check(token: str) -> None:
                ledger.authentication.verify(token, (SCOPE,), now=now)

            for token in tokens:
                watched.verify(token, (SCOPE,), now=now)
                check(token)
            watched.close()
            uses, checks = cycle(noted), cycle((token,) for token in tokens)
            pairs = [
                (_each(ledger.last_uses.touch, uses), _each(check, checks)) for _ in range(rounds)
            ]
    touch, whole = (median(taken) for taken in zip(*pairs, strict=True))
    beside = f"{whole:,.0f} ns for the whole check"
    return at_most("noting a use, in the process", f"{touch:.0f} ns", beside, touch / whole, 0.05)


def _each(call: Callable[..., None], arguments: Iterator[tuple[Any, ...]]) -> float:
    """Return the mean duration of a call, in nanoseconds."""
    some = list(islice(arguments, _CALLS))
    started = time.perf_counter_ns()
    for each in some:
        call(*each)
    return (time.perf_counter_ns() - started) / _CALLS
