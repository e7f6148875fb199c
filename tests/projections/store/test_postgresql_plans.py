"""Query plans on PostgreSQL: no query of a page reads a whole large ledger."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import event

from benchmarks.list_page import PAGES, Listed, made
from projections.queries.feed import FeedFilters, read_feed
from projections.queries.filters import Filters
from projections.queries.keys_now import list_keys
from projections.queries.overdue_keys import keys_due
from projections.rebuild.rebuild import build_outdated_views
from projections.store.database import Database
from projections.views import entries
from tests.engines import Engine, address_of

pytestmark = pytest.mark.only_on("postgresql")

KEYS = 30_000
LITTLE = 1_000
"""Rows: some for each of a page, and less than there are of newer keys that do not fit."""

PORTION = 12_000
"""Rows: more than are in what is looked at as a whole, so as not to look at everything."""

OF_PORTIONS = {"keys that were never used", *(what for what in PAGES if what.startswith("as of"))}


@pytest.fixture(scope="module")
def large(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listed]:
    place: Path = engine.new_place(tmp_path_factory.mktemp("large") / "keyledger-data")
    ledger = made(address_of(place), KEYS)
    build_outdated_views(ledger.database, [entries.VIEW], clock=lambda: datetime.now(UTC))
    yield ledger
    ledger.database.close()


def rows_read(database: Database, ask: Callable[[], object]) -> int:
    """Return how many rows the server reads of tables and indexes to answer what a call asks."""
    sent: list[tuple[str, Any]] = []

    def note(_c: object, _cursor: object, statement: str, values: Any, *_: object) -> None:  # noqa: ANN401
        if statement.startswith(("SELECT", "WITH")):
            sent.append((statement, values))

    event.listen(database.reader, "before_cursor_execute", note)
    try:
        ask()
    finally:
        event.remove(database.reader, "before_cursor_execute", note)
    read = 0
    with database.read() as connection:
        for statement, values in sent:
            explain = f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}"
            ((explained,),) = connection.exec_driver_sql(explain, values).all()
            read += read_in(explained[0]["Plan"])
    return read


def read_in(node: dict[str, Any]) -> int:
    """Add up what the scans of a plan have read."""
    read = sum(read_in(below) for below in node.get("Plans", ()))
    if "Relation Name" in node or "Index Name" in node:
        passed_over = ("Rows Removed by Filter", "Rows Removed by Index Recheck")
        of_one = node["Actual Rows"] + sum(node.get(each, 0) for each in passed_over)
        read += round(node["Actual Loops"] * of_one)
    return read


def test_the_rows_read_are_counted(large: Listed) -> None:
    def look_at_each() -> None:
        with large.database.read() as connection:
            list_keys(connection, "team-0", Filters(text="#"), now=large.now, limit=10)

    assert KEYS <= rows_read(large.database, look_at_each) < 2 * KEYS


@pytest.mark.parametrize("what", PAGES)
def test_a_page_of_keys(large: Listed, what: str) -> None:
    read = rows_read(large.database, lambda: PAGES[what](large, Random(7)))
    assert read < (PORTION if what in OF_PORTIONS else LITTLE)


def test_the_keys_whose_end_has_come(large: Listed) -> None:
    def ask() -> None:
        with large.database.read() as connection:
            keys_due(connection, now=large.now, limit=100)

    assert rows_read(large.database, ask) < LITTLE


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize(
    "filters",
    [
        FeedFilters(),
        FeedFilters(workspace="team-0"),
        FeedFilters(actor="expirer"),
        FeedFilters(type="ApiKey.Revoked"),
        FeedFilters(workspace="team-0", actor="expirer", type="ApiKey.Expired"),
        FeedFilters(type="AuditLog.Forked"),
    ],
    ids=str,
)
def test_a_page_of_the_feed(large: Listed, filters: FeedFilters, *, newest_first: bool) -> None:
    def ask() -> None:
        with large.database.read() as connection:
            span = range(large.last)
            read_feed(connection, filters, span, limit=100, newest_first=newest_first)

    assert rows_read(large.database, ask) < PORTION
