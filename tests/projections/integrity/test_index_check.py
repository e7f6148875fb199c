"""The integrity check finds an index that contradicts its table."""

from contextlib import closing

import pytest

from domain.verdict import Code
from projections.integrity.verify import check_integrity
from projections.store.sqlite_driver import driver as sqlite3
from tests.projections.ledgers import Keys, keys_in
from tests.raw_sql import as_dicts, edit_rows, sql

# On PostgreSQL SQL alone cannot make an index contradict its table.
pytestmark = pytest.mark.only_on("sqlite")

_INDEX = "events_aggregate_idx"


@pytest.fixture
def keys(opened: object) -> Keys:
    return Keys(opened)  # type: ignore[arg-type]


def _without_index(keys: Keys, statement: str) -> None:
    """Change events while their index is detached from the schema, and attach it again."""
    path = keys.database.url.database
    assert path is not None
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA writable_schema = ON")
        row = connection.execute("SELECT * FROM sqlite_master WHERE name = ?", (_INDEX,)).fetchone()
        connection.execute("DELETE FROM sqlite_master WHERE name = ?", (_INDEX,))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", tuple(row))
    with closing(sqlite3.connect(path)) as connection, connection:
        (version,) = connection.execute("PRAGMA schema_version").fetchone()
        connection.execute(f"PRAGMA schema_version = {version + 1}")


def test_a_revocation_hidden_from_the_version_index_is_found(keys: Keys) -> None:
    made = keys.create()
    shown = {table: as_dicts(keys.address, table) for table in ("auth_lookup", "key_list")}
    keys.revoke(made.key_id)
    sql(keys.address, "UPDATE events SET originator_version = -1 WHERE id = 2")
    _without_index(keys, "UPDATE events SET originator_version = 2 WHERE id = 2")
    for table, (old,) in shown.items():
        edit_rows(keys.address, table, 1, **old)
    sql(keys.address, "DELETE FROM key_versions WHERE version = 2")
    sql(keys.address, "UPDATE key_versions SET held_until = NULL")
    with keys_in(keys.data_dir) as again:
        # What decision 9 says of an older row whose newer events nobody sees.
        assert again.verify(made.token) is Code.VALID
    findings = check_integrity(keys.database, notes=[], keys=None, now=keys.now).findings
    (found,) = [each for each in findings if each.about == "schema"]
    assert found.name == "the table events"
    assert _INDEX in found.wrong
    assert "REINDEX events" in found.remedy
    sql(keys.address, "REINDEX events")
    again_found = check_integrity(keys.database, notes=[], keys=None, now=keys.now).findings
    assert {each.about for each in again_found} == {"projection"}


def test_sound_indexes_are_not_found(keys: Keys) -> None:
    keys.create()
    assert check_integrity(keys.database, notes=[], keys=None, now=keys.now).findings == ()
