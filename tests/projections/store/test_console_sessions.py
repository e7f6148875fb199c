"""A console session ends at its limit, when idle, or on sign-out; its value is stored nowhere."""

import hashlib
import random
from datetime import timedelta

import pytest

from api.composition import OpenLedger
from domain.verdict import AuthRow, Verified
from projections.store.console_sessions import ConsoleSessions
from tests.conftest import SettableClock
from tests.projections.ledgers import Keys
from tests.raw_sql import sql
from tests.system.secret_search import Search


@pytest.fixture
def sessions(opened: OpenLedger) -> ConsoleSessions:
    return ConsoleSessions(
        opened.database,
        random.Random(3).randbytes,
        lifetime=timedelta(hours=8),
        idle=timedelta(hours=1),
    )


@pytest.fixture
def key(opened: OpenLedger) -> AuthRow:
    token = Keys(opened).create().token
    verdict = opened.authentication.verify(token, (), now=opened.clock()).verdict
    assert isinstance(verdict, Verified)
    return verdict.key


def test_a_session_knows_its_key(
    sessions: ConsoleSessions, key: AuthRow, clock: SettableClock
) -> None:
    value = sessions.begin(key, now=clock())
    found = sessions.find(value, now=clock())
    assert found is not None
    assert (found.key_id, found.lookup_id) == (key.key_id, key.lookup_id)
    assert found.expires_at == clock() + timedelta(hours=8)


def test_each_has_a_value_of_256_bits_of_its_own(
    sessions: ConsoleSessions, key: AuthRow, clock: SettableClock
) -> None:
    values = {sessions.begin(key, now=clock()) for _ in range(5)}
    assert len(values) == 5
    assert {len(value) for value in values} == {43}


def test_the_value_is_kept_nowhere(
    sessions: ConsoleSessions, key: AuthRow, opened: OpenLedger, clock: SettableClock
) -> None:
    search = Search({"value": sessions.begin(key, now=clock()).encode()})
    assert len(sql(opened.database.url, "SELECT * FROM console_sessions")) == 1
    assert search.found_in_tables(opened.settings.data_dir) == {}
    assert search.found_in_files(opened.settings.data_dir) == {}


@pytest.mark.parametrize("value", ["", "x", "A" * 43, "A" * 5000, "é"])
def test_an_unknown_value_finds_no_session(
    value: str, sessions: ConsoleSessions, key: AuthRow, clock: SettableClock
) -> None:
    sessions.begin(key, now=clock())
    assert sessions.find(value, now=clock()) is None


def test_it_ends_when_its_time_is_up_however_much_it_is_used(
    sessions: ConsoleSessions, key: AuthRow, clock: SettableClock
) -> None:
    value = sessions.begin(key, now=clock())
    for _ in range(15):
        assert sessions.find(value, now=clock.advance(minutes=31)) is not None
    assert sessions.find(value, now=clock.advance(minutes=15)) is None


def test_it_ends_when_idle(sessions: ConsoleSessions, key: AuthRow, clock: SettableClock) -> None:
    value = sessions.begin(key, now=clock())
    assert sessions.find(value, now=clock.advance(minutes=59)) is not None
    assert sessions.find(value, now=clock.advance(minutes=59)) is not None
    assert sessions.find(value, now=clock.advance(minutes=60)) is None


def test_an_ended_session_is_gone_and_the_others_are_not(
    sessions: ConsoleSessions, key: AuthRow, clock: SettableClock
) -> None:
    ended, other = (sessions.begin(key, now=clock()) for _ in range(2))
    sessions.end(ended)
    assert sessions.find(ended, now=clock()) is None
    assert sessions.find(other, now=clock()) is not None


def test_the_rows_of_sessions_that_are_over_go_when_the_next_one_begins(
    sessions: ConsoleSessions, key: AuthRow, opened: OpenLedger, clock: SettableClock
) -> None:
    for _ in range(3):
        sessions.begin(key, now=clock())
    clock.advance(hours=1)
    sessions.begin(key, now=clock())
    assert len(sql(opened.database.url, "SELECT * FROM console_sessions")) == 1


@pytest.mark.parametrize(
    "change",
    [
        *(
            f"{column} = '{value}'"
            for column, value in (
                ("key_id", "apikey_00000000-0000-8000-8000-000000000000"),
                ("lookup_id", "0" * 16),
                ("created_at", "2026-03-03T11:00:00.000000Z"),
                ("expires_at", "2099-03-03T11:00:00.000000Z"),
                ("used_at", "2026-03-03T12:00:30.000000Z"),
                ("expires_at", "no time"),
            )
        ),
        "seal = NULL",
        "seal = x'00'",
    ],
)
def test_a_changed_session_is_refused(
    sessions: ConsoleSessions, key: AuthRow, opened: OpenLedger, clock: SettableClock, change: str
) -> None:
    value = sessions.begin(key, now=clock())
    sql(opened.database.url, f"UPDATE console_sessions SET {change}")  # noqa: S608 - from above
    assert sessions.find(value, now=clock()) is None


def test_a_forged_session_is_refused(
    sessions: ConsoleSessions, key: AuthRow, opened: OpenLedger, clock: SettableClock
) -> None:
    sessions.begin(key, now=clock())
    planted = hashlib.sha256(b"a value of mine").digest()
    sql(opened.database.url, "UPDATE console_sessions SET value_sha256 = ?", planted)
    assert sessions.find("a value of mine", now=clock()) is None


def test_a_session_from_the_future_or_longer_than_the_setting_is_refused(
    sessions: ConsoleSessions, key: AuthRow, opened: OpenLedger, clock: SettableClock
) -> None:
    value = sessions.begin(key, now=clock() + timedelta(hours=1))
    assert sessions.find(value, now=clock()) is None
    longer = ConsoleSessions(
        opened.database,
        random.Random(4).randbytes,
        lifetime=timedelta(hours=9),
        idle=timedelta(hours=1),
    )
    value = longer.begin(key, now=clock())
    assert sessions.find(value, now=clock()) is None
    assert longer.find(value, now=clock()) is not None


def test_a_use_that_is_noted_keeps_the_session_sealed(
    sessions: ConsoleSessions, key: AuthRow, clock: SettableClock
) -> None:
    value = sessions.begin(key, now=clock())
    for _ in range(3):
        clock.advance(minutes=30)
        assert sessions.find(value, now=clock()) is not None
