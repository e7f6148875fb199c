import random
from datetime import UTC, datetime, timedelta

import pytest

from projections.queries.filters import Filters
from projections.queries.keys_now import list_keys
from projections.store.last_uses import minute_of
from projections.views.key_fields import ListedKey
from tests.conftest import NOON, SettableClock
from tests.projections.ledgers import HOUR, Keys
from tests.projections.views.test_key_list import LAST_USE, plans

# None of these rules depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")

MINUTE = timedelta(minutes=1)


def listed(
    keys: Keys, filters: Filters | None = None, *, before: int | None = None, limit: int = 1000
) -> list[ListedKey]:
    with keys.database.read() as connection:
        return list_keys(
            connection, "default", filters or Filters(), now=keys.now, before=before, limit=limit
        )


def names(keys: Keys, filters: Filters) -> list[str]:
    return [key.name for key in listed(keys, filters)]


def flush(keys: Keys) -> None:
    keys.opened.last_uses.flush(keys.database)


@pytest.fixture
def used(keys: Keys, clock: SettableClock) -> Keys:
    """Keys of which some were used: early at 12:01:30, late at 12:59:30."""
    tokens = {name: keys.create(name).token for name in ("idle", "early", "late")}
    clock.now = NOON + timedelta(minutes=1, seconds=30)
    keys.verify(tokens["early"])
    clock.now = NOON + timedelta(minutes=59, seconds=30)
    keys.verify(tokens["late"])
    keys.create("new and idle")
    flush(keys)
    clock.now = NOON + HOUR
    return keys


@pytest.mark.parametrize(
    ("since", "found"),
    [
        ("12:00:00.000000", []),
        ("12:00:00.000001", ["idle"]),
        ("12:01:00.000000", ["idle"]),
        # The use may have come at any second of its minute.
        ("12:01:00.000001", ["idle"]),
        ("12:01:59.999999", ["idle"]),
        ("12:02:00.000000", ["early", "idle"]),
        ("12:59:30.000000", ["early", "idle"]),
        ("12:59:30.000001", ["new and idle", "early", "idle"]),
        ("13:00:00.000000", ["new and idle", "late", "early", "idle"]),
    ],
)
def test_keys_unused_since_a_time_were_there_before_it(
    used: Keys, since: str, found: list[str]
) -> None:
    at = datetime.fromisoformat(f"2026-03-03T{since}").replace(tzinfo=UTC)
    assert names(used, Filters(unused_since=at)) == found


def test_keys_that_were_never_used_and_those_that_were(used: Keys) -> None:
    assert names(used, Filters(never_used=True)) == ["new and idle", "idle"]
    assert names(used, Filters(never_used=False)) == ["late", "early"]
    assert names(used, Filters(never_used=True, unused_since=NOON + MINUTE)) == ["idle"]
    assert names(used, Filters(never_used=True, text="new")) == ["new and idle"]


def fits(key: ListedKey, filters: Filters) -> bool:
    """Say in Python what the filters mean that concern uses."""
    since, used_at = filters.unused_since, key.last_used_at
    return (
        (filters.status is None or key.status == filters.status)
        and (
            since is None
            or (key.created_at < since and (used_at is None or used_at < minute_of(since)))
        )
        and (filters.never_used is None or (used_at is None) == filters.never_used)
    )


@pytest.mark.parametrize("looked_at", [0, 1, 7, 39, 40, 1000])
@pytest.mark.parametrize("seed", range(2))
def test_the_filters_mean_in_sql_what_they_mean_in_python_on_every_page(
    keys: Keys,
    clock: SettableClock,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    looked_at: int,
) -> None:
    monkeypatch.setattr("projections.queries.keys_now._TESTED_ONE_BY_ONE", looked_at)
    chance = random.Random(seed)
    for number in range(40):
        made = keys.create(f"{number}", lives=chance.choice([None, HOUR]))
        keys.verify(keys.create("another workspace's", workspace="other").token)
        clock.advance(seconds=chance.randint(0, 90))
        if chance.random() < 0.6:
            keys.verify(made.token)
            clock.advance(seconds=chance.randint(0, 90))
    flush(keys)
    everything = listed(keys)
    for _ in range(60):
        filters = Filters(
            unused_since=chance.choice([None, NOON + timedelta(seconds=chance.randint(0, 4000))]),
            never_used=chance.choice([None, None, True, False]),
            status=chance.choice([None, "active", "expired"]),
        )
        limit = chance.choice([1, 3, 1000])
        found: list[ListedKey] = []
        while page := listed(
            keys, filters, before=found[-1].position if found else None, limit=limit
        ):
            assert len(page) <= limit
            found += page
        assert found == [key for key in everything if fits(key, filters)]


ONE_USE = "SEARCH last_uses_1 USING INTEGER PRIMARY KEY (rowid=?)"
UNUSED = [
    Filters(unused_since=NOON),
    Filters(never_used=True),
    Filters(never_used=True, unused_since=NOON, status="active"),
]


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize("filters", UNUSED)
def test_a_page_of_unused_keys_goes_by_the_keys_age(keys: Keys, filters: Filters) -> None:
    floor, page = plans(keys, lambda: listed(keys, filters))
    assert len(floor) == 1
    for steps in (floor, page):
        assert steps[0].startswith("SEARCH key_list USING")
        assert "workspace=?" in steps[0]
    *use, shown = page[1:]
    assert [step for step in use if step.startswith("SEARCH")] == [ONE_USE] * len(use[::2])
    assert shown == LAST_USE


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize("filters", UNUSED)
def test_rare_unused_keys_are_found_by_scanning_both_tables_in_order(
    keys: Keys, monkeypatch: pytest.MonkeyPatch, filters: Filters
) -> None:
    monkeypatch.setattr("projections.queries.keys_now._TESTED_ONE_BY_ONE", 0)
    keys.verify(keys.create().token)
    flush(keys)
    *_, rest = plans(keys, lambda: listed(keys, filters))
    among = next(place for place, step in enumerate(rest) if step.startswith("LIST SUBQUERY"))
    assert "COVERING INDEX" in rest[among + 1]
    assert rest[among + 1].endswith("(workspace=?)")
    assert not any(step.startswith("SCAN") for step in rest)
    assert rest[-1] == LAST_USE
