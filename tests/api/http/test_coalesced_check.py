"""One question to a server is shared by all checks that wait when it begins."""

import asyncio
from collections.abc import Awaitable, Callable
from unittest.mock import patch

import pytest

from api.composition import OpenLedger
from api.http.coalesced_check import SharedQuestion
from domain.judge import Code
from domain.pepper import Pepper
from domain.verifiers import CHEAPEST, Argon2Gate
from projections.auth.authentication import Authentication
from projections.auth.freshness_async import OpenQuestion
from tests.postgresql import administration, connected
from tests.projections.ledgers import Keys, Made

pytestmark = pytest.mark.only_on("postgresql")

Work = Callable[[SharedQuestion], Awaitable[None]]


@pytest.fixture
def keys(opened: OpenLedger) -> Keys:
    return Keys(opened)


def run(keys: Keys, work: Work) -> None:
    async def play() -> None:
        question = SharedQuestion(keys.opened.authentication, keys.database)
        await question.connect()
        try:
            async with asyncio.timeout(60):
                await work(question)
        finally:
            await question.close()

    asyncio.run(play())


def told(keys: Keys, made: Made) -> Code | None:
    answer = keys.opened.authentication.verify_caught_up(made.token, (), now=keys.now)
    return None if answer is None else answer.verdict.code


def cut_all(keys: Keys) -> None:
    with administration(keys.database.url) as server:
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            [keys.database.url.database],
        )


def test_those_that_come_while_one_is_under_way_share_the_next(keys: Keys) -> None:
    sent = []
    send = OpenQuestion.send

    def counted(question: OpenQuestion, since: object) -> None:
        sent.append(since)
        send(question, since)  # type: ignore[arg-type]

    async def work(question: SharedQuestion) -> None:
        assert await question.answered()
        sent.clear()
        assert all(await asyncio.gather(*(question.answered() for _ in range(100))))
        assert len(sent) == 2

    with patch.object(OpenQuestion, "send", counted):
        run(keys, work)


def test_the_check_after_a_change_knows_of_it(keys: Keys) -> None:
    made = keys.create("payments")
    other = keys.create("other")
    for each in (made, other):
        assert keys.verify(each.token) is Code.VALID

    async def work(question: SharedQuestion) -> None:
        assert await question.answered()
        assert told(keys, made) is Code.VALID
        keys.revoke(made.key_id)
        assert await question.answered()
        # It was forgotten, and what is not in memory is not looked for in the event loop.
        assert told(keys, made) is None
        assert told(keys, other) is Code.VALID
        assert keys.verify(made.token) is Code.REVOKED
        assert told(keys, made) is Code.REVOKED

    run(keys, work)


def test_with_more_news_than_it_looks_at_everything_is_forgotten(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = keys.create("payments")
    assert keys.verify(made.token) is Code.VALID
    monkeypatch.setattr("projections.auth.freshness.EVENTS_LOOKED_AT", 3)

    async def work(question: SharedQuestion) -> None:
        assert await question.answered()
        for number in range(4):
            keys.create(f"{number}")
        assert await question.answered()
        assert told(keys, made) is None
        assert keys.opened.authentication.seen.last[0] == 5

    run(keys, work)


def test_a_secret_that_is_wrong_is_nothing_for_the_event_loop(keys: Keys) -> None:
    made = keys.create("payments")
    assert keys.verify(made.token) is Code.VALID
    wrong = Made(made.key_id, keys.create("other").token)

    async def work(question: SharedQuestion) -> None:
        assert await question.answered()
        assert told(keys, wrong) is None

    run(keys, work)


def test_when_the_connection_was_cut_it_is_told_and_mended(keys: Keys) -> None:
    async def work(question: SharedQuestion) -> None:
        assert await question.answered()
        cut_all(keys)
        # Whoever asks before the end of the connection is noticed is told that it is not known.
        while await question.answered():
            pass
        while not await question.answered():
            await asyncio.to_thread(list)  # gives the loop the time to connect

    run(keys, work)


def test_when_it_is_cut_while_a_question_waits_all_are_told_at_once(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody is to be told by running out of patience.
    monkeypatch.setattr("api.http.coalesced_check._PATIENCE_SECONDS", 3600.0)

    async def work(question: SharedQuestion) -> None:
        assert await question.answered()
        for _ in range(3):
            with connected(keys.database.url) as other, other.transaction():
                other.execute("LOCK TABLE projection_states IN ACCESS EXCLUSIVE MODE")
                asked = asyncio.gather(*(question.answered() for _ in range(4)))
                while not await asyncio.to_thread(cut_who_waits, keys):
                    pass
                assert not any(await asked)
            while not await question.answered():
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


def test_a_server_that_says_nothing_is_not_waited_for_for_ever(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.http.coalesced_check._PATIENCE_SECONDS", 0.05)

    async def work(question: SharedQuestion) -> None:
        with patch.object(OpenQuestion, "send", lambda *_: None):
            assert not await question.answered()
        while not await question.answered():
            await asyncio.to_thread(list)  # gives the loop the time to connect

    run(keys, work)


def test_within_the_staleness_that_somebody_has_allowed_nothing_is_asked(keys: Keys) -> None:
    made = keys.create("payments")
    gate = Argon2Gate(at_once=1, waiting=0, profile=CHEAPEST)
    pepper = Pepper(keys.opened.settings.pepper_path.read_bytes())
    stale = Authentication(keys.database, gate, pepper, staleness_seconds=60.0)
    assert stale.verify(made.token, (), now=keys.now).verdict.code is Code.VALID
    keys.revoke(made.key_id)
    assert stale.is_fresh()
    assert stale.verify(made.token, (), now=keys.now).verdict.code is Code.VALID
    assert keys.verify(made.token) is Code.REVOKED
    stale.close()
