"""The list as it was equals the list that was seen then."""

import random
from contextlib import suppress
from datetime import datetime, timedelta

import pytest

from api.composition import OpenLedger
from domain.caller import Caller, system
from domain.errors import KeyNotFound, LedgerError
from domain.key_ledger import Changes
from projections.key_filters import Filters
from projections.key_list import list_keys, show_key
from projections.key_past import list_keys_at, show_key_at
from projections.listed_key import ListedKey
from tests.conftest import SettableClock

EVERYTHING = Filters()
FILTERS = (
    EVERYTHING,
    Filters(status="active"),
    Filters(status="expired"),
    Filters(status="revoked"),
    Filters(text="KEY-1"),
    Filters(text="key_"),
    Filters(scope="mcp:read"),
    Filters(scope="*"),
    Filters(created_by="ada"),
    Filters(created_by="nobody"),
    Filters(expires_before=datetime.fromisoformat("2026-03-03T13:00:00Z")),
)


def act(opened: OpenLedger, by: Caller, choice: random.Random, key_ids: list[str]) -> None:
    """Give one random command; one that is refused changes nothing."""
    ledger, now = opened.ledger, opened.clock()
    command = choice.choice(["create", "create", "revoke", "rotate", "update", "expire"])
    ends = [None, now + timedelta(minutes=choice.randint(1, 90))]
    scopes = choice.choice([["mcp:read"], ["mcp:*", "docs:write"], ["*"]])
    if command == "create" or not key_ids:
        issued = ledger.create_key(
            workspace="default",
            name=f"key-{len(key_ids)}",
            scopes=scopes,
            expires_at=choice.choice(ends),
            token_prefix="key",
            by=by,
            at=now,
        )
        key_ids.append(issued.key_id)
        return
    key_id = choice.choice(key_ids)
    if command == "revoke":
        ledger.revoke_key(key_id, workspace="default", reason="why", comment=None, by=by, at=now)
    elif command == "rotate":
        grace = timedelta(minutes=choice.randint(0, 20))
        issued = ledger.rotate_key(key_id, workspace="default", grace=grace, by=by, at=now)
        key_ids.append(issued.key_id)
    elif command == "update":
        changes = Changes(name=f"renamed-{choice.randint(0, 9)}", scopes=scopes)
        ledger.update_key(key_id, changes, workspace="default", by=by, at=now)
    else:
        ledger.expire_keys([key_id], by=system("expirer"), at=now)


def seen_now(opened: OpenLedger, filters: Filters) -> list[ListedKey]:
    with opened.database.read() as connection:
        return list_keys(connection, "default", filters, now=opened.clock(), limit=1000)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_was_seen_at_a_time_is_shown_as_of_it(
    opened: OpenLedger, clock: SettableClock, admin: Caller, seed: int
) -> None:
    choice = random.Random(seed)
    key_ids: list[str] = []
    seen: list[tuple[datetime, dict[Filters, list[ListedKey]]]] = []
    for _ in range(60):
        with suppress(LedgerError):
            act(opened, admin, choice, key_ids)
        # At the event's own time, and between it and the next one.
        for seconds in (0, choice.randint(1, 400)):
            clock.advance(seconds=seconds)
            seen.append((clock(), {each: seen_now(opened, each) for each in FILTERS}))
        clock.advance(seconds=1)
    assert {key.status for key in seen[-1][1][EVERYTHING]} == {"active", "revoked", "expired"}
    with opened.database.read() as connection:
        for at, lists in seen:
            for filters, keys in lists.items():
                past = list_keys_at(connection, "default", filters, at=at, limit=1000)
                assert past == keys, (at, filters)
            for key in lists[EVERYTHING]:
                assert show_key_at(connection, "default", key.key_id, at=at) == key


def test_before_the_first_event_there_is_nothing(
    opened: OpenLedger, clock: SettableClock, admin: Caller
) -> None:
    key_ids: list[str] = []
    before = clock()
    clock.advance(seconds=1)
    act(opened, admin, random.Random(1), key_ids)
    with opened.database.read() as connection:
        assert list_keys_at(connection, "default", EVERYTHING, at=before, limit=10) == []
        with pytest.raises(KeyNotFound):
            show_key_at(connection, "default", key_ids[0], at=before)


def test_another_workspace_had_no_such_key_either(
    opened: OpenLedger, clock: SettableClock, admin: Caller
) -> None:
    key_ids: list[str] = []
    act(opened, admin, random.Random(1), key_ids)
    with opened.database.read() as connection:
        assert show_key(connection, "default", key_ids[0], now=clock()).key_id == key_ids[0]
        assert list_keys_at(connection, "other", EVERYTHING, at=clock(), limit=10) == []
        with pytest.raises(KeyNotFound):
            show_key_at(connection, "other", key_ids[0], at=clock())


def test_pages_of_the_past_follow_on_each_other(
    opened: OpenLedger, clock: SettableClock, admin: Caller
) -> None:
    choice, key_ids = random.Random(5), list[str]()
    for _ in range(450):
        issued = opened.ledger.create_key(
            workspace="default",
            name="rare" if choice.random() < 0.02 else "common",
            scopes=["mcp:read"],
            expires_at=None,
            token_prefix="key",
            by=admin,
            at=clock.advance(seconds=1),
        )
        key_ids.append(issued.key_id)
    at = clock()
    clock.advance(seconds=1)
    for filters in (EVERYTHING, Filters(text="rare")):
        expected = [key.key_id for key in seen_now(opened, filters)]
        found: list[str] = []
        before: int | None = None
        with opened.database.read() as connection:
            while page := list_keys_at(
                connection, "default", filters, at=at, before=before, limit=7
            ):
                found += [key.key_id for key in page]
                before = page[-1].position
        assert found == expected
