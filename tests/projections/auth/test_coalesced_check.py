"""All verifications that wait when a freshness check begins share its result."""

import asyncio
from collections.abc import Awaitable, Callable
from unittest.mock import patch

import pytest

from api.composition import OpenLedger
from domain.pepper import Pepper
from domain.verdict import Code
from domain.verifiers import CHEAPEST, Argon2Gate
from projections.auth.authentication import Authentication
from projections.auth.coalesced_check import CoalescedCheck
from projections.auth.freshness_async import AsyncFreshnessCheck
from tests.postgresql import administration, connected
from tests.projections.ledgers import Keys, Made

pytestmark = pytest.mark.only_on("postgresql")

Work = Callable[[CoalescedCheck], Awaitable[None]]


@pytest.fixture
def keys(opened: OpenLedger) -> Keys:
    return Keys(opened)


def run(keys: Keys, work: Work) -> None:
    async def play() -> None:
        coalesced = CoalescedCheck(keys.opened.authentication.freshness, keys.database)
        await coalesced.connect()
        try:
            async with asyncio.timeout(60):
                await work(coalesced)
        finally:
            await coalesced.close()

    asyncio.run(play())


def verdict_at_once(keys: Keys, made: Made) -> Code | None:
    answer = keys.opened.authentication.try_verify(now=keys.now)(made.token, ())
    return None if answer is None else answer.verdict.code


def cut_all(keys: Keys) -> None:
    with administration(keys.database.url) as server:
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            [keys.database.url.database],
        )


def test_callers_that_arrive_during_a_check_share_the_next_one(keys: Keys) -> None:
    sent = []
    send = AsyncFreshnessCheck.send

    def counted(check: AsyncFreshnessCheck, since: object) -> None:
        sent.append(since)
        send(check, since)  # type: ignore[arg-type]

    async def work(coalesced: CoalescedCheck) -> None:
        assert await coalesced.wait()
        sent.clear()
        assert all(await asyncio.gather(*(coalesced.wait() for _ in range(100))))
        assert len(sent) == 2

    with patch.object(AsyncFreshnessCheck, "send", counted):
        run(keys, work)


def test_a_check_after_a_change_evicts_the_key_that_changed(keys: Keys) -> None:
    made = keys.create("payments")
    other = keys.create("other")
    for each in (made, other):
        assert keys.verify(each.token) is Code.VALID

    async def work(coalesced: CoalescedCheck) -> None:
        assert await coalesced.wait()
        assert verdict_at_once(keys, made) is Code.VALID
        keys.revoke(made.key_id)
        assert await coalesced.wait()
        # The key was evicted, and the event loop reads no row.
        assert verdict_at_once(keys, made) is None
        assert verdict_at_once(keys, other) is Code.VALID
        assert keys.verify(made.token) is Code.REVOKED
        assert verdict_at_once(keys, made) is Code.REVOKED

    run(keys, work)


def test_more_new_events_than_the_maximum_clear_the_cache(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = keys.create("payments")
    assert keys.verify(made.token) is Code.VALID
    monkeypatch.setattr("projections.auth.new_events.MAX_NEW_EVENTS", 3)

    async def work(coalesced: CoalescedCheck) -> None:
        assert await coalesced.wait()
        for number in range(4):
            keys.create(f"{number}")
        assert await coalesced.wait()
        assert verdict_at_once(keys, made) is None
        assert keys.opened.authentication.freshness.observed.position == 5

    run(keys, work)


def test_a_wrong_secret_is_not_decided_in_the_event_loop(keys: Keys) -> None:
    made = keys.create("payments")
    assert keys.verify(made.token) is Code.VALID
    wrong = Made(made.key_id, keys.create("other").token)

    async def work(coalesced: CoalescedCheck) -> None:
        assert await coalesced.wait()
        assert verdict_at_once(keys, wrong) is None

    run(keys, work)


def test_a_cut_connection_fails_the_check_and_is_replaced(keys: Keys) -> None:
    async def work(coalesced: CoalescedCheck) -> None:
        assert await coalesced.wait()
        cut_all(keys)
        # Until the end of the connection is noticed, a check may still succeed.
        while await coalesced.wait():
            pass
        while not await coalesced.wait():
            await asyncio.to_thread(list)  # gives the loop the time to connect

    run(keys, work)


def test_a_connection_cut_during_a_check_fails_it_for_all_callers_at_once(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The timeout must not be what ends the check.
    monkeypatch.setattr("projections.auth.coalesced_check._TIMEOUT_SECONDS", 3600.0)

    async def work(coalesced: CoalescedCheck) -> None:
        assert await coalesced.wait()
        for _ in range(3):
            with connected(keys.database.url) as other, other.transaction():
                other.execute("LOCK TABLE projection_states IN ACCESS EXCLUSIVE MODE")
                asked = asyncio.gather(*(coalesced.wait() for _ in range(4)))
                while not await asyncio.to_thread(cut_who_waits, keys):
                    pass
                assert not any(await asked)
            while not await coalesced.wait():
                await asyncio.to_thread(list)  # gives the loop the time to connect

    run(keys, work)


def cut_who_waits(keys: Keys) -> int:
    """End the ledger's connections that wait for a lock; return how many there were."""
    with administration(keys.database.url) as server:
        return server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = %s AND wait_event_type = 'Lock'",
            [keys.database.url.database],
        ).rowcount


def test_a_silent_server_fails_the_check_after_the_timeout(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.auth.coalesced_check._TIMEOUT_SECONDS", 0.05)

    async def work(coalesced: CoalescedCheck) -> None:
        with patch.object(AsyncFreshnessCheck, "send", lambda *_: None):
            assert not await coalesced.wait()
        while not await coalesced.wait():
            await asyncio.to_thread(list)  # gives the loop the time to connect

    run(keys, work)


def test_within_the_allowed_staleness_nothing_is_asked(keys: Keys) -> None:
    made = keys.create("payments")
    gate = Argon2Gate(at_once=1, waiting=0, profile=CHEAPEST)
    pepper = Pepper(keys.opened.settings.pepper_path.read_bytes())
    stale = Authentication(keys.database, gate, pepper, staleness_seconds=60.0)
    assert stale.verify(made.token, (), now=keys.now).verdict.code is Code.VALID
    keys.revoke(made.key_id)
    assert stale.freshness.is_current
    assert stale.verify(made.token, (), now=keys.now).verdict.code is Code.VALID
    assert keys.verify(made.token) is Code.REVOKED
    stale.close()
