"""Token verification over HTTP: compared with a bare application, with workers, under attack."""

import json
import random
from statistics import median

from benchmarks.checks import answered, figures, forward_auth, rate, times
from benchmarks.claims import Row, at_least, at_most
from benchmarks.load import Demand, Load, http_request, result, start
from benchmarks.servers import Served, bare_app, keyledger
from domain.tokens import Token, mint

_ROUNDS = 5
_SECONDS = 2.0
_HONEST_RATE = 400.0
_FLOOD_RATE = 1200.0


def run(*, quick: bool) -> list[Row]:
    """Measure token verification."""
    rounds, seconds = (1, 0.5) if quick else (_ROUNDS, _SECONDS)
    with bare_app() as floor, keyledger() as served:
        rows = against_floor(floor, served, rounds, seconds)
        rows += floods(served, 2 * seconds)
    with keyledger(workers=2) as served:
        load = answered(Demand(served.port, [forward_auth(served.root)], 204, 32, 2 * seconds))
        rows.append(Row("forward-auth, 32 connections, two workers", rate(load), times(load)))
    return rows


def against_floor(
    floor: int, served: Served, rounds: int, seconds: float, *, least: float = 0.70
) -> list[Row]:
    """Compare token verification with a bare application.

    Args:
        floor: port of the bare application.
        least: claimed ratio of forward-auth.
    """
    verify = http_request("POST", "/v1/verify", served.root, json.dumps({"token": served.root}))
    measured = (
        ("forward-auth", forward_auth(served.root), 204, least),
        ("POST /v1/verify", verify, 200, 0.45),
    )
    rows = []
    for name, request, status, claimed in measured:
        for connections in (32, 1):
            pairs = [
                (
                    answered(Demand(floor, [request], status, connections, seconds)),
                    answered(Demand(served.port, [request], status, connections, seconds)),
                )
                for _ in range(rounds)
            ]
            ratio = median(ours.rate / bare.rate for bare, ours in pairs)
            bare, ours = sorted(pairs, key=lambda pair: pair[1].rate)[len(pairs) // 2]
            what = f"{name}, {connections} connection{'s'[: connections - 1]}, one worker"
            row = at_least(what, figures(ours), rate(bare), ratio, claimed)
            rows.append(row if connections > 1 else Row(what, row.measured, row.floor, ratio))
    return rows


def floods(served: Served, seconds: float) -> list[Row]:
    """Compare honest callers' p99 during a flood with that of the same load without one."""
    chance = random.Random(7)
    lookup_id = served.root.partition("_")[2][:16]
    wrong = [mint("key", chance.randbytes).reveal() for _ in range(500)]
    same_key = [_with_lookup_id(token, lookup_id) for token in wrong]
    floods = {
        "wrong secrets for a real key": same_key,
        "unknown lookup ids": wrong,
        "malformed tokens": [token[:-1] + "!" for token in wrong],
    }
    rows = []
    honest = forward_auth(served.root)
    for name, tokens in floods.items():
        calm = _together(served.port, honest, [honest], 204, seconds)
        attack = [forward_auth(token) for token in tokens]
        flooded = _together(served.port, honest, attack, 401, seconds)
        ratio = flooded.p99 / calm.p99
        what = f"p99 of honest callers under {_FLOOD_RATE:.0f}/s of {name}"
        rows.append(at_most(what, times(flooded), times(calm), ratio, 1.5))
    return rows


def _together(port: int, honest: str, others: list[str], status: int, seconds: float) -> Load:
    flood = start(Demand(port, others, status, 8, seconds, _FLOOD_RATE))
    load = result(start(Demand(port, [honest], 204, 4, seconds, _HONEST_RATE)))
    flooded = result(flood)
    if load.wrong or flooded.wrong:
        raise RuntimeError(f"wrong answers: {load.wrong} honest, {flooded.wrong} others")
    return load


def _with_lookup_id(token: str, lookup_id: str) -> str:

    # With a valid checksum; otherwise the token would be refused by its form alone.
    return Token("key", lookup_id, token[-49:-6]).reveal()
