"""Every follower of the ledger reads each event once and in one order, during concurrent writes."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from threading import Barrier, Event
from typing import Any

import pytest
from sqlalchemy import select

from domain.errors import LedgerError
from domain.key_ledger import KeyLedger
from projections.auth.freshness import open_freshness_check
from projections.auth.new_events import NOTHING_OBSERVED
from projections.queries.feed import BEGINNING, FeedFilters, read_new_entries
from projections.recorder import LedgerRecorder
from projections.store.database import Database
from projections.store.schema import events
from projections.views import entries
from projections.views.registry import VIEWS
from tests.engines import POSTGRESQL, Engine
from tests.projections.ledgers import ADA, Keys

WRITERS = 32
FOLLOWERS = 3


def positions_of(database: Database) -> list[int]:
    with database.read() as connection:
        return list(connection.scalars(select(events.c.id).order_by(events.c.id)))


def leaves_of(database: Database) -> list[tuple[int, int]]:
    table = entries.table
    with database.read() as connection:
        query = select(table.c.leaf_index, table.c.position).order_by(table.c.leaf_index)
        return [(leaf, position) for leaf, position in connection.execute(query)]


def follow_feed(database: Database, ended: Event) -> list[int]:
    """Return the positions in the order in which they were told, until nothing comes any more."""
    seen: list[int] = []
    place = BEGINNING
    while True:
        last_look = ended.is_set()
        news, place = read_new_entries(database, FeedFilters(), place, limit=3)
        seen += [entry.position for entry in news]
        if last_look and not news:
            return seen


def follow_freshness(database: Database, ended: Event) -> int:
    """Return how many new events the freshness checks have found."""
    check = open_freshness_check(database)
    found, observed = 0, NOTHING_OBSERVED
    while True:
        last_look = ended.is_set()
        new = check.new_events(observed)
        if new is not None:
            assert new.keys is not None or observed is NOTHING_OBSERVED
            found += len(new.keys or ())
            observed = new.observed
        elif last_look:
            check.close()
            return found


def test_32_writers_that_conflict(keys: Keys, engine: Engine) -> None:
    contested = [keys.create(f"contested {number}").key_id for number in range(4)]
    before = len(positions_of(keys.database))
    together = Barrier(WRITERS)
    ended = Event()

    def write(number: int) -> None:
        together.wait()
        for key_id in contested:
            # One is first; all others are too late, and what they had begun is rolled back.
            with suppress(LedgerError):
                keys.rename(key_id, f"by {number}")
        keys.create(f"of {number}")

    with ThreadPoolExecutor(WRITERS + FOLLOWERS + 1) as pool:
        feeds = [pool.submit(follow_feed, keys.database, ended) for _ in range(FOLLOWERS)]
        freshness = pool.submit(follow_freshness, keys.database, ended)
        for writer in [pool.submit(write, number) for number in range(WRITERS)]:
            writer.result()
        ended.set()
        positions = positions_of(keys.database)
        assert len(positions) > before + WRITERS
        for feed in feeds:
            assert feed.result() == positions
        assert freshness.result() >= len(positions) - before
    assert leaves_of(keys.database) == list(enumerate(positions))
    if engine.name == POSTGRESQL:
        # What was rolled back has taken positions all the same.
        assert positions[-1] > len(positions)


@pytest.fixture
def held(keys: Keys) -> Iterator[tuple[KeyLedger, Event, Event]]:
    """A ledger whose appends stay open after all is written, until the second event is set."""
    written, let_go = Event(), Event()

    def write(*given: Any) -> None:  # noqa: ANN401 - a view's own
        entries.VIEW.write(*given)
        written.set()
        assert let_go.wait(30)

    views = [replace(view, write=write) if view is entries.VIEW else view for view in VIEWS]
    ledger = KeyLedger(
        LedgerRecorder(keys.database, views), lambda _prefix: pytest.fail("no key is made here")
    )
    yield ledger, written, let_go
    let_go.set()


def test_an_open_append_delays_all_later_events(
    keys: Keys, held: tuple[KeyLedger, Event, Event]
) -> None:
    ledger, written, let_go = held
    key_id = keys.create("first").key_id
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(
            ledger.revoke_key,
            key_id,
            workspace="default",
            reason=None,
            comment=None,
            by=ADA,
            at=keys.now,
        )
        assert written.wait(30)
        quick = pool.submit(keys.create, "second")
        assert [
            entry.position for entry in read_new_entries(keys.database, FeedFilters(), BEGINNING)[0]
        ]
        seen = read_new_entries(keys.database, FeedFilters(), BEGINNING).entries
        assert len(seen) == 1
        assert not quick.done()
        let_go.set()
        slow.result()
        quick.result()
    told = read_new_entries(keys.database, FeedFilters(), BEGINNING).entries
    assert [entry.position for entry in told] == positions_of(keys.database)
    assert len(told) == 3
