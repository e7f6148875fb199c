"""The feed has exactly the entries that match its filters, in the order of the tree."""

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from benchmarks.made_history import MadeHistory
from benchmarks.made_ledger import make_ledger
from domain.errors import Invalid
from domain.times import from_text
from projections.queries.feed import (
    BEGINNING,
    FeedEntry,
    FeedFilters,
    Place,
    leaf_indexes,
    newest_place,
    place_of,
    read_all,
    read_feed,
    read_new_entries,
    span_of,
)
from projections.rebuild.rebuild import build_outdated_views
from projections.store.database import Database
from projections.views.entries import VIEW, size_of
from tests.conftest import NOON, SettableClock
from tests.engines import fresh_copy
from tests.projections.histories import History, Step, steps
from tests.projections.ledgers import HOUR, Keys, keys_in
from tests.raw_sql import rows_of

UNKNOWN = "apikey_00000000-0000-8000-8000-000000000000"


def fits(found: FeedEntry, filters: FeedFilters) -> bool:
    """Return whether an entry matches filters, by its canonical line."""
    event: dict[str, Any] = orjson.loads(found.entry)
    at = from_text(event["occurred_at"])
    return (
        filters.workspace in (None, found.workspace)
        and filters.key_id in (None, event["key_id"])
        and filters.actor in (None, event["actor"]["id"])
        and filters.type in (None, event["type"])
        and (filters.since is None or at >= filters.since)
        and (filters.until is None or at < filters.until)
    )


def everything(connection: Connection) -> list[FeedEntry]:
    return read_feed(connection, FeedFilters(), range(size_of(connection)), limit=10**6)


def in_pages(
    connection: Connection, filters: FeedFilters, after: int, limit: int
) -> Iterator[FeedEntry]:
    while page := read_feed(
        connection, filters, span_of(connection, filters, after=after), limit=limit
    ):
        yield from page
        after = page[-1].leaf_index


times = st.none() | st.integers(-1, 60).map(lambda hours: NOON + timedelta(hours=hours))


@st.composite
def any_filters(draw: st.DrawFn, keys: list[str]) -> FeedFilters:
    return FeedFilters(
        workspace=draw(st.sampled_from([None, "default", "other", "nowhere"])),
        key_id=draw(st.none() | st.sampled_from([*keys, UNKNOWN])),
        actor=draw(st.sampled_from([None, "ada", "expirer", "nobody"])),
        type=draw(st.sampled_from([None, "ApiKey.Created", "ApiKey.Renamed", "ApiKey.Revoked"])),
        since=draw(times),
        until=draw(times),
    )


@settings(max_examples=15, deadline=None)
@given(commands=steps, data=st.data())
def test_pages_streams_and_new_entries_equal_a_naive_filter(
    empty_ledger: Path, commands: list[Step], data: st.DataObject
) -> None:
    with TemporaryDirectory() as folder:
        data_dir = fresh_copy(empty_ledger, Path(folder) / "ledger")
        clock = SettableClock()
        with keys_in(data_dir, clock=clock) as keys:
            history = History(keys, clock, [])
            history.play(commands)
            with keys.database.read() as connection:
                every = everything(connection)
                assert [each.leaf_index for each in every] == [*range(len(every))]
                places = {each.position: each.leaf_index for each in every}
                assert leaf_indexes(connection, [*places, 10**6]) == places
                # The same, of the rows as they are in the table.
                stored = rows_of(keys.address, "entries")
                assert [(row[0], row[1], row[3]) for row in stored] == [
                    (each.leaf_index, each.position, each.entry) for each in every
                ]
                known = [made.key_id for made, _ in history.made]
                for _ in range(8):
                    filters = data.draw(any_filters(known))
                    after = data.draw(st.integers(-1, len(every)))
                    limit = data.draw(st.integers(1, 7))
                    expected = [
                        each for each in every if each.leaf_index > after and fits(each, filters)
                    ]
                    assert [*in_pages(connection, filters, after, limit)] == expected
                    span = span_of(connection, filters, after=after)
                    batches = [*read_all(keys.database, filters, span, batch=limit)]
                    assert [each for batch in batches for each in batch] == expected
                    assert all(batches)
                    newest_first = read_feed(
                        connection, filters, span, limit=limit, newest_first=True
                    )
                    assert newest_first == expected[::-1][:limit]
                    assert [*in_news(keys.database, filters, after, limit)] == expected


def in_news(
    database: Database, filters: FeedFilters, after: int, limit: int
) -> Iterator[FeedEntry]:
    place = Place(after, 0)
    while True:
        news = read_new_entries(database, filters, place, limit=limit)
        yield from news.entries
        if len(news.entries) < limit:
            return
        place = news.reached


def test_later_events_are_not_in_a_started_export(keys: Keys) -> None:
    for _ in range(3):
        keys.create()
    with keys.database.read() as connection:
        span = span_of(connection, FeedFilters(), after=-1)
    stream = read_all(keys.database, FeedFilters(), span, batch=2)
    first = next(stream)
    keys.create()
    assert [each.leaf_index for each in [*first, *(e for batch in stream for e in batch)]] == [
        0,
        1,
        2,
    ]


def test_a_stream_holds_no_transaction_between_its_batches(keys: Keys) -> None:
    for _ in range(3):
        keys.create()
    stream = read_all(keys.database, FeedFilters(), range(3), batch=1)
    next(stream)
    assert keys.database.reader.pool.checkedout() == 0  # type: ignore[attr-defined]


class TestPlaces:
    def test_a_position_names_the_last_entry_up_to_it(self, keys: Keys) -> None:
        for _ in range(3):
            keys.create()
        with keys.database.read() as connection:
            positions = [each.position for each in everything(connection)]
            assert newest_place(connection) == (2, positions[-1])
            for leaf_index, position in enumerate(positions):
                assert place_of(connection, position, field="after") == (leaf_index, position)
            assert place_of(connection, 0, field="after") == BEGINNING
            with pytest.raises(Invalid, match="after: the position is after the newest event"):
                place_of(connection, positions[-1] + 1, field="after")

    def test_an_empty_ledger_has_only_the_beginning(self, keys: Keys) -> None:
        with keys.database.read() as connection:
            assert newest_place(connection) == BEGINNING
            assert place_of(connection, 0, field="after") == BEGINNING
            assert everything(connection) == []

    def test_new_entries_report_the_place_reached_even_if_none_match(self, keys: Keys) -> None:
        keys.create()
        nowhere = FeedFilters(workspace="nowhere")
        with keys.database.read() as connection:
            newest = newest_place(connection)
        assert read_new_entries(keys.database, nowhere, BEGINNING) == ([], newest)


class TestFiltersThatNothingCouldFit:
    def test_an_unknown_type(self) -> None:
        with pytest.raises(
            Invalid, match=r"type: no such type of event: use one of ApiKey\.Created, "
        ):
            FeedFilters(type="ApiKey.Deleted")

    @pytest.mark.parametrize("key_id", ["", "apikey_", "x", UNKNOWN.upper()])
    def test_an_impossible_key_id(self, key_id: str) -> None:
        with pytest.raises(Invalid, match="key_id: there is no key"):
            FeedFilters(key_id=key_id)


@pytest.fixture(scope="module")
def long_ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A ledger of 20,000 events of many workspaces."""
    database = make_ledger(tmp_path_factory.mktemp("long"), MadeHistory(), 20_000)
    build_outdated_views(database, [VIEW], clock=lambda: datetime.now(UTC))
    yield database
    database.close()


class TestLongFeeds:
    def test_a_stream_takes_the_same_memory_however_long_it_is(self, long_ledger: Database) -> None:
        def peak(count: int) -> int:
            tracemalloc.start()
            try:
                for _ in read_all(long_ledger, FeedFilters(), range(count)):
                    pass
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

        peak(1000)
        assert peak(20_000) < 1.3 * peak(2000)

    @pytest.mark.only_on("sqlite")
    @pytest.mark.parametrize(
        "filters",
        [
            FeedFilters(),
            FeedFilters(workspace="team-3"),
            FeedFilters(actor="expirer"),
            FeedFilters(type="ApiKey.Revoked"),
            FeedFilters(workspace="team-3", type="ApiKey.Revoked"),
            FeedFilters(workspace="team-3", actor="expirer", type="ApiKey.Expired"),
            FeedFilters(since=datetime(2026, 1, 2, tzinfo=UTC)),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("newest_first", [False, True])
    def test_no_page_is_sorted_and_none_reads_more_than_it_must(
        self, long_ledger: Database, filters: FeedFilters, *, newest_first: bool
    ) -> None:
        """A plan with a sorter would sort the rest of the feed for each batch."""
        plans: list[str] = []
        with long_ledger.read() as connection:
            every = everything(connection)
            seen: list[tuple[str, Any]] = []
            driver = connection.connection.driver_connection
            assert driver is not None
            driver.set_trace_callback(seen.append)
            found = read_feed(
                connection, filters, range(len(every)), limit=100, newest_first=newest_first
            )
            driver.set_trace_callback(None)
            for statement in seen:
                plans += [row[3] for row in driver.execute(f"EXPLAIN QUERY PLAN {statement}")]
        order = -1 if newest_first else 1
        assert found == [each for each in every if fits(each, filters)][::order][:100]
        assert plans
        assert not any("TEMP B-TREE" in plan or plan.startswith("SCAN") for plan in plans), plans


def test_long_and_short_pages_meet_between_clocks_that_disagree(keys: Keys) -> None:
    """Times may decrease with the leaf index: two machines append, and one clock is late."""
    clock = keys.opened.clock
    assert isinstance(clock, SettableClock)
    for hours in (5, -3, 4, -2, 1):
        clock.now = NOON + timedelta(hours=hours)
        keys.create()
    filters = FeedFilters(since=NOON - 2 * HOUR, until=NOON + 5 * HOUR)
    with keys.database.read() as connection:
        found = [each.leaf_index for each in in_pages(connection, filters, -1, 1)]
        assert found == [2, 3, 4]
        earlier = replace(filters, since=None, until=NOON)
        assert [each.leaf_index for each in in_pages(connection, earlier, -1, 1)] == [1, 3]
