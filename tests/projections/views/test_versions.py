"""A view whose rows or table change gets a new version, so that databases rebuild it."""

import json
from hashlib import sha256

import pytest
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable, ExecutableDDLElement

from projections.recorder import LedgerRecorder
from projections.views.registry import VIEWS
from projections.views.view import View
from tests.domain.stored_corpus import events_by_file
from tests.engines import SQLITE
from tests.projections.ledgers import Keys
from tests.raw_sql import view_rows

FINGERPRINTS: dict[tuple[str, int, int], str] = {
    ("key_list", 3, 3): "34d90e9b780de7db",
    ("auth_lookup", 3, 3): "ae5d8aa14a51f8b8",
    ("entries", 1, 3): "7bda65b56d8eaded",
    ("key_versions", 2, 3): "fecc852389c24db5",
}
"""The fingerprint of each version of each view, after the events up to a file of the corpus.

A line that is there is never changed."""

_OF_THE_LEDGER = {"seal", "verifier"}
"""Columns whose values depend on a ledger's secret, or on nothing that a view decides."""


def fingerprint_of(view: View, keys: Keys) -> str:
    """Return a digest of the table, and of its rows after every event that was ever stored."""
    items: list[ExecutableDDLElement] = [
        CreateTable(view.table),
        *map(CreateIndex, sorted(view.table.indexes, key=str)),
    ]
    dialects = [sqlite.dialect(), postgresql.dialect()]  # type: ignore[no-untyped-call]
    statements = [str(item.compile(dialect=each)) for item in items for each in dialects]
    columns = [column.name for column in view.table.columns]
    rows = [
        {name: repr(value) for name, value in zip(columns, row, strict=True)}
        for row in view_rows(keys.address)[view.name]
    ]
    for row in rows:
        for name in _OF_THE_LEDGER & row.keys():
            del row[name]
    return sha256(json.dumps([statements, rows], sort_keys=True).encode()).hexdigest()[:16]


@pytest.mark.only_on(SQLITE)
@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_the_version_of_a_view_changes_with_its_table_and_its_rows(view: View, keys: Keys) -> None:
    recorder = LedgerRecorder(keys.database, VIEWS)
    corpus = events_by_file()
    for number, stored in corpus.items():
        for event in stored:
            recorder.insert_events([event])
        known = FINGERPRINTS.get((view.name, view.version, number))
        if known is None and number != max(corpus):
            continue
        found = fingerprint_of(view, keys)
        line = f'("{view.name}", {{}}, {number}): "{found}"'
        assert known is not None, f"add to FINGERPRINTS: {line.format(view.version)}"
        assert known == found, (
            f"the table or the rows of {view.name} changed: give it the version {view.version + 1}"
            f" (programs then rebuild it when they start), and add to FINGERPRINTS:"
            f" {line.format(view.version + 1)}"
        )
