"""Argon2 under attack: a flood gets a small share of it, and keeps no holder of a key out."""

import hmac
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from secrets import token_bytes
from time import sleep

import pytest

from domain.errors import Overloaded, ProjectionInconsistent
from domain.pepper import Pepper
from domain.tokens import Token, mint, parse
from domain.verdict import Code
from domain.verifiers import CHEAPEST, Argon2Gate
from projections.auth.argon2_limits import MAX_OF_A_KEY, MAX_OF_A_SOURCE, Argon2Limits
from tests.engines import address_of
from tests.projections.ledgers import Keys, Made, keys_in
from tests.raw_sql import sql

RIGHT = "right"
PATIENCE = 30.0
ATTACKER, HOLDER = "203.0.113.66", "192.0.2.7"


class StoppedGate(Argon2Gate):
    """A gate in which each proof waits until it is let go."""

    def __init__(self, places: int) -> None:
        super().__init__(at_once=places, waiting=0, profile=CHEAPEST)
        self.asked: list[str] = []
        self._came = threading.Semaphore(0)
        self._goes = threading.Semaphore(0)

    def proves(self, verifier: str, secret: str) -> bool:
        self.asked.append(secret)
        self._came.release()
        assert self._goes.acquire(timeout=PATIENCE)
        if verifier == "damaged":
            raise ProjectionInconsistent
        if verifier == "full":
            raise Overloaded("")
        if verifier == "interrupted":
            raise KeyboardInterrupt
        return secret == RIGHT

    def wait_for(self, proofs: int) -> None:
        for _ in range(proofs):
            assert self._came.acquire(timeout=PATIENCE)

    def let_go(self, proofs: int) -> None:
        self._goes.release(proofs)


class Crowd:
    """Callers of one `Argon2Limits`, each in a thread."""

    def __init__(self, places: int = 20) -> None:
        self.gate = StoppedGate(places)
        self.limits = Argon2Limits(self.gate)
        self._pool = ThreadPoolExecutor(64)

    def call(
        self, secret: str, *, key: str = "k", source: str | None = None, verifier: str = "v"
    ) -> Future[bool]:
        claim = key, secret.encode()
        return self._pool.submit(self.limits.verify, verifier, secret, claim, source)

    def begin(self, *secrets: str, key: str = "k", source: str | None = None) -> list[Future[bool]]:
        """Call with each secret, and wait until all of them are being proved."""
        calls = [self.call(secret, key=key, source=source) for secret in secrets]
        self.gate.wait_for(len(calls))
        return calls

    def end(self, *calls: Future[bool]) -> list[bool]:
        self.gate.let_go(len(calls))
        return [call.result(PATIENCE) for call in calls]

    def is_refused(self, secret: str, *, key: str = "k", source: str | None = None) -> bool:
        return isinstance(self.call(secret, key=key, source=source).exception(PATIENCE), Overloaded)

    def close(self) -> None:
        self.gate.let_go(1000)
        self._pool.shutdown()


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    crowd = Crowd()
    yield crowd
    crowd.close()


@contextmanager
def crowd_of(places: int) -> Iterator[Crowd]:
    crowd = Crowd(places)
    try:
        yield crowd
    finally:
        crowd.close()


@pytest.mark.parametrize("secret", [RIGHT, "wrong"])
def test_many_callers_with_the_same_secret_wait_for_one_proof(crowd: Crowd, secret: str) -> None:
    first = crowd.begin(secret)
    others = [crowd.call(secret, source=f"192.0.2.{number}") for number in range(30)]
    assert not any(other.done() for other in others)
    crowd.end(*first)
    assert {call.result(PATIENCE) for call in [*first, *others]} == {secret == RIGHT}
    # One that came when the proof was over would have asked the gate again.
    assert crowd.gate.asked.count(secret) <= 2 if secret == RIGHT else crowd.gate.asked == [secret]


def test_a_key_gets_no_more_than_its_limit(crowd: Crowd) -> None:
    calls = crowd.begin(*(f"{number}" for number in range(MAX_OF_A_KEY)))
    assert crowd.is_refused("one more")
    assert crowd.is_refused(RIGHT)
    others = crowd.begin(RIGHT, key="another")
    assert crowd.end(*calls, *others) == [False] * MAX_OF_A_KEY + [True]


def test_a_source_gets_no_more_than_its_limit(crowd: Crowd) -> None:
    calls = [
        *(crowd.begin("x", key=f"{n}", source=ATTACKER)[0] for n in range(MAX_OF_A_SOURCE)),
    ]
    assert crowd.is_refused("x", key="one more", source=ATTACKER)
    others = crowd.begin(RIGHT, key="one more", source=HOLDER)
    assert crowd.end(*calls, *others)[-1]


@pytest.mark.parametrize(("places", "share"), [(1, 1), (2, 1), (6, 3), (13, 6)])
def test_all_guesses_together_use_at_most_half_of_the_argon2_places(
    places: int, share: int
) -> None:
    with crowd_of(places) as crowd:
        calls = [crowd.begin("x", key=f"{number}")[0] for number in range(share)]
        assert crowd.is_refused(RIGHT, key="one more")
        crowd.end(*calls)


def test_a_wrong_secret_is_not_verified_again(crowd: Crowd) -> None:
    assert crowd.end(*crowd.begin("wrong")) == [False]
    for source in (None, HOLDER, ATTACKER):
        assert crowd.call("wrong", source=source).result(PATIENCE) is False
    assert crowd.gate.asked == ["wrong"]
    # What was disproved for one key or verifier tells nothing of another.
    assert crowd.end(crowd.call("wrong", key="another")) == [False]
    assert crowd.end(crowd.call("wrong", verifier="another")) == [False]
    assert crowd.gate.asked == ["wrong"] * 3


def test_the_number_of_recorded_wrong_secrets_is_limited(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.auth.argon2_limits._MAX_WRONG", 3)
    monkeypatch.setattr("projections.auth.argon2_limits._MAX_SUSPECTS", 3)
    for number in range(5):
        crowd.end(*crowd.begin(f"{number}", source=f"192.0.2.{number}"))
    for number in (2, 3, 4):
        assert crowd.call(f"{number}").result(PATIENCE) is False
    assert crowd.end(*crowd.begin("0")) == [False]


@pytest.mark.parametrize(
    ("secret", "verifier", "ends"),
    [
        (RIGHT, "v", True),
        ("wrong", "v", False),
        (RIGHT, "damaged", ProjectionInconsistent),
        (RIGHT, "full", Overloaded),
        (RIGHT, "interrupted", KeyboardInterrupt),
    ],
)
def test_places_are_given_back_however_a_proof_ends(
    secret: str,
    verifier: str,
    ends: bool | type[BaseException],  # noqa: FBT001
) -> None:
    with crowd_of(2 * MAX_OF_A_KEY) as crowd:
        for turn in range(5):
            # As many as fit, so that one place that is kept would be missed the next time.
            calls = [
                crowd.call(f"{secret}", key=f"{turn} {n}", source=HOLDER, verifier=verifier)
                for n in range(MAX_OF_A_KEY - (secret == "wrong" and turn > 0))
            ]
            crowd.gate.wait_for(len(calls))
            crowd.gate.let_go(len(calls))
            for call in calls:
                error = call.exception(PATIENCE)
                assert type(error) is ends if isinstance(ends, type) else call.result() is ends
        assert crowd.end(*crowd.begin(RIGHT, key="k", source=HOLDER)) == [True]
        full = [crowd.begin(RIGHT, key=f"{n}", source=HOLDER)[0] for n in range(MAX_OF_A_KEY)]
        assert crowd.end(*full) == [True] * MAX_OF_A_KEY


def test_callers_that_wait_for_a_failed_verification_get_its_error(crowd: Crowd) -> None:
    first = crowd.call(RIGHT, verifier="damaged")
    crowd.gate.wait_for(1)
    others = [crowd.call(RIGHT, verifier="damaged") for _ in range(5)]
    crowd.gate.let_go(6)
    for call in [first, *others]:
        assert isinstance(call.exception(PATIENCE), ProjectionInconsistent)
    assert crowd.end(*crowd.begin(RIGHT)) == [True]


def test_a_source_of_wrong_secrets_leaves_a_place_of_each_key_to_others(crowd: Crowd) -> None:
    """The first time an attacker may have a key's whole share, and from then on it may not."""
    crowd.end(*crowd.begin("1", "2", source=ATTACKER))
    calls = crowd.begin("3", source=ATTACKER)
    assert crowd.is_refused("4", source=ATTACKER)
    calls += crowd.begin(RIGHT, source=HOLDER)
    assert crowd.end(*calls) == [False, True]


def test_a_source_of_wrong_secrets_leaves_an_argon2_place_to_others() -> None:
    with crowd_of(8) as crowd:
        attackers = [f"203.0.113.{number}" for number in range(4)]
        for number, source in enumerate(attackers):
            crowd.end(*crowd.begin(f"{number}", source=source))
        calls = [crowd.begin("x", key=source, source=source)[0] for source in attackers[:3]]
        assert crowd.is_refused("x", key="one more", source=attackers[3])
        calls += crowd.begin(RIGHT, source=HOLDER)
        assert crowd.end(*calls)[-1]


def test_a_correct_secret_resets_the_limit(crowd: Crowd) -> None:
    crowd.end(*crowd.begin("typo", source=HOLDER))
    crowd.end(*crowd.begin(RIGHT, source=HOLDER))
    calls = crowd.begin("3", source=ATTACKER)
    assert crowd.end(*calls, *crowd.begin(RIGHT, source=HOLDER)) == [False, True]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("not an address", "another", False),
    ],
)
def test_an_ipv6_subscriber_is_one_source(crowd: Crowd, one: str, other: str, same: bool) -> None:  # noqa: FBT001
    calls = [crowd.begin("x", key=f"{n}", source=one)[0] for n in range(MAX_OF_A_SOURCE)]
    if same:
        assert crowd.is_refused("x", key="one more", source=other)
    else:
        calls += crowd.begin("x", key="one more", source=other)
    crowd.end(*calls)


# From here on the whole of verifying, with real proofs.


class Argon2Calls:
    """Counts the calls that pass a gate."""

    def __init__(self) -> None:
        self.made = 0
        self._lock = threading.Lock()

    def __call__(self, change: int) -> None:
        with self._lock:
            self.made += change > 0


@dataclass(frozen=True)
class Ledger:
    """A ledger with keys whose digests are lost, and the count of its Argon2id calls."""

    keys: Keys
    cold: list[Made]
    argon2: Argon2Calls

    def verify(self, token: str, source: str | None = None) -> Code:
        answer = self.keys.opened.authentication.verify(token, (), now=self.keys.now, source=source)
        return answer.verdict.code


@pytest.fixture
def ledger(data_dir: Path) -> Iterator[Ledger]:
    with keys_in(data_dir) as keys:
        cold = [keys.create(f"{number}") for number in range(6)]
    sql(address_of(data_dir), "DELETE FROM key_digests")
    argon2 = Argon2Calls()
    with keys_in(data_dir, on_argon2=argon2) as keys:
        yield Ledger(keys, cold, argon2)


def wrong_secrets(token: str) -> Iterator[str]:
    parsed = parse(token)
    assert parsed is not None
    while True:
        wrong = mint(parsed.prefix, token_bytes).secret
        yield Token(parsed.prefix, parsed.lookup_id, wrong).reveal()


def unknown_tokens(_token: str) -> Iterator[str]:
    while True:
        yield mint("key", token_bytes).reveal()


def malformed_tokens(token: str) -> Iterator[str]:
    while True:
        yield from (token[:-1], f"{token}x", "garbage", "", "x" * 10_000, token.swapcase())


@pytest.mark.parametrize("flood", [wrong_secrets, unknown_tokens, malformed_tokens])
def test_a_flood_runs_no_argon2(ledger: Ledger, flood: Callable[[str], Iterator[str]]) -> None:
    warm = ledger.keys.create()
    before = ledger.argon2.made

    def be_one_of_many(source: str) -> set[Code]:
        return {ledger.verify(token, source) for token in islice(flood(warm.token), 300)}

    with ThreadPoolExecutor(8) as pool:
        codes = set().union(*pool.map(be_one_of_many, (f"203.0.113.{n}" for n in range(8))))
    assert codes == {Code.MALFORMED if flood is malformed_tokens else Code.NOT_FOUND}
    assert ledger.argon2.made == before
    assert ledger.verify(warm.token) is Code.VALID


def test_an_unknown_key_and_a_wrong_secret_cost_the_same(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm = ledger.keys.create()
    assert ledger.verify(warm.token) is Code.VALID
    done: list[str] = []

    def digest(pepper: Pepper, lookup_id: str, secret: str) -> bytes:
        done.append("digest")
        return hmac.digest(pepper.value, (lookup_id + secret).encode(), "sha256")

    def same(one: bytes, other: bytes) -> bool:
        done.append(f"comparison of {len(one)} and {len(other)}")
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(Pepper, "digest", digest)
    monkeypatch.setattr("projections.auth.authentication.same_digest", same)
    for token in (next(wrong_secrets(warm.token)), next(unknown_tokens(""))):
        done.clear()
        assert ledger.verify(token) is Code.NOT_FOUND
        assert done == ["digest", "comparison of 32 and 32"]


def test_many_callers_of_an_uncached_key_cost_few_argon2_calls_and_then_none(
    ledger: Ledger,
) -> None:
    made = ledger.cold[0]
    with ThreadPoolExecutor(16) as pool:
        codes = list(pool.map(lambda _: ledger.verify(made.token, HOLDER), range(200)))
    assert set(codes) == {Code.VALID}
    # Some may have looked for the digest just before the one proof was over.
    assert 1 <= ledger.argon2.made <= 3


def tries_until_valid(ledger: Ledger, made: Made, source: str | None) -> int:
    """Verify as a client does, that comes back a little later when it is told to."""
    for tries in range(1, 200):
        with suppress(Overloaded):
            assert ledger.verify(made.token, source) is Code.VALID
            return tries
        sleep(0.005)
    pytest.fail("a holder of a cold key was kept out")


@contextmanager
def flooded(ledger: Ledger, token: str, *sources: str, threads: int = 4) -> Iterator[Counter[str]]:
    """Try random wrong secrets of a key from other sources, without a pause."""
    counted: Counter[str] = Counter()
    over = threading.Event()

    def flood(source: str) -> None:
        for wrong in wrong_secrets(token):
            if over.is_set():
                return
            try:
                counted[ledger.verify(wrong, source)] += 1
            except Overloaded:
                counted["overloaded"] += 1

    with ThreadPoolExecutor(threads * len(sources)) as pool:
        floods = [pool.submit(flood, source) for source in sources * threads]
        sleep(0.1)
        try:
            yield counted
        finally:
            over.set()
            for each in floods:
                each.result()


@pytest.mark.parametrize("sources", [[ATTACKER], [f"203.0.113.{n}" for n in range(4)]])
def test_the_holder_of_a_cold_key_gets_in_while_it_is_flooded(
    ledger: Ledger, sources: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    proves = Argon2Gate.proves

    def prove_slowly(gate: Argon2Gate, verifier: str, secret: str) -> bool:
        # As long as in production, but leaving the cores to the flood.
        sleep(0.02)
        return proves(gate, verifier, secret)

    monkeypatch.setattr(Argon2Gate, "proves", prove_slowly)
    for made in ledger.cold:
        with flooded(ledger, made.token, *sources) as counted:
            tries = tries_until_valid(ledger, made, HOLDER)
        assert tries <= 3, "the sources of the flood have been in doubt since their first answers"
        assert counted[Code.NOT_FOUND]
        assert counted["overloaded"]
        assert counted[Code.VALID] == 0


def test_keys_are_made_while_cold_keys_are_flooded(ledger: Ledger) -> None:
    sources = [f"203.0.113.{number}" for number in range(5)]
    with ExitStack() as floods:
        for made in ledger.cold[:3]:
            floods.enter_context(flooded(ledger, made.token, *sources, threads=1))
        for number in range(20):
            new = ledger.keys.create(f"new {number}")
            assert ledger.verify(new.token, HOLDER) is Code.VALID
