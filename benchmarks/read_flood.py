"""Revocations while another tenant floods the slowest read.

One key with ``api-keys:read`` requests the past of 60,000 keys on 48 connections, with a search
text that no key has, so that all keys are read. Meanwhile another tenant revokes keys one by one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from api.composition import OpenLedger, opened_ledger
from api.settings import read_settings
from benchmarks.claims import Row, at_most
from benchmarks.list_page import keys_of
from benchmarks.load import Demand, Load, http_request, result, start
from benchmarks.made_history import START, WORKSPACES, MadeHistory
from benchmarks.made_ledger import store
from benchmarks.servers import keyledger_on
from domain.caller import Actor, Caller
from domain.times import to_text
from domain.verifiers import CHEAPEST

_KEYS = 60_000
_REVOCATIONS = 400
_CONNECTIONS = 48
_RATE = 25.0
"""Revocations per second, with and without the flood; far below the server's maximum."""
_MOST = 3.0
_FLOODER, _REVOKER = WORKSPACES[0], "elsewhere"
_MAKER = Caller(Actor("cli", "bench"), holds=("*",))


def run(*, quick: bool) -> list[Row]:
    """Measure revocations without the flood, then with it."""
    keys, revocations = (_KEYS // 20, _REVOCATIONS // 8) if quick else (_KEYS, _REVOCATIONS)
    with (
        _ledger(keys, 2 * revocations) as (data_dir, flooding, revoking),
        keyledger_on(data_dir) as served,
    ):
        calm = _revoke(served.port, revoking[:revocations])
        flood = start(_flood(served.port, flooding, seconds=1.5 * revocations / _RATE))
        flooded = _revoke(served.port, revoking[revocations:])
        reads = result(flood)
    return [
        at_most(
            f"p99 of a revocation during {_CONNECTIONS} concurrent reads of {keys:,} keys",
            f"{flooded.p99 * 1e3:.1f} ms (p50 {flooded.p50 * 1e3:.1f} ms)",
            f"{calm.p99 * 1e3:.1f} ms without (p50 {calm.p50 * 1e3:.1f} ms)",
            flooded.p99 / calm.p99,
            _MOST,
        ),
        Row("reads of the flood that were answered with a page", f"{_pages_a_second(reads):.1f}/s"),
    ]


def _pages_a_second(reads: Load) -> float:
    return (reads.requests - reads.wrong) / reads.seconds


@contextmanager
def _ledger(keys: int, revocations: int) -> Iterator[tuple[Path, str, list[str]]]:
    """Create a ledger; yield its folder, the flood's token, and the requests that revoke."""
    with TemporaryDirectory(prefix="keyledger-bench-") as folder:
        data_dir = Path(folder) / "data"
        settings = read_settings(data_dir=data_dir)
        data_dir.mkdir(mode=0o700)
        history = MadeHistory(created_share=0.6, workspaces=[_FLOODER])
        store(data_dir, keys_of(history, keys)).close()
        (data_dir / "ledger.sqlite3").rename(data_dir / "keyledger.sqlite3")
        with opened_ledger(settings, argon2_profile=CHEAPEST) as ledger:
            _, flooding = _made(ledger, _FLOODER, "api-keys:read")
            _, revoker = _made(ledger, _REVOKER, "api-keys:write")
            victims = [_made(ledger, _REVOKER, "mcp:read")[0] for _ in range(revocations)]
        yield (
            data_dir,
            flooding,
            [http_request("POST", f"/v1/keys/{key}/revoke", revoker, "{}") for key in victims],
        )


def _made(ledger: OpenLedger, workspace: str, scope: str) -> tuple[str, str]:
    issued = ledger.ledger.create_key(
        workspace=workspace,
        name="bench",
        scopes=[scope],
        expires_at=None,
        token_prefix="key",
        by=_MAKER,
        at=ledger.clock(),
    )
    if issued.token is None:
        raise RuntimeError("a new key came without its token")
    return issued.key_id, issued.token.reveal()


def _revoke(port: int, requests: list[str]) -> Load:
    load = result(start(Demand(port, requests, 200, 1, 0.0, _RATE, once=True)))
    if load.wrong:
        raise RuntimeError(f"{load.wrong} revocations failed")
    return load


def _flood(port: int, token: str, *, seconds: float) -> Demand:
    as_of = to_text(START.replace(month=3)).replace("+00:00", "Z")
    read = http_request("GET", f"/v1/keys?as_of={as_of}&q=nothing", token)
    return Demand(port, [read], 200, _CONNECTIONS, seconds)
