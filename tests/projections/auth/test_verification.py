"""One `verify` for an event loop: fresh, from the cache if it can, else in a thread."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest

from domain.errors import LedgerUnavailable
from domain.tokens import Token, parse
from domain.verdict import Code
from projections.auth.authentication import Answer, TryVerify
from projections.auth.verification import TokenVerification, verifying
from tests.conftest import SettableClock
from tests.projections.ledgers import Keys
from tests.raw_sql import sql


@dataclass
class Threads:
    """Runs in a thread what blocks, and counts it."""

    runs: int = 0

    async def run(self, blocking: Callable[[], Answer]) -> Answer:
        self.runs += 1
        return await asyncio.to_thread(blocking)


Work = Callable[[TokenVerification, Threads], Awaitable[None]]


def run(keys: Keys, work: Work) -> None:
    async def play() -> None:
        opened, threads = keys.opened, Threads()
        async with (
            asyncio.timeout(60),
            verifying(
                opened.authentication, keys.database, opened.clock, threads.run
            ) as verification,
        ):
            await work(verification, threads)

    asyncio.run(play())


async def code_of(verification: TokenVerification, token: str, *scopes: str) -> Code:
    return (await verification.verify(token, scopes)).verdict.code


async def fresh(verification: TokenVerification) -> TryVerify | None:
    """Return what a freshness check gives to callbacks."""
    result: asyncio.Future[TryVerify | None] = asyncio.get_running_loop().create_future()
    verification.when_fresh(result.set_result)
    return await result


def with_wrong_secret(token: str) -> str:
    parsed = parse(token)
    assert parsed is not None
    return Token(parsed.prefix, parsed.lookup_id, "0" * 43).reveal()


def test_it_has_each_verdict(keys: Keys, clock: SettableClock) -> None:
    live, expired, revoked = keys.create(), keys.create(lives=timedelta(hours=1)), keys.create()
    keys.revoke(revoked.key_id)
    clock.advance(hours=1)

    async def work(verification: TokenVerification, _threads: Threads) -> None:
        for _ in range(2):  # from the database, then from the cache
            assert await code_of(verification, live.token, "mcp:read") is Code.VALID
            assert await code_of(verification, live.token, "a:b") is Code.INSUFFICIENT_SCOPE
            assert await code_of(verification, expired.token) is Code.EXPIRED
            assert await code_of(verification, revoked.token) is Code.REVOKED
            assert await code_of(verification, "x") is Code.MALFORMED
            assert await code_of(verification, with_wrong_secret(live.token)) is Code.NOT_FOUND
            answer = await verification.verify(live.token, (), workspace="acme")
            assert answer.verdict.code is Code.NOT_FOUND

    run(keys, work)


def test_a_verification_after_a_change_sees_it(keys: Keys) -> None:
    made = [keys.create(f"{number}") for number in range(5)]

    async def work(verification: TokenVerification, _threads: Threads) -> None:
        for key in made:
            assert await code_of(verification, key.token) is Code.VALID
            await asyncio.to_thread(keys.revoke, key.key_id)
            codes = await asyncio.gather(*(code_of(verification, key.token) for _ in range(8)))
            assert set(codes) == {Code.REVOKED}

    run(keys, work)


def test_argon2_runs_in_a_thread_and_a_cached_key_needs_none(keys: Keys) -> None:
    made = keys.create()
    sql(keys.address, "DELETE FROM key_digests")

    async def work(verification: TokenVerification, threads: Threads) -> None:
        assert await code_of(verification, made.token) is Code.VALID
        assert threads.runs == 1
        for _ in range(5):
            assert await code_of(verification, made.token) is Code.VALID
        assert threads.runs == 1

    run(keys, work)


def test_callbacks_get_a_function_that_decides_after_the_check(keys: Keys) -> None:
    made = keys.create()

    async def work(verification: TokenVerification, _threads: Threads) -> None:
        assert await code_of(verification, made.token) is Code.VALID
        verify = await fresh(verification)
        assert verify is not None
        answer = verify(made.token, ("mcp:read",))
        assert answer is not None
        assert answer.verdict.code is Code.VALID
        keys.revoke(made.key_id)
        verify = await fresh(verification)
        assert verify is not None
        # PostgreSQL is not read in the event loop: the evicted key is left to `verify`.
        answer = verify(made.token, ())
        assert (answer and answer.verdict.code) in (None, Code.REVOKED)
        assert await code_of(verification, made.token) is Code.REVOKED

    run(keys, work)


def test_nothing_is_decided_while_the_database_cannot_be_asked(keys: Keys) -> None:
    made = keys.create()

    async def work(verification: TokenVerification, _threads: Threads) -> None:
        assert await code_of(verification, made.token) is Code.VALID
        keys.rename(made.key_id, "changed")
        sql(keys.address, "ALTER TABLE events RENAME TO gone")
        assert await fresh(verification) is None
        with pytest.raises(LedgerUnavailable):
            await verification.verify(made.token, ())
        sql(keys.address, "ALTER TABLE gone RENAME TO events")
        assert await code_of(verification, made.token) is Code.VALID

    run(keys, work)
