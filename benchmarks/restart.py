"""Restarts: time until a server answers, and cost of the first verification of each key.

The second verifications on the same connections are the baseline: each key is then in memory. The
files stay in the machine's page cache, as they do when only the process restarts.
"""

import time
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.checks import answered, figures, forward_auth, times
from benchmarks.claims import Row, at_least, at_most
from benchmarks.load import Demand
from benchmarks.made_keys import make_keys
from benchmarks.servers import keyledger_on
from domain.pepper import PEPPER_LENGTH, Pepper
from domain.tokens import mint
from domain.verifiers import OWASP_MINIMUM, Argon2Gate

_KEYS = 100_000
_FEW_KEYS = 1_000
_FORGOTTEN = 40
_ROUNDS = 3
_STARTS = 7
_CONNECTIONS = 32
_LEAST = 0.40
_MOST_OF_A_START = 1.2
_MOST_OF_ARGON2 = 1.5


def run(*, quick: bool) -> list[Row]:
    """Restart servers of many and of few keys in turn, and verify each key twice."""
    keys, rounds, starts = (_KEYS // 20, 1, 1) if quick else (_KEYS, _ROUNDS, _STARTS)
    with TemporaryDirectory(prefix="keyledger-bench-") as folder:
        many, few = Path(folder) / "many", Path(folder) / "few"
        make_keys(few, _FEW_KEYS)
        tokens = make_keys(many, keys)
        return [
            _starts(few, many, keys, starts),
            *_first_checks(many, tokens, rounds),
            *_forgotten(Path(folder) / "forgotten"),
        ]


def _starts(few: Path, many: Path, keys: int, starts: int) -> Row:
    pairs = [(_start_seconds(few), _start_seconds(many)) for _ in range(starts)]
    little, much = sorted(pairs, key=lambda pair: pair[1] / pair[0])[starts // 2]
    what = f"from the start of the process to its first answer, {keys:,} keys"
    floor = f"{little:.2f} s with {_FEW_KEYS:,} keys"
    return at_most(what, f"{much:.2f} s", floor, much / little, _MOST_OF_A_START)


def _start_seconds(data_dir: Path) -> float:
    with keyledger_on(data_dir) as started:
        return started.seconds


def _first_checks(data_dir: Path, tokens: list[str], rounds: int) -> list[Row]:
    requests = [forward_auth(token) for token in tokens]
    pairs = []
    for _ in range(rounds):
        with keyledger_on(data_dir) as started:
            demand = Demand(started.port, requests, 204, _CONNECTIONS, 0, once=True)
            pairs.append((answered(demand), answered(demand)))
    first, second = sorted(pairs, key=lambda pair: pair[0].rate / pair[1].rate)[rounds // 2]
    what = f"first checks of {len(tokens):,} keys, {_CONNECTIONS} connections"
    ratio = first.rate / second.rate
    p99 = median(first.p99 / second.p99 for first, second in pairs)
    return [
        at_least(what, figures(first), f"{figures(second)} for the second", ratio, _LEAST),
        Row("the same, p99", "", "", p99),
    ]


def _forgotten(data_dir: Path) -> list[Row]:
    """Verify keys whose digests use another pepper, one by one, compared with Argon2id alone."""
    lost = Pepper(b"\x07" * PEPPER_LENGTH)
    tokens = make_keys(data_dir, _FORGOTTEN, profile=OWASP_MINIMUM, pepper=lost)
    requests = [forward_auth(token) for token in tokens]
    alone = _argon2_seconds()
    loads = []
    for _ in range(2):
        with keyledger_on(data_dir) as started:
            demand = Demand(started.port, requests, 204, 1, 0, once=True)
            loads += [answered(demand), answered(demand)]
    call = median([*alone, *_argon2_seconds()])
    proved, second, restarted, _ = loads
    what = f"first check of a key, its digest lost, one connection, {_FORGOTTEN} keys"
    floor = f"{call * 1e3:.2f} ms for one Argon2id call"
    return [
        at_most(what, times(proved), floor, proved.p50 / call, _MOST_OF_ARGON2),
        Row("second check of those", times(second)),
        Row("first check of those after another restart", times(restarted)),
    ]


def _argon2_seconds() -> list[float]:
    """Return some durations of verifying a secret in an otherwise idle process."""
    gate = Argon2Gate(at_once=1, waiting=0)
    secret = mint("key", Random(7).randbytes).secret
    verifier = gate.make(secret)
    taken = []
    for _ in range(_FORGOTTEN // 2):
        started = time.perf_counter()
        gate.proves(verifier, secret)
        taken.append(time.perf_counter() - started)
    return taken
