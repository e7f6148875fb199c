"""Time of a verification inside the process, and whether it reveals what it must not."""

import random
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory

from api.composition import OpenLedger, opened_ledger
from api.settings import read_settings
from benchmarks.claims import Row, at_most
from domain.caller import system
from domain.tokens import Token, mint

_CALLS = 10_000


def run(*, quick: bool) -> list[Row]:
    """Measure the verdicts in turn, so that a disturbance affects all of them."""
    calls = _CALLS // 10 if quick else _CALLS
    with TemporaryDirectory(prefix="keyledger-bench-") as folder:
        settings = read_settings(data_dir=Path(folder))
        with opened_ledger(settings) as ledger:
            return _verdicts(ledger, calls)


def _verdicts(ledger: OpenLedger, calls: int) -> list[Row]:
    chance = random.Random(7)
    live, revoked = _make(ledger), _make(ledger)
    ledger.ledger.revoke_key(
        revoked[0],
        workspace="default",
        reason=None,
        comment=None,
        by=system("bench"),
        at=ledger.clock(),
    )

    def forged(lookup_id: str | None) -> str:
        token = mint("key", chance.randbytes)
        return Token("key", lookup_id or token.lookup_id, token.secret).reveal()

    kinds: dict[str, Callable[[], str]] = {
        "live key, right secret": live[1].reveal,
        "unknown lookup id": lambda: forged(None),
        "live key, wrong secret": lambda: forged(live[1].lookup_id),
        "revoked key, wrong secret": lambda: forged(revoked[1].lookup_id),
        "no token at all": lambda: "x" * 82,
    }
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(calls):
        for kind, make in kinds.items():
            text, now = make(), ledger.clock()
            started = time.perf_counter()
            ledger.authentication.freshness.check()
            ledger.authentication.try_verify(now=now)(text, ("mcp:read",))
            times[kind].append(time.perf_counter() - started)
    wrong = median(times["live key, wrong secret"])
    rows = []
    for kind, taken in times.items():
        low, _, high = quantiles(taken, n=4)
        measured = (
            f"median {median(taken) * 1e6:.1f} us, quartiles {low * 1e6:.1f} to {high * 1e6:.1f}"
        )
        if kind.startswith(("unknown", "revoked")):
            floor = f"{wrong * 1e6:.1f} us for a wrong secret"
            ratio = median(taken) / wrong
            rows.append(at_most(kind, measured, floor, max(ratio, 1 / ratio), 1.15))
        else:
            rows.append(Row(kind, measured))
    return rows


def _make(ledger: OpenLedger) -> tuple[str, Token]:
    issued = ledger.ledger.create_key(
        workspace="default",
        name="bench",
        scopes=["mcp:read"],
        expires_at=None,
        token_prefix="key",
        by=system("bench"),
        at=ledger.clock(),
    )
    if issued.token is None:
        raise RuntimeError("a new key came without its token")
    return issued.key_id, issued.token
