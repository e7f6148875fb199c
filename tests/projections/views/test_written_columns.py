"""The server's role in PostgreSQL may update the columns that events change, and no others."""

import re

import pytest
from sqlalchemy import Engine, event

from projections.recorder import LedgerRecorder
from projections.views.registry import VIEWS
from projections.views.roles_script import SCRIPT, with_grants
from projections.views.view import View
from tests.domain.stored_corpus import stored_events
from tests.engines import SQLITE
from tests.projections.ledgers import Keys

_UPDATE = re.compile(r"UPDATE (\w+) SET (.*?) WHERE", re.DOTALL)


@pytest.mark.only_on(SQLITE)
@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_view_declares_the_columns_that_events_change_in_its_rows(view: View, keys: Keys) -> None:
    updated: set[str] = set()

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        for table, columns in _UPDATE.findall(statement):
            if table == view.name:
                updated.update(re.findall(r"(\w+) ?=", columns))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        recorder = LedgerRecorder(keys.database, VIEWS)
        for stored in stored_events():
            recorder.insert_events([stored])
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert set(view.updates) == updated, f"correct `updates` of the view {view.name}"


def test_the_script_grants_what_the_views_declare() -> None:
    script = SCRIPT.read_text()
    assert with_grants(script) == script, "run: make docs"
    assert all(f"('{view.name}', 'INSERT" in script for view in VIEWS)
