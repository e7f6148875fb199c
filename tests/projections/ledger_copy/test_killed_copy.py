"""A copy that is killed at any statement is resumed by the next call, and changes no source."""

from collections.abc import Iterator
from contextlib import closing
from itertools import chain, count
from pathlib import Path

import pytest

from projections.ledger_copy.copy import CopyReport, CopyRunning
from projections.store.database import open_database
from projections.store.schema import upgrade_schema
from tests.engines import (
    POSTGRESQL,
    SQLITE,
    Engine,
    address_of,
    empty_database,
    engine_called,
)
from tests.postgresql import initdb
from tests.programs import needs
from tests.projections.ledger_copy.copies import content_of, copy, copy_in_batches_of, move_in
from tests.projections.ledgers import differing_rows, keys_in
from tests.projections.processes import die_at_statement, run_until_killed
from tests.raw_sql import dump, rows_of

BATCH = 4
EVENTS = 11


@pytest.fixture(
    scope="module", params=[SQLITE, pytest.param(POSTGRESQL, marks=needs(initdb(), "postgresql"))]
)
def target_engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with engine_called(request.param) as engine:
        yield engine


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of eleven events in a file."""
    data_dir = tmp_path_factory.mktemp("source") / "source"
    with keys_in(data_dir) as keys:
        made = [keys.create(f"{number}") for number in range(6)]
        keys.rotate(made[0].key_id)
        keys.revoke(made[1].key_id)
        keys.rename(made[2].key_id, "renamed")
        keys.revoke(made[2].key_id)
        keys.verify(made[3].token)
        keys.opened.last_uses.flush(keys.database)
        keys.opened.signer.sign()
    return data_dir


def copy_until(source: Path, target: Path, number: int) -> None:
    with closing(open_database(address_of(target))) as database:
        upgrade_schema(database)
    die_at_statement(number, when="before_cursor_execute")
    copy_in_batches_of(BATCH, source, target)


def copy_again(source: Path, target: Path) -> CopyReport:
    """Call it again; a server needs a moment to notice that its client was killed."""
    while True:
        try:
            return copy(source, target)
        except CopyRunning:
            continue


def test_a_copy_killed_at_any_statement_can_be_resumed(
    source: Path, target_engine: Engine, tmp_path: Path
) -> None:
    before = dump(address_of(source))
    expected = content_of(source)
    target = target_engine.new_place(tmp_path / "target")
    target.mkdir()
    found = set()
    # First events are copied; then the views are built, as at every start.
    for number in chain(range(1, 50, 4), count(50, 60)):
        empty_database(target)
        if not run_until_killed(copy_until, source, target, number):
            break
        there = rows_of(address_of(target), "events")
        # Whenever it is killed, the target has a prefix of the source's history.
        assert there == expected["events"][: len(there)]
        found.add(len(there))
        assert copy_again(source, target).copied == EVENTS - len(there)
        assert content_of(target) == expected
    assert found > {0, EVENTS}
    assert dump(address_of(source)) == before
    move_in(source, target)
    with keys_in(target) as keys:
        keys.create("in the new full_ledger")
        assert not differing_rows(keys)
