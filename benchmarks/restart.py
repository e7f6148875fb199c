"""After a restart: how soon a server answers, and what the first check of each key costs.

The second checks, by the same connections, are the floor: by then each key is in memory. The
files are in the machine's cache all the time, as they are when only the process was restarted.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.checks import answered, forward_auth, rate, times
from benchmarks.claims import Row, at_least, at_most
from benchmarks.load import Demand, Load
from benchmarks.made_keys import make_keys
from benchmarks.servers import keyledger_on
from domain.pepper import PEPPER_LENGTH, Pepper
from domain.tokens import mint
from domain.verifiers import OWASP_MINIMUM, Argon2Gate

_KEYS = 100_000
_FEW_KEYS = 1_000
_FORGOTTEN = 40
_ROUNDS = 3
_CONNECTIONS = 32
_LEAST = 0.10
_MOST_OF_ARGON2 = 1.5


def run(*, quick: bool) -> list[Row]:
    """Restart a server of many keys and one of few in turn."""
    keys, rounds = (_KEYS // 20, 1) if quick else (_KEYS, _ROUNDS)
    with TemporaryDirectory(prefix="keyledger-bench-") as folder:
        many, few = Path(folder) / "many", Path(folder) / "few"
        tokens, few_tokens = make_keys(many, keys), make_keys(few, _FEW_KEYS)
        pairs = [(_restart(few, few_tokens), _restart(many, tokens)) for _ in range(rounds)]
        rows = _compared(pairs, keys)
        rows += _forgotten(Path(folder) / "forgotten")
    return rows


@dataclass(frozen=True, slots=True)
class _Restart:
    """What one restart took: the start in seconds, and the checks of all keys, twice."""

    seconds: float
    first: Load
    second: Load


def _restart(data_dir: Path, tokens: list[str]) -> _Restart:
    requests = [forward_auth(token) for token in tokens]
    with keyledger_on(data_dir) as started:
        demand = Demand(started.port, requests, 204, _CONNECTIONS, 0, once=True)
        return _Restart(started.seconds, answered(demand), answered(demand))


def _compared(pairs: list[tuple[_Restart, _Restart]], keys: int) -> list[Row]:
    few = median(few.seconds for few, _ in pairs)
    many = median(many.seconds for _, many in pairs)
    started = f"from the start of the process to its first answer, {keys:,} keys"
    floor = f"{few:.2f} s with {_FEW_KEYS:,} keys"
    ratio = median(many.seconds / few.seconds for few, many in pairs)
    restarts = [many for _, many in pairs]
    typical = sorted(restarts, key=lambda restart: restart.first.rate)[len(restarts) // 2]
    slower = median(restart.first.rate / restart.second.rate for restart in restarts)
    later = median(restart.first.p99 / restart.second.p99 for restart in restarts)
    checks = f"first checks of {keys:,} keys, {_CONNECTIONS} connections"
    return [
        at_most(started, f"{many:.2f} s", floor, ratio, 1.2),
        at_least(checks, _said(typical.first), _said(typical.second), slower, _LEAST),
        Row("the same, p99", "", "", later),
    ]


def _said(load: Load) -> str:
    return f"{rate(load)}; {times(load)}"


def _forgotten(data_dir: Path) -> list[Row]:
    """Check keys whose digests are under another pepper, one at a time, beside Argon2id alone."""
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
    """Return what proving a secret takes in a process that does nothing else, some times."""
    gate = Argon2Gate(at_once=1, waiting=0)
    secret = mint("key", Random(7).randbytes).secret
    verifier = gate.make(secret)
    taken = []
    for _ in range(_FORGOTTEN // 2):
        started = time.perf_counter()
        gate.proves(verifier, secret)
        taken.append(time.perf_counter() - started)
    return taken
