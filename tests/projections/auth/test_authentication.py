import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from secrets import token_bytes
from typing import Any
from unittest.mock import patch

import pytest
import structlog

from domain.errors import LedgerUnavailable, RowNotSealed
from domain.key_ledger import Changes
from domain.pepper import Pepper
from domain.tokens import ALPHABET, Token, mint, parse
from domain.verdict import Code, Refused, Verified
from domain.verifiers import CHEAPEST, Argon2Gate
from projections.auth.authentication import Authentication
from projections.auth.freshness_postgresql import PostgresqlFreshness
from projections.auth.freshness_sqlite import SqliteFreshness
from projections.queries.filters import Filters
from projections.queries.keys_now import list_keys
from projections.rebuild.rebuild import rebuild
from projections.views.key_fields import ListedKey
from projections.views.registry import VIEWS, view_named
from tests.conftest import SettableClock
from tests.projections.ledgers import HOUR, Keys, Made, keys_in
from tests.projections.processes import CONTEXT, start
from tests.raw_sql import appends_locked, rows_of, sql, stop_at

UNKNOWN = Token("key", "0" * 16, "0" * 43).reveal()


class Argon2Calls:
    """Counts the calls that a ledger's gate lets through."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, change: int) -> None:
        self.made += change > 0

    @contextmanager
    def are(self, expected: int) -> Iterator[None]:
        before = self.made
        yield
        assert self.made - before == expected


@pytest.fixture
def argon2() -> Argon2Calls:
    return Argon2Calls()


@pytest.fixture
def keys(data_dir: Path, clock: SettableClock, argon2: Argon2Calls) -> Iterator[Keys]:
    with keys_in(data_dir, clock=clock, on_argon2=argon2) as keys:
        yield keys


@contextmanager
def restarted(keys: Keys, clock: SettableClock, argon2: Argon2Calls) -> Iterator[Keys]:
    """Open the ledger once more, as another process would."""
    with keys_in(keys.data_dir, clock=clock, on_argon2=argon2) as again:
        yield again


def with_another_secret(token: str) -> str:
    parsed = parse(token)
    assert parsed is not None
    return Token(parsed.prefix, parsed.lookup_id, mint("x", token_bytes).secret).reveal()


def with_another_prefix(token: str) -> str:
    parsed = parse(token)
    assert parsed is not None
    return Token("other", parsed.lookup_id, parsed.secret).reveal()


def forget_digests(keys: Keys) -> None:
    sql(keys.address, "DELETE FROM key_digests")


def test_a_good_token_is_verified_with_its_key_and_position(
    keys: Keys, clock: SettableClock
) -> None:
    made = keys.create("payments", scopes=("mcp:read",))
    keys.create()
    answer = keys.opened.authentication.verify(made.token, ["mcp:read"], now=clock.now)
    assert isinstance(answer.verdict, Verified)
    assert answer.verdict.key.key_id == made.key_id
    assert answer.verdict.key.name == "payments"
    assert answer.position == 2


def test_each_refusal_has_its_code(keys: Keys, clock: SettableClock) -> None:
    made = keys.create(scopes=("mcp:read", "a:*"), lives=HOUR)
    assert keys.verify(made.token) is Code.VALID
    assert keys.verify(made.token, "mcp:read", "a:b") is Code.VALID
    assert keys.verify(made.token, "mcp:read", "mcp:write") is Code.INSUFFICIENT_SCOPE
    assert keys.verify(made.token, "*") is Code.INSUFFICIENT_SCOPE
    assert keys.verify(made.token[:-1]) is Code.MALFORMED
    assert keys.verify(UNKNOWN) is Code.NOT_FOUND
    clock.advance(minutes=59)
    assert keys.verify(made.token) is Code.VALID
    clock.advance(minutes=1)
    assert keys.verify(made.token) is Code.EXPIRED
    keys.expire_due()
    assert keys.verify(made.token) is Code.EXPIRED
    clock.advance(hours=-2)
    assert keys.verify(made.token) is Code.EXPIRED
    keys.revoke(made.key_id)
    assert keys.verify(made.token, "mcp:write") is Code.REVOKED


@pytest.mark.parametrize("known", [True, False], ids=["digest", "no digest"])
def test_a_client_without_the_secret_learns_nothing(
    keys: Keys, clock: SettableClock, *, known: bool
) -> None:
    live = keys.create()
    revoked = keys.create()
    keys.revoke(revoked.key_id)
    expired = keys.create(lives=HOUR)
    theirs = keys.create(workspace="other")
    clock.advance(hours=2)
    if not known:
        forget_digests(keys)
    answers = [
        keys.opened.authentication.verify(token, ["x:y"], now=clock.now, workspace=workspace)
        for token, workspace in [
            (UNKNOWN, None),
            *((with_another_secret(each.token), None) for each in (live, revoked, expired, theirs)),
            *((with_another_prefix(each.token), None) for each in (live, revoked, expired, theirs)),
            (theirs.token, "default"),
            (live.token, "other"),
            (revoked.token, "other"),
            (live.token, ""),
        ]
    ]
    assert {answer.verdict for answer in answers} == {Refused(Code.NOT_FOUND, None)}
    assert len({answer.position for answer in answers}) == 1


def test_a_workspace_verifies_its_own_keys(keys: Keys) -> None:
    theirs = keys.create(workspace="other")
    assert keys.verify(theirs.token, workspace="other") is Code.VALID
    assert keys.verify(theirs.token) is Code.VALID


@pytest.mark.parametrize(
    "text",
    [
        "",
        "key_",
        "Bearer x",
        "key_" + "0" * 64,
        "key_" + "0" * 66,
        "key_" + "é" * 65,
        "\0",
        "x" * 10**6,
    ],
)
def test_garbage_is_malformed_and_costs_no_argon2(
    keys: Keys, argon2: Argon2Calls, text: str
) -> None:
    keys.create()
    with argon2.are(0):
        answer = keys.opened.authentication.verify(text, (), now=keys.now)
    assert answer.verdict == Refused(Code.MALFORMED)
    assert answer.position == 1


def test_no_token_that_differs_in_a_character_is_accepted(keys: Keys, argon2: Argon2Calls) -> None:
    made = keys.create()
    assert keys.verify(made.token) is Code.VALID
    tried = 0
    with argon2.are(0):
        for place, right in enumerate(made.token):
            for character in f"{ALPHABET}_-. é\n":
                if character != right:
                    tried += 1
                    changed = f"{made.token[:place]}{character}{made.token[place + 1 :]}"
                    assert keys.verify(changed) in (Code.MALFORMED, Code.NOT_FOUND)
            assert keys.verify(made.token[:place] + made.token[place + 1 :]) is not Code.VALID
            assert keys.verify(made.token[:place] + right + made.token[place:]) is not Code.VALID
        for around in (f" {made.token}", f"{made.token} ", f"{made.token}\n", f"{made.token}\0"):
            assert keys.verify(around) is Code.MALFORMED
    assert tried > 4000
    assert keys.verify(made.token) is Code.VALID


def test_a_new_key_is_verified_without_argon2(keys: Keys, argon2: Argon2Calls) -> None:
    made = keys.create()
    with argon2.are(0):
        for _ in range(3):
            assert keys.verify(made.token) is Code.VALID


def test_a_wrong_secret_costs_no_argon2_where_there_is_a_digest(
    keys: Keys, argon2: Argon2Calls
) -> None:
    made = keys.create()
    with argon2.are(0):
        for _ in range(20):
            assert keys.verify(with_another_secret(made.token)) is Code.NOT_FOUND
        assert keys.verify(UNKNOWN) is Code.NOT_FOUND


def test_without_a_digest_argon2_proves_the_secret_and_a_digest_is_kept(
    keys: Keys, clock: SettableClock, argon2: Argon2Calls
) -> None:
    made = keys.create()
    digests = rows_of(keys.address, "key_digests")
    forget_digests(keys)
    with restarted(keys, clock, argon2) as again:
        with argon2.are(1):
            assert again.verify(made.token) is Code.VALID
        assert rows_of(keys.address, "key_digests") == digests
        with argon2.are(0):
            assert again.verify(made.token) is Code.VALID
            assert again.verify(with_another_secret(made.token)) is Code.NOT_FOUND
    with restarted(keys, clock, argon2) as again, argon2.are(0):
        assert again.verify(made.token) is Code.VALID


def test_a_wrong_secret_without_a_digest_costs_one_argon2_and_leaves_nothing(
    keys: Keys, clock: SettableClock, argon2: Argon2Calls
) -> None:
    made = keys.create()
    forget_digests(keys)
    wrong = with_another_secret(made.token)
    with restarted(keys, clock, argon2) as again:
        with argon2.are(1):
            assert again.verify(wrong) is Code.NOT_FOUND
        assert rows_of(keys.address, "key_digests") == []
        with argon2.are(1):
            assert again.verify(made.token) is Code.VALID


@pytest.mark.parametrize("code", [Code.REVOKED, Code.EXPIRED, Code.INSUFFICIENT_SCOPE])
def test_a_refused_key_s_proved_secret_is_kept_too(
    keys: Keys, clock: SettableClock, argon2: Argon2Calls, code: Code
) -> None:
    made = keys.create(lives=HOUR)
    if code is Code.REVOKED:
        keys.revoke(made.key_id)
    if code is Code.EXPIRED:
        clock.advance(hours=1)
    scopes = ["a:b"] if code is Code.INSUFFICIENT_SCOPE else []
    forget_digests(keys)
    with restarted(keys, clock, argon2) as again:
        for calls in (1, 0):
            with argon2.are(calls):
                answer = again.opened.authentication.verify(made.token, scopes, now=clock.now)
            assert isinstance(answer.verdict, Refused)
            assert answer.verdict.code is code
            assert answer.verdict.key is not None
            assert answer.verdict.key.key_id == made.key_id


@pytest.mark.parametrize(
    "change",
    [
        "verifier = 'no verifier'",
        "verifier = (SELECT verifier FROM auth_lookup WHERE position = 2)",
        "scopes = '[\"*\"]'",
        "seal = NULL",
        "version = 2",
    ],
)
def test_a_changed_row_neither_grants_nor_refuses_anything(
    keys: Keys, clock: SettableClock, argon2: Argon2Calls, change: str
) -> None:
    made, other = keys.create(), keys.create()
    forget_digests(keys)
    sql(keys.address, f"UPDATE auth_lookup SET {change} WHERE position = 1")  # noqa: S608 - from above
    with restarted(keys, clock, argon2) as again:
        with argon2.are(0), pytest.raises(RowNotSealed, match="grants no access"):
            again.verify(made.token)
        assert again.verify(other.token) is Code.VALID
        rebuild(again.database, view_named("auth_lookup"), clock=clock)
        assert again.verify(made.token) is Code.VALID


def overwrite(keys: Keys) -> None:
    """Put garbage in the database's place, page for page, as a failing disk would."""
    sql(keys.address, "UPDATE key_digests SET digest = digest")
    sql(keys.address, "PRAGMA wal_checkpoint(TRUNCATE)")
    with keys.path.open("r+b") as file:
        size = file.seek(0, 2)
        file.seek(0)
        file.write(b"\xa5" * size)


def drop_events(keys: Keys) -> None:
    sql(keys.address, "DROP TABLE events")


@pytest.mark.parametrize(
    "trouble", [pytest.param(overwrite, marks=pytest.mark.only_on("sqlite")), drop_events]
)
@pytest.mark.parametrize("text", ["a key used before", "a key never used", "unknown", "garbage"])
def test_an_unavailable_ledger_gives_no_verdict(
    keys: Keys, text: str, trouble: Callable[[Keys], None]
) -> None:
    used, never_used = keys.create(), keys.create()
    assert keys.verify(used.token) is Code.VALID
    trouble(keys)
    token = {"a key used before": used.token, "a key never used": never_used.token}.get(
        text, UNKNOWN if text == "unknown" else text
    )
    for _ in range(2):
        with pytest.raises(LedgerUnavailable):
            keys.verify(token)


def test_a_missing_view_does_not_prevent_opening(keys: Keys) -> None:
    made = keys.create()
    sql(keys.address, "DROP TABLE auth_lookup")
    for token in (made.token, UNKNOWN):
        with pytest.raises(LedgerUnavailable):
            keys.verify(token)


@pytest.mark.only_on("sqlite")  # where every change needs the append lock
def test_a_digest_that_cannot_be_written_changes_no_verdict(
    keys: Keys, clock: SettableClock, argon2: Argon2Calls
) -> None:
    made = keys.create()
    forget_digests(keys)
    with restarted(keys, clock, argon2) as again, structlog.testing.capture_logs() as logs:
        with again.database.writer.connect() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout = 10")
        with appends_locked(keys.address):
            assert again.verify(made.token) is Code.VALID
            assert again.verify(with_another_secret(made.token)) is Code.NOT_FOUND
    assert rows_of(keys.address, "key_digests") == []
    assert [(log["event"], log["log_level"]) for log in logs] == [("digest_not_kept", "warning")]
    assert made.token[20:63] not in str(logs)


def test_a_digest_that_the_database_refuses_changes_no_verdict(
    keys: Keys, clock: SettableClock, argon2: Argon2Calls
) -> None:
    made = keys.create()
    forget_digests(keys)
    with restarted(keys, clock, argon2) as again, structlog.testing.capture_logs() as logs:
        stop_at(keys.address, "INSERT", "key_digests")
        assert again.verify(made.token) is Code.VALID
    assert [log["event"] for log in logs] == ["digest_not_kept"]


def test_verifying_does_not_wait_for_a_writer(keys: Keys) -> None:
    made = keys.create()
    with appends_locked(keys.address):
        assert keys.verify(made.token) is Code.VALID
        assert keys.verify(UNKNOWN) is Code.NOT_FOUND
        assert keys.verify("garbage") is Code.MALFORMED


def do_as_told(data_dir: Path, pipe: Pipe) -> None:
    with keys_in(data_dir) as keys:
        while True:
            key_id, command = pipe.recv()
            if command == "stop":
                return
            if command == "revoke":
                keys.revoke(key_id)
            if command == "rename":
                keys.rename(key_id, "renamed")
            if command == "narrow":
                keys.update(key_id, Changes(scopes=["a:b"]))
            if command == "rotate":
                keys.rotate(key_id)
            pipe.send("done")


def test_an_answer_of_another_process_holds_immediately(keys: Keys) -> None:
    keys_made = [keys.create(f"{number}") for number in range(6)]
    for made in keys_made:
        assert keys.verify(made.token, "mcp:read") is Code.VALID
    ours, theirs = CONTEXT.Pipe()

    def tell(made: Made, command: str) -> None:
        ours.send((made.key_id, command))
        if command != "stop":
            assert ours.poll(30)
            assert ours.recv() == "done"

    first, second, third, fourth, *untouched = keys_made
    with start(do_as_told, keys.data_dir, theirs) as other:
        tell(first, "revoke")
        assert keys.verify(first.token, "mcp:read") is Code.REVOKED
        tell(second, "rotate")
        assert keys.verify(second.token, "mcp:read") is Code.EXPIRED
        tell(third, "narrow")
        assert keys.verify(third.token, "mcp:read") is Code.INSUFFICIENT_SCOPE
        tell(fourth, "rename")
        answer = keys.opened.authentication.verify(fourth.token, (), now=keys.now)
        assert isinstance(answer.verdict, Verified)
        assert answer.verdict.key.name == "renamed"
        assert answer.position == 6 + 1 + 2 + 1 + 1
        for made in untouched:
            assert keys.verify(made.token, "mcp:read") is Code.VALID
        tell(first, "stop")
        other.result()


def command_at_random(keys: Keys, clock: SettableClock, chance: random.Random) -> list[Made]:
    """Do something to some key; return the keys that it made."""
    shown = chance.choice(all_keys(keys))
    command = chance.choice(["create", "revoke", "rename", "rotate", "expire", "wait", "rebuild"])
    if command == "create":
        return [keys.create(lives=10 * HOUR)]
    if command == "revoke":
        keys.revoke(shown.key_id)
    elif command == "rename" and shown.status == "active":
        keys.rename(shown.key_id, f"{chance.random()}")
    elif command == "rotate" and shown.status == "active" and shown.rotated_to is None:
        return [keys.rotate(shown.key_id, grace=chance.choice([0, 1]) * HOUR)]
    elif command == "expire":
        keys.expire_due()
    elif command == "wait":
        clock.advance(minutes=20)
    elif command == "rebuild":
        rebuild(keys.database, chance.choice(VIEWS), clock=clock)
    return []


def all_keys(keys: Keys) -> list[ListedKey]:
    with keys.database.read() as connection:
        return list_keys(connection, "default", Filters(), now=keys.now, limit=1000)


@pytest.mark.parametrize("cache_size", [1, 3, 100])
@pytest.mark.parametrize("seed", range(2))
def test_a_cached_key_is_never_older_than_the_ledger(
    keys: Keys, clock: SettableClock, seed: int, cache_size: int
) -> None:
    """Compare a used cache with an empty one, between random commands."""
    chance = random.Random(seed)
    pepper = Pepper((keys.data_dir / "pepper").read_bytes())
    gate = Argon2Gate(at_once=1, waiting=0, profile=CHEAPEST)
    known = [keys.create(f"{number}", lives=10 * HOUR) for number in range(6)]
    caching = Authentication(keys.database, gate, pepper, cache_size=cache_size)
    for _ in range(60):
        known += command_at_random(keys, clock, chance)
        fresh = Authentication(keys.database, gate, pepper)
        for each in chance.sample(known, 4):
            assert caching.verify(each.token, ["mcp:read"], now=clock.now) == fresh.verify(
                each.token, ["mcp:read"], now=clock.now
            )
        fresh.close()
    caching.close()


def test_a_row_that_a_rebuild_repaired_is_read_again(keys: Keys, clock: SettableClock) -> None:
    made = keys.create(lives=timedelta(hours=1))
    keys.revoke(made.key_id)
    sql(keys.address, "UPDATE auth_lookup SET revoked = '0'")
    with pytest.raises(RowNotSealed):
        keys.verify(made.token)
    rebuild(keys.database, view_named("auth_lookup"), clock=clock)
    assert keys.verify(made.token) is Code.REVOKED


def test_a_wrong_secret_reads_as_much_as_an_unknown_key_cached_or_not(
    keys: Keys,
) -> None:
    live, revoked = keys.create("live").token, keys.create("revoked")
    keys.revoke(revoked.key_id)
    unknown = mint("key", random.Random(3).randbytes).reveal()
    read: list[str] = []
    freshness_of_this_engine = SqliteFreshness if keys.database.is_a_file else PostgresqlFreshness
    find = freshness_of_this_engine.find

    def noted(check: Any, lookup_id: str, pepper_id: str) -> object:  # noqa: ANN401 - either one
        read.append(pepper_id)
        return find(check, lookup_id, pepper_id)

    for token in (live, revoked.token):
        keys.verify(token)  # from now on it is cached
    told = {}
    with patch.object(freshness_of_this_engine, "find", noted):
        for token in (unknown, live, revoked.token):
            parsed = parse(token)
            assert parsed is not None
            assert keys.verify(Token("key", parsed.lookup_id, "0" * 43).reveal()) is Code.NOT_FOUND
            told[token] = list(read)
            read.clear()
    assert told[live] == told[revoked.token] == told[unknown] != []


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize("column", ["originator_id", "state"])
def test_an_unreadable_event_does_not_stop_the_check(keys: Keys, column: str) -> None:
    made = keys.create("payments")
    assert keys.verify(made.token) is Code.VALID
    keys.create("planted")
    # The newest event that a process has seen has to stay as it is.
    keys.create("after it")
    sql(keys.address, f"UPDATE events SET {column} = CAST(x'41ff' AS TEXT) WHERE id = 2")  # noqa: S608
    assert keys.verify(made.token) is Code.VALID
    keys.revoke(made.key_id)
    assert keys.verify(made.token) is Code.REVOKED
