"""A real server under floods of bad tokens: callers with good tokens get right answers."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from itertools import cycle, islice
from secrets import token_bytes
from urllib.parse import urlsplit

import pytest

from api.composition import opened_ledger
from domain.tokens import Token, mint, parse
from tests.engines import address_of, settings_of
from tests.projections.ledgers import Keys, Made
from tests.raw_sql import sql
from tests.system.ledgers import admin_token
from tests.system.processes import Server, Servers

SECONDS = 1.5
PATIENCE = 60.0
"""Time limit for enough requests, also on a busy machine."""

ATTACKERS = 8
ADDRESSES = 4
HOLDER = "192.0.2.7"
COLD = 8

Tokens = Iterator[str]


class Caller:
    """A client with one connection and one address."""

    def __init__(self, server: Server, source: str) -> None:
        self._connection = HTTPConnection("127.0.0.1", urlsplit(server.url).port, timeout=30)
        self._source = source

    def call(self, method: str, path: str, token: str, body: object = None) -> tuple[int, str]:
        """Return the status, and the body's code or token if it has one."""
        headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": self._source}
        if body is not None:
            headers["Content-Type"] = "application/json"
        text = None if body is None else json.dumps(body)
        self._connection.request(method, path, text, headers)
        response = self._connection.getresponse()
        document = json.loads(response.read() or "{}")
        return response.status, document.get("token") or document.get("code", "")

    def passes(self, token: str) -> int:
        return self.call("GET", "/v1/forward-auth", token)[0]

    def close(self) -> None:
        self._connection.close()


@dataclass(frozen=True)
class Attacked:
    """A server that has lost its digests, so only the admin's key is cached."""

    server: Server
    admin: str
    cold: list[Made]
    at_the_end: ExitStack

    def caller(self, source: str) -> Caller:
        caller = Caller(self.server, source)
        self.at_the_end.callback(caller.close)
        return caller


@pytest.fixture
def attacked(servers: Servers) -> Iterator[Attacked]:
    # With verifiers of the real cost.
    with opened_ledger(settings_of(servers.data_dir)) as opened:
        cold = [Keys(opened).create(f"cold {number}") for number in range(COLD)]
    sql(address_of(servers.data_dir), "DELETE FROM key_digests")
    admin = admin_token(servers.data_dir)
    # The X-Forwarded-For of each flood and each caller is its address.
    server = servers.start(trusted_proxies="127.0.0.1")
    with ExitStack() as at_the_end:
        yield Attacked(server, admin, cold, at_the_end)


def wrong_secrets(token: str) -> Tokens:
    """Yield random wrong secrets of a key."""
    parsed = parse(token)
    assert parsed is not None
    while True:
        wrong = mint(parsed.prefix, token_bytes).secret
        yield Token(parsed.prefix, parsed.lookup_id, wrong).reveal()


def repeated_secrets(token: str) -> Tokens:
    """Yield each wrong secret so often that many arrive at once."""
    for wrong in wrong_secrets(token):
        yield from [wrong] * 4 * ATTACKERS


def unknown_tokens(_token: str) -> Tokens:
    while True:
        yield mint("key", token_bytes).reveal()


def malformed_tokens(token: str) -> Tokens:
    yield from cycle((token[:-1], f"{token}x", "garbage", "x" * 2000))


Flood = Callable[[str], Tokens]


@contextmanager
def flooded(attacked: Attacked, tokens: Tokens) -> Iterator[Counter[int]]:
    """Present tokens from several addresses without a pause; count the statuses."""
    counted: Counter[int] = Counter()
    over = threading.Event()
    one_at_a_time = threading.Lock()

    def flood(number: int) -> None:
        attacker = attacked.caller(f"203.0.113.{number % ADDRESSES}")
        while not over.is_set():
            with one_at_a_time:
                token = next(tokens)
            status = attacker.passes(token)
            with one_at_a_time:
                counted[status] += 1

    with ThreadPoolExecutor(ATTACKERS) as pool:
        floods = [pool.submit(flood, number) for number in range(ATTACKERS)]
        time.sleep(0.2)
        try:
            yield counted
        finally:
            over.set()
            for each in floods:
                each.result()


FLOODS = {
    "wrong secrets of a warm key": (wrong_secrets, False),
    "unknown keys": (unknown_tokens, False),
    "malformed tokens": (malformed_tokens, False),
    "wrong secrets of a cold key": (wrong_secrets, True),
    "the same wrong secrets of a cold key": (repeated_secrets, True),
}


@pytest.mark.parametrize("name", FLOODS)
def test_honest_callers_get_right_answers_only(attacked: Attacked, name: str) -> None:
    tokens, of_cold_key = FLOODS[name]
    honest = attacked.caller(HOLDER)
    body = {"name": "warm", "scopes": ["mcp:read", "api-keys:verify"]}
    status, warm = honest.call("POST", "/v1/keys", attacked.admin, body)
    assert status == 201
    answered: Counter[str] = Counter()
    with flooded(attacked, tokens(attacked.cold[0].token if of_cold_key else warm)) as counted:
        began = time.monotonic()

        def enough() -> bool:
            asked = counted.total() > 100 and counted[401] > 5
            lasted = time.monotonic() - began
            return lasted > PATIENCE or (lasted > SECONDS and asked and answered["checks"] >= 20)

        while not enough():
            assert honest.passes(warm) == 204
            assert honest.call("POST", "/v1/verify", warm, {"token": warm}) == (200, "VALID")
            for wrong in islice(wrong_secrets(warm), 2):
                assert honest.passes(wrong) == 401
            if answered["checks"] % 40 == 0:
                status, new = honest.call("POST", "/v1/keys", attacked.admin, body)
                assert status == 201, "new keys are hashed in a part of the gate that is theirs"
                assert honest.passes(new) == 204
                answered["new keys"] += 1
            answered["checks"] += 4
    assert set(counted) <= ({401, 503} if of_cold_key else {401})
    assert counted.total() > 100
    assert counted[401] > 5
    assert answered["checks"] >= 20
    assert answered["new keys"] >= 1


def test_each_holder_of_a_cold_key_gets_in_while_it_is_flooded(attacked: Attacked) -> None:
    holder = attacked.caller(HOLDER)
    refused: Counter[str] = Counter()
    for key in attacked.cold:
        with flooded(attacked, wrong_secrets(key.token)) as counted:
            while (status := holder.passes(key.token)) != 204:
                assert status == 503
                refused[key.key_id] += 1
                # Each address of the flood gets one attempt, and is limited from then on.
                assert refused[key.key_id] <= ADDRESSES + 1, counted
                time.sleep(0.5)
        assert counted[503], "there was no crowd"
        assert set(counted) == {401, 503}
    assert refused.total() <= 2 * (ADDRESSES + 1)
