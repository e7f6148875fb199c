import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from uuid import UUID

import pytest
from sqlalchemy import event

from domain.api_key import Status
from domain.caller import Actor, Caller
from domain.errors import KeyNotFound
from domain.key_ids import to_key_id
from domain.key_ledger import Changes
from domain.scopes import cover
from projections.queries.filters import Filters
from projections.queries.keys_as_of import list_keys_at
from projections.queries.keys_now import list_keys, show_key
from projections.queries.overdue_keys import keys_due
from projections.views.key_fields import ListedKey
from tests.conftest import NOON, SettableClock
from tests.projections.ledgers import ADA, HOUR, Keys
from tests.raw_sql import rows_of, sql

DAY = timedelta(days=1)
BOT = Caller(Actor("key", "apikey_00000000-0000-4000-8000-000000000000"), holds=("*",))


def page(
    keys: Keys,
    filters: Filters | None = None,
    *,
    workspace: str = "default",
    before: int | None = None,
    limit: int = 1000,
) -> list[ListedKey]:
    with keys.database.read() as connection:
        return list_keys(
            connection, workspace, filters or Filters(), now=keys.now, before=before, limit=limit
        )


def names(keys: Keys, **filters: Any) -> list[str]:  # noqa: ANN401 - of whatever type they are
    return [key.name for key in page(keys, Filters(**filters))]


def test_a_new_key_is_shown_with_all_its_fields(keys: Keys) -> None:
    made = keys.create("payments", scopes=("mcp:read", "logs:*"), lives=DAY, prefix="blnk")
    assert keys.show(made.key_id) == ListedKey(
        position=1,
        key_id=made.key_id,
        workspace="default",
        name="payments",
        prefix=f"{made.token[:13]}...",
        scopes=("mcp:read", "logs:*"),
        role="Member",
        status="active",
        expires_at=datetime(2026, 3, 4, 12, tzinfo=UTC),
        created_at=NOON,
        created_by=Actor("cli", "ada"),
        revoked_at=None,
        revoked_by=None,
        revoke_reason=None,
        rotated_from=None,
        rotated_to=None,
        last_used_at=None,
        version=1,
    )
    assert page(keys) == [keys.show(made.key_id)]


def test_each_change_shows_and_nothing_else_does(keys: Keys, clock: SettableClock) -> None:
    made = keys.create(lives=DAY)
    expected = keys.show(made.key_id)

    clock.advance(hours=1)
    keys.rename(made.key_id, "renamed")
    expected = replace(expected, name="renamed", version=2)
    assert keys.show(made.key_id) == expected

    keys.update(made.key_id, Changes(scopes=["a:b"]), by=BOT)
    expected = replace(expected, scopes=("a:b",), version=3)
    assert keys.show(made.key_id) == expected

    keys.update(made.key_id, Changes(expires_at=NOON + 2 * DAY))
    expected = replace(expected, expires_at=NOON + 2 * DAY, version=4)
    assert keys.show(made.key_id) == expected

    keys.update(made.key_id, Changes(never_expires=True))
    expected = replace(expected, expires_at=None, version=5)
    assert keys.show(made.key_id) == expected

    successor = keys.rotate(made.key_id, grace=HOUR)
    expected = replace(
        expected, rotated_to=successor.key_id, expires_at=clock.now + HOUR, version=6
    )
    assert keys.show(made.key_id) == expected
    assert keys.show(successor.key_id) == replace(
        expected,
        position=6,
        key_id=successor.key_id,
        prefix=f"{successor.token[:12]}...",
        expires_at=None,
        created_at=clock.now,
        rotated_from=made.key_id,
        rotated_to=None,
        version=1,
    )

    clock.advance(hours=1)
    assert keys.expire_due() == 1
    expected = replace(expected, status="expired", version=7)
    assert keys.show(made.key_id) == expected

    keys.revoke(made.key_id, reason="leaked", by=BOT)
    assert keys.show(made.key_id) == replace(
        expected,
        status="revoked",
        revoked_at=clock.now,
        revoked_by=BOT.actor,
        revoke_reason="leaked",
        version=8,
    )


def test_the_row_has_no_secret_in_any_form(keys: Keys) -> None:
    made = keys.create()
    (row,) = rows_of(keys.address, "key_list")
    ((verifier,),) = sql(keys.address, "SELECT verifier FROM auth_lookup")
    told = repr(row) + repr(keys.show(made.key_id))
    assert verifier not in told
    assert made.token[13:] not in told
    assert made.token[20:-6] not in told


def test_another_workspaces_key_does_not_exist(keys: Keys) -> None:
    ours = keys.create("ours")
    theirs = keys.create("theirs", workspace="other")
    assert [key.name for key in page(keys)] == ["ours"]
    assert [key.name for key in page(keys, workspace="other")] == ["theirs"]
    assert page(keys, workspace="nobodys") == []
    assert page(keys, Filters(text=theirs.key_id)) == []
    assert keys.show(theirs.key_id, workspace="other").name == "theirs"
    refusals = []
    for key_id in (theirs.key_id, f"{ours.key_id[:-4]}0000"):
        with pytest.raises(KeyNotFound) as caught:
            keys.show(key_id)
        refusals.append(str(caught.value).replace(key_id, "K"))
    assert set(refusals) == {"there is no key K in the workspace default"}
    for key_id in ("apikey_", "' OR 1=1 --"):
        with pytest.raises(KeyNotFound, match="a key id is apikey_ and a UUID"):
            keys.show(key_id)


def test_the_clock_decides_before_expired_is_recorded_and_the_record_after(
    keys: Keys, clock: SettableClock
) -> None:
    def by_status() -> dict[Status, list[str]]:
        return {status: names(keys, status=status) for status in get_args(Status)}

    keys.create("endless")
    keys.create("short", lives=HOUR)
    revoked = keys.create("revoked", lives=HOUR)
    keys.revoke(revoked.key_id)
    before = {"active": ["short", "endless"], "revoked": ["revoked"], "expired": []}
    after = {"active": ["endless"], "revoked": ["revoked"], "expired": ["short"]}

    clock.now = NOON + HOUR - timedelta(microseconds=1)
    assert by_status() == before
    clock.now = NOON + HOUR
    assert by_status() == after
    assert [key.status for key in page(keys)] == ["revoked", "expired", "active"]
    assert keys.expire_due() == 1
    assert by_status() == after
    # What has been recorded stays, also for a clock that goes back.
    clock.now = NOON
    assert by_status() == after


def test_recorded_and_unrecorded_ends_come_on_one_page_the_newest_first(
    keys: Keys, clock: SettableClock
) -> None:
    for number in range(6):
        keys.create(f"{number}", lives=HOUR if number % 2 else 2 * HOUR)
    clock.advance(hours=1)
    keys.expire_due()
    clock.advance(hours=1)
    assert names(keys, status="expired") == ["5", "4", "3", "2", "1", "0"]
    first = page(keys, Filters(status="expired"), limit=3)
    rest = page(keys, Filters(status="expired"), limit=3, before=first[-1].position)
    assert [key.name for key in first + rest] == ["5", "4", "3", "2", "1", "0"]


NAMES = [
    "100% sure",
    "100 sure",
    "snake_case",
    "snakeXcase",
    'it\'s "quoted"',
    "back\\slash",
    "slash/ed",
    "[a-z]*?",
    "Ünïcödé ключ 鍵",
    "MiXeD",
]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("%", ["100% sure"]),
        ("0% s", ["100% sure"]),
        ("e_c", ["snake_case"]),
        ("snake", ["snakeXcase", "snake_case"]),
        ("'", ['it\'s "quoted"']),
        ('"quoted"', ['it\'s "quoted"']),
        ("'; DROP TABLE key_list; --", []),
        ("\\", ["back\\slash"]),
        ("/", ["slash/ed"]),
        ("*", ["[a-z]*?"]),
        ("[a-z]", ["[a-z]*?"]),
        ("ключ 鍵", ["Ünïcödé ключ 鍵"]),
        ("mixed", ["MiXeD"]),
        ("MIXED", ["MiXeD"]),
        ("mixed ", []),
        ("", list(reversed(NAMES))),
    ],
)
def test_a_search_text_matches_names_literally(keys: Keys, text: str, found: list[str]) -> None:
    for name in NAMES:
        keys.create(name, prefix="zzz")
    assert names(keys, text=text) == found


def test_a_text_is_found_where_the_prefix_or_the_key_id_begins(keys: Keys) -> None:
    made = keys.create("one", prefix="one")
    keys.create("two", prefix="two")
    assert names(keys, text="one_") == ["one"]
    assert names(keys, text=made.token[:12]) == ["one"]
    assert names(keys, text=made.token[1:12]) == []
    assert names(keys, text=made.key_id) == ["one"]
    assert names(keys, text="apikey_") == ["two", "one"]
    assert names(keys, text="pikey_") == []
    assert names(keys, text="apikeyX") == []
    # Nothing of the secret, nor of the rest of the lookup id, can be searched for.
    assert names(keys, text=made.token[:14]) == []


@pytest.mark.parametrize(
    ("scope", "found"),
    [
        ("mcp:read", ["*", "*:*", "mcp:*", "*:read", "mcp:read", "both"]),
        ("mcp:write", ["*", "*:*", "mcp:*", "both"]),
        ("mcp:*", ["*", "*:*", "mcp:*"]),
        ("*:read", ["*", "*:*", "*:read"]),
        ("*", ["*", "*:*"]),
        ("*:*", ["*", "*:*"]),
        ("m_p:read", ["*", "*:*", "*:read", "m_p:read"]),
        ("cp:read", ["*", "*:*", "*:read"]),
        ("mcp:rea", ["*", "*:*", "mcp:*"]),
        ("read", ["*", "*:*"]),
    ],
)
def test_a_scope_filter_finds_keys_that_include_the_scope(
    keys: Keys, scope: str, found: list[str]
) -> None:
    for held in ("*", "*:*", "mcp:*", "*:read", "mcp:read", "m_p:read"):
        keys.create(held, scopes=(held,))
    keys.create("both", scopes=("mcp:read", "mcp:write"))
    assert sorted(names(keys, scope=scope)) == sorted(found)


def test_a_creator_finds_its_own_keys(keys: Keys) -> None:
    keys.create("ada's")
    keys.create("a bot's", by=BOT)
    assert names(keys, created_by=BOT.actor.id) == ["a bot's"]
    assert names(keys, created_by="ada") == ["ada's"]
    assert names(keys, created_by="ad%") == []


def test_an_end_before_a_time_finds_no_key_without_an_end(keys: Keys) -> None:
    keys.create("endless")
    keys.create("hour", lives=HOUR)
    keys.create("day", lives=DAY)
    assert names(keys, expires_before=NOON + DAY) == ["hour"]
    assert names(keys, expires_before=NOON + DAY + timedelta(microseconds=1)) == ["day", "hour"]


def populate(keys: Keys, clock: SettableClock, chance: random.Random, number: int) -> None:
    scopes = ["*", "*:*", "mcp:*", "*:read", "mcp:read", "mcp:write", "logs:read"]
    for _ in range(number):
        workspace = chance.choice(["default", "default", "other"])
        made = keys.create(
            chance.choice(["pay_ments", "Payments", "100%", "logs", "ключ"]),
            scopes=tuple(chance.sample(scopes, chance.randint(1, 3))),
            workspace=workspace,
            lives=chance.choice([None, HOUR, 5 * HOUR, DAY]),
            prefix=chance.choice(["key", "pay"]),
            by=chance.choice([ADA, BOT]),
        )
        if chance.random() < 0.2:
            keys.revoke(made.key_id, workspace=workspace)
        if chance.random() < 0.3:
            keys.expire_due()
        clock.advance(minutes=chance.randint(0, 30))


def fits(key: ListedKey, filters: Filters) -> bool:
    """Say in Python what a filter means."""
    return (
        (filters.status is None or key.status == filters.status)
        and (
            filters.text is None
            or filters.text.lower() in key.name.lower()
            or key.prefix.lower().startswith(filters.text.lower())
            or key.key_id.startswith(filters.text.lower())
        )
        and (filters.scope is None or cover(key.scopes, [filters.scope]))
        and (filters.created_by is None or key.created_by.id == filters.created_by)
        and (
            filters.expires_before is None
            or (key.expires_at is not None and key.expires_at < filters.expires_before)
        )
    )


@pytest.mark.parametrize("seed", range(3))
def test_filters_narrow_together_and_page_by_page(
    keys: Keys, clock: SettableClock, seed: int
) -> None:
    chance = random.Random(seed)
    populate(keys, clock, chance, 60)
    everything = page(keys)
    met = 0
    for _ in range(150):
        maybe: Callable[..., Any] = lambda *values: chance.choice([None, *values])  # noqa: E731
        filters = Filters(
            status=maybe("active", "revoked", "expired"),
            text=maybe("pay", "_", "%", "PAY_", "apikey_", "ключ"),
            scope=maybe("mcp:read", "mcp:*", "*", "logs:read"),
            created_by=maybe("ada", BOT.actor.id),
            expires_before=maybe(clock.now, NOON + 3 * HOUR),
        )
        expected = [key for key in everything if fits(key, filters)]
        found: list[ListedKey] = []
        limit = chance.choice([1, 2, 7, 1000])
        while more := page(
            keys, filters, before=found[-1].position if found else None, limit=limit
        ):
            found += more
        assert found == expected
        met += bool(expected)
    assert met > 30


@pytest.mark.parametrize("seed", range(4))
def test_paging_lists_every_key_exactly_once_while_keys_change(
    keys: Keys, clock: SettableClock, seed: int
) -> None:
    chance = random.Random(seed)
    populate(keys, clock, chance, 40)
    there = [key.key_id for key in page(keys)]
    met: list[ListedKey] = []
    while True:
        limit = chance.randint(1, 6)
        more = page(keys, before=met[-1].position if met else None, limit=limit)
        met += more
        if not more:
            break
        for _ in range(chance.randint(0, 4)):
            key = keys.show(chance.choice(there))
            if chance.random() < 0.5:
                keys.create("late")
            elif key.status == "active" and key.rotated_to is None:
                keys.rotate(key.key_id)
            else:
                keys.revoke(key.key_id)
        keys.expire_due()
        clock.advance(minutes=20)
    assert [key.key_id for key in met] == there
    assert [key.position for key in met] == sorted((k.position for k in met), reverse=True)


@pytest.mark.parametrize("status", get_args(Status))
def test_paging_by_status_repeats_nothing_and_misses_nothing_that_stays(
    keys: Keys, clock: SettableClock, status: Status
) -> None:
    chance = random.Random(1)
    populate(keys, clock, chance, 60)
    filters = Filters(status=status)
    there = {key.key_id for key in page(keys, filters)}
    met: list[ListedKey] = []
    while more := page(keys, filters, before=met[-1].position if met else None, limit=3):
        met += more
        keys.create("late", lives=timedelta(minutes=30))
        keys.revoke(chance.choice(page(keys)).key_id)
        clock.advance(minutes=20)
        if chance.random() < 0.3:
            keys.expire_due()
    stayed = there & {key.key_id for key in page(keys, filters)}
    met_ids = [key.key_id for key in met]
    assert len(met_ids) == len(set(met_ids))
    assert stayed <= set(met_ids)


# One look by primary key for each key of the page, whatever else is asked for.
EVENT_OF_KEY = "events_aggregate_idx (originator_id=? AND originator_version=?)"
LAST_USE = "SEARCH last_uses USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN"


def plans(keys: Keys, ask: Callable[[], object]) -> list[list[str]]:
    """Return SQLite's plan for each statement that a call sends."""
    sent: list[tuple[str, Any]] = []

    def note(_c: object, _cursor: object, statement: str, values: Any, *_: object) -> None:  # noqa: ANN401
        if statement.startswith(("SELECT", "WITH")):
            sent.append((statement, values))

    event.listen(keys.database.reader, "before_cursor_execute", note)
    ask()
    event.remove(keys.database.reader, "before_cursor_execute", note)
    with keys.database.read() as connection:
        return [
            [
                step.detail
                for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
            ]
            for statement, values in sent
        ]


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize("before", [None, 100])
@pytest.mark.parametrize(
    ("status", "index"),
    [(None, "by_age"), ("active", "by_status"), ("revoked", "by_status")],
)
def test_a_page_is_read_from_an_index_in_its_order(
    keys: Keys, status: Status | None, index: str, before: int | None
) -> None:
    ((step, use),) = plans(keys, lambda: page(keys, Filters(status=status), before=before))
    assert use == LAST_USE
    assert step.startswith("SEARCH key_list USING INDEX")
    assert f"_{index}_" in step
    assert "workspace=?" in step
    assert ("<expr>>?" in step) == (before is not None)


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize("before", [None, 100])
def test_a_page_of_expired_keys_does_not_scan_all_active_keys(
    keys: Keys, clock: SettableClock, before: int | None
) -> None:
    keys.create(lives=HOUR)
    clock.advance(hours=2)
    # The few that the expirer has not come to yet are found by their end, and then one by one.
    (found,), recorded, due = plans(
        keys, lambda: page(keys, Filters(status="expired"), before=before)
    )
    assert "_by_end_" in found
    assert "expires_at<?" in found
    assert "_by_status_" in recorded[0]
    assert due[0] == "SEARCH key_list USING INTEGER PRIMARY KEY (rowid=?)"
    assert recorded[1:] == [LAST_USE]
    # A newer SQLite sees that the positions are in order already.
    assert due[1:] in ([LAST_USE], [LAST_USE, "USE TEMP B-TREE FOR ORDER BY"])


def test_all_expired_keys_are_listed_however_many(
    keys: Keys, clock: SettableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.queries.overdue_keys._AT_ONCE", 2)
    ended = [keys.create(f"{number}", lives=HOUR).key_id for number in range(7)]
    keys.create("goes on")
    clock.advance(hours=2)
    expired = Filters(status="expired")
    assert [key.key_id for key in page(keys, expired)] == ended[::-1]
    first = page(keys, expired, limit=3)
    rest = page(keys, expired, before=first[-1].position)
    assert [key.key_id for key in first + rest] == ended[::-1]
    with keys.database.read() as connection:
        then = list_keys_at(connection, "default", expired, at=clock.now, limit=5)
    assert [key.key_id for key in then] == ended[::-1][:5]


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize("after", [None, ("2026-03-03T12:00:00.000000Z", 7)])
def test_due_keys_are_read_from_an_index_in_their_order(
    keys: Keys, after: tuple[str, int] | None
) -> None:
    def ask() -> None:
        with keys.database.read() as connection:
            keys_due(connection, now=NOON, after=after, limit=10)

    ((step,),) = plans(keys, ask)
    assert step.startswith("SEARCH key_list USING INDEX")
    assert "_by_end_" in step
    assert "expires_at<?" in step


@pytest.mark.only_on("sqlite")
def test_a_key_is_found_by_its_id(keys: Keys) -> None:
    def ask() -> None:
        with keys.database.read() as connection, pytest.raises(KeyNotFound):
            show_key(connection, "default", to_key_id(UUID(int=7)), now=NOON)

    ((*steps, use),) = plans(keys, ask)
    assert use == LAST_USE
    assert steps == [
        "SEARCH key_list USING INTEGER PRIMARY KEY (rowid=?)",
        "SCALAR SUBQUERY 1",
        f"SEARCH events USING COVERING INDEX {EVENT_OF_KEY}",
    ]


def test_due_keys_come_the_longest_due_first_and_page_by_page(
    keys: Keys, clock: SettableClock
) -> None:
    keys.create("endless")
    for hours in (3, 1, 2, 1, 9):
        keys.create(f"{hours}", lives=hours * HOUR)
    revoked = keys.create("revoked", lives=HOUR)
    keys.revoke(revoked.key_id)
    recorded = keys.create("recorded", lives=timedelta(minutes=1))
    clock.advance(minutes=1)
    assert keys.expire_due() == 1
    by_id = {key.key_id: key.name for key in page(keys)}
    assert by_id[recorded.key_id] == "recorded"
    clock.advance(hours=4)
    found: list[str] = []
    after: tuple[str, int] | None = None
    while True:
        with keys.database.read() as connection:
            due = keys_due(connection, now=clock.now, after=after, limit=2)
        if not due:
            break
        found += [by_id[each.key_id] for each in due]
        after = due[-1].expires_at, due[-1].position
    assert found == ["1", "1", "2", "3"]
