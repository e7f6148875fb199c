"""Console pages: the cost of a list of many keys, compared with the same list of few keys.

The time is that of a whole request within the process: session, verdict, query and template.
"""

import time
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory

from fastapi.testclient import TestClient

from api.app import create_app
from api.composition import OpenLedger
from api.logs import configure_logs
from api.settings import read_settings
from benchmarks.claims import Row, at_most
from benchmarks.made_history import WORKSPACES, MadeHistory
from benchmarks.made_ledger import make_ledger
from domain.caller import system
from domain.names import ROOT_WORKSPACE

_KEYS = 10_000
_ROUNDS = 40
_MANY, _FEW = WORKSPACES[0], WORKSPACES[1]
_LONGEST_SECONDS = 0.1
_PAGES = {
    "the newest": "/console/keys?",
    "by name": "/console/keys?sort=name&",
    "active ones, by their end": "/console/keys?status=active&sort=expires&",
    "those that expire within 30 days": "/console/keys?expires=30&",
}


def run(*, quick: bool) -> list[Row]:
    """Measure each page in turn for a workspace of many keys and one of few."""
    keys, rounds = (_KEYS // 10, _ROUNDS // 10) if quick else (_KEYS, _ROUNDS)
    configure_logs("error", "json")
    with TemporaryDirectory(prefix="keyledger-bench-") as folder:
        # One key in a hundred is in the small workspace.
        history = MadeHistory(created_share=1.0, workspaces=[_MANY] * 99 + [_FEW])
        make_ledger(Path(folder), history, keys).close()
        url = f"sqlite:///{Path(folder) / 'ledger.sqlite3'}"
        app = create_app(read_settings(data_dir=Path(folder), database_url=url))
        with TestClient(app) as client:
            token = _token(app.state.ledger)
            client.post("/console/sign-in", data={"token": token}).raise_for_status()
            measured = [_row(client, name, path, rounds) for name, path in _PAGES.items()]
    slowest = max(seconds for _, seconds in measured)
    limit = Row(
        f"the slowest of these pages, of {keys:,} keys",
        f"{slowest * 1e3:.1f} ms",
        claim=f"under {_LONGEST_SECONDS * 1e3:.0f} ms",
        met=slowest < _LONGEST_SECONDS,
    )
    return [*(row for row, _ in measured), limit]


def _row(client: TestClient, name: str, path: str, rounds: int) -> tuple[Row, float]:
    times: dict[str, list[float]] = {_MANY: [], _FEW: []}
    for workspace in times:
        client.get(f"{path}workspace={workspace}").raise_for_status()
    for _ in range(rounds):
        for workspace, taken in times.items():
            started = time.perf_counter()
            client.get(f"{path}workspace={workspace}").raise_for_status()
            taken.append(time.perf_counter() - started)
    many, few = median(times[_MANY]), median(times[_FEW])
    p95 = quantiles(times[_MANY], n=20)[-1]
    measured = f"median {many * 1e3:.1f} ms, p95 {p95 * 1e3:.1f} ms"
    floor = f"{few * 1e3:.1f} ms in a workspace of a hundredth"
    return at_most(f"a page of keys, {name}", measured, floor, many / few, 3.0), many


def _token(ledger: OpenLedger) -> str:
    issued = ledger.ledger.create_key(
        workspace=ROOT_WORKSPACE,
        name="bench",
        scopes=["*"],
        expires_at=None,
        token_prefix="key",
        by=system("bench"),
        at=ledger.clock(),
    )
    if issued.token is None:
        raise RuntimeError("a new key came without its token")
    return issued.token.reveal()
