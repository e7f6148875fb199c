"""The list as of a time equals the list that was read then."""

import random
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast, get_args
from uuid import UUID

import pytest
from sqlalchemy import URL

from api.composition import OpenLedger
from domain.api_key import Status
from domain.caller import Caller, system
from domain.errors import KeyNotFound, LedgerError
from domain.key_ids import to_key_id
from domain.key_ledger import Changes
from projections.queries.filters import Filters
from projections.queries.keys_as_of import list_keys_at, show_key_at
from projections.queries.keys_now import list_keys, show_key
from projections.store.sqlite_driver import driver as sqlite3
from projections.views.key_fields import ListedKey
from tests.conftest import NOON, SettableClock
from tests.engines import fresh_copy
from tests.projections.ledgers import Keys, keys_in
from tests.projections.views.test_key_list import EVENT_OF_KEY, plans
from tests.raw_sql import sql

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
def test_as_of_shows_what_was_seen_then(
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


AGE = "SEARCH key_list USING COVERING INDEX key_list_rebuild_by_age_1 (workspace=? AND <expr>>?)"
VERSION = (
    "SEARCH key_versions USING INDEX sqlite_autoindex_key_versions_1 (position=? AND version=?)"
)
ONE_KEY = "SEARCH key_list USING INTEGER PRIMARY KEY (rowid=?)"
BY_TIME = "INDEX key_versions_rebuild_by_time_1 (position=? AND held_from<?)"


@pytest.fixture
def one_key(keys: Keys) -> Keys:
    keys.create()
    return keys


def page_plans(
    keys: Keys, status: Status | None, before: int | None, at: datetime = NOON
) -> list[list[str]]:
    def ask() -> None:
        with keys.database.read() as connection:
            list_keys_at(
                connection, "default", Filters(status=status), at=at, before=before, limit=10
            )

    return plans(keys, ask)


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize("status", [None, "active"])
def test_a_page_is_walked_in_its_order_and_each_version_found_by_its_time(
    one_key: Keys, status: Status | None
) -> None:
    walk, versions = page_plans(one_key, status, before=100)
    assert walk == [AGE]
    assert versions == [
        VERSION,
        "CORRELATED SCALAR SUBQUERY 1",
        f"SEARCH key_versions_1 USING COVERING {BY_TIME}",
        ONE_KEY,
    ]


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize("status", get_args(Status))
def test_where_to_begin_is_found_from_an_index(one_key: Keys, status: Status) -> None:
    begin, *rest = page_plans(one_key, status, before=None)
    assert rest == page_plans(one_key, status, before=100)
    tables = [step for step in begin if "key_" in step]
    assert len(tables) == 4
    for step in tables:
        assert "SEARCH key_versions USING" in step
        assert "_by_creation_" in step
        assert "(workspace=?" in step
    assert not any("TEMP B-TREE" in step for step in begin)
    assert sum("<expr>=? AND held_from<?)" in step for step in tables) == 2


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize("status", ["revoked", "expired"])
def test_ended_keys_are_found_by_the_time_of_their_end(one_key: Keys, status: Status) -> None:
    ended = page_plans(one_key, status, before=100)[-1]
    tables = [step for step in ended if "key_" in step]
    assert len(tables) == 4
    for step in tables:
        assert "SEARCH key_versions USING INDEX key_versions_rebuild_by_end_1" in step
        assert "(workspace=? AND <expr>=? AND <expr>" in step
    assert sum("<expr>=? AND <expr><?)" in step for step in tables) == 4
    assert sum("<expr>=? AND <expr>=? AND <expr><?)" in step for step in tables) == 2


@pytest.mark.only_on("sqlite")
def test_keys_without_an_expired_event_are_found_by_their_end(keys: Keys) -> None:
    keys.create(lives=timedelta(hours=1))
    (found,), _, versions = page_plans(keys, "expired", before=100, at=NOON + timedelta(hours=2))
    assert "_by_end_" in found
    assert "expires_at<?" in found
    assert versions[0] == f"SEARCH key_versions USING {BY_TIME}"


@pytest.mark.only_on("sqlite")
def test_a_key_of_the_past_is_found_by_its_id_and_the_time(one_key: Keys) -> None:
    def ask() -> None:
        with one_key.database.read() as connection, pytest.raises(KeyNotFound):
            show_key_at(connection, "default", to_key_id(UUID(int=7)), at=NOON)

    assert plans(one_key, ask) == [
        [
            f"SEARCH key_versions USING {BY_TIME}",
            "SCALAR SUBQUERY 1",
            f"SEARCH events USING COVERING INDEX {EVENT_OF_KEY}",
        ]
    ]


FEW, MANY = 1_000, 40_000
APART = 16
SPAN = timedelta(days=100)
LIFE = 2 * 86_400


def at_second(second: str) -> str:
    return f"strftime('%Y-%m-%dT%H:%M:%f', '{NOON:%F %T}', ({second}) || ' seconds') || '000Z'"


def fill(address: URL, number: int) -> None:
    """Give a key many neighbours, made one after the other, so many in the same time.

    Every second one is revoked two days later, and every fourth one expires then.
    """
    created = f"i * {SPAN.total_seconds()} / {number}"
    end, recorded = at_second(f"{created} + {LIFE}"), at_second(f"{created} + {LIFE} + i % 2")
    values = {
        "position": f"{APART} * i",
        "key_id": "'apikey_' || i",
        "created_at": at_second(created),
        "expires_at": f"CASE i % 4 WHEN 1 THEN {end} END",
    }
    ended = {"version": "2", "status": "CASE i % 2 WHEN 0 THEN 'revoked' ELSE 'expired' END"}
    first = {"held_from": values["created_at"], "held_until": f"IIF(i % 4 = 3, NULL, {recorded})"}
    insert_many(address, "key_versions", number, values | first, where="true")
    insert_many(
        address,
        "key_versions",
        number,
        values | ended | {"held_from": recorded},
        where="i % 4 <> 3",
    )
    insert_many(address, "key_list", number, values, where="i % 4 = 3")
    insert_many(address, "key_list", number, values | ended, where="i % 4 <> 3")


def insert_many(
    address: URL, table: str, number: int, values: dict[str, str], *, where: str
) -> None:
    names = [name for _, name, *_ in sql(address, f"PRAGMA table_info({table})")]
    columns = ", ".join(f"{values.get(name, f'one.{name}')} AS {name}" for name in names)
    sql(
        address,
        f"INSERT INTO {table} WITH RECURSIVE n(i) AS"  # noqa: S608 - names from the tests
        f" (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {number})"
        f" SELECT {columns} FROM n JOIN {table} AS one ON one.position = 1 WHERE {where}",
    )


@pytest.fixture(scope="module")
def few_and_many(
    empty_ledger: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Keys, Keys]]:
    folder = tmp_path_factory.mktemp("few and many")
    with ExitStack() as opened:
        found = []
        for number in (FEW, MANY):
            data_dir = fresh_copy(empty_ledger, folder / f"{number}")
            keys = opened.enter_context(keys_in(data_dir))
            keys.create()
            fill(keys.address, number)
            found.append(keys)
        yield found[0], found[1]


def steps_for_a_page(keys: Keys, status: Status | None, share: float) -> int:
    """Return how many steps SQLite takes for a page, as of when a share of the keys was made."""
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    with keys.database.read() as connection:
        driver = cast("sqlite3.Connection", connection.connection.driver_connection)
        driver.set_progress_handler(step, 1)
        page = list_keys_at(
            connection, "default", Filters(status=status), at=NOON + share * SPAN, limit=100
        )
        driver.set_progress_handler(None, 1)
    assert len(page) == 100
    assert {key.status for key in page} == {status} or status is None
    return steps


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize("share", [0.5, 0.99])
@pytest.mark.parametrize("status", [None, *get_args(Status)])
def test_the_cost_of_a_page_does_not_depend_on_the_number_of_keys(
    few_and_many: tuple[Keys, Keys], status: Status | None, share: float
) -> None:
    few, many = (steps_for_a_page(keys, status, share) for keys in few_and_many)
    assert many < 2 * few
