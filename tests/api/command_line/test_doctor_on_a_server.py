"""``keyledger doctor`` for a ledger on a PostgreSQL server."""

from pathlib import Path

import pytest
from sqlalchemy import make_url

from projections.views.registry import VIEWS
from tests.api.command_line.commands import Run
from tests.api.command_line.test_doctor import checks
from tests.engines import address_of
from tests.raw_sql import tables_of

pytestmark = pytest.mark.only_on("postgresql")


def test_doctor_reports_server_role_and_tables(keyledger: Run, key_id: str) -> None:
    assert key_id
    # The tests' server may lose commits in a power failure, and doctor says so.
    found = checks(keyledger, code=1)
    assert found["database"]["result"] == "ok"
    assert "PostgreSQL" in found["database"]["found"]
    assert found["durability"]["result"] == "fail"
    assert "fsync = off, full_page_writes = off" in found["durability"]["found"]
    assert found["role"]["result"] == "warn"
    assert "docs/postgresql-roles.sql" in found["role"]["remedy"]
    assert found["contents"]["found"] == "1 event, 1 key"
    for view in VIEWS:
        assert found[view.name]["found"] == f"version {view.version}, position 1, lag 0"
    assert not found.keys() & {"sqlite", "disk", "integrity_check"}


def test_an_absent_ledger_is_reported_and_not_made(keyledger: Run, data_dir: Path) -> None:
    found = checks(keyledger, code=1)
    assert found["schema"]["result"] == "fail"
    assert "keyledger serve" in found["schema"]["remedy"]
    assert tables_of(address_of(data_dir)) == set()


def test_a_server_that_cannot_be_reached_is_named_with_the_reason_and_without_the_password(
    keyledger: Run, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = make_url(address_of(data_dir)).set(port=1, password="a-password")
    monkeypatch.setenv("KEYLEDGER_DATABASE_URL", url.render_as_string(hide_password=False))
    found = checks(keyledger, code=1)
    assert found["database"]["result"] == "fail"
    assert "refused" in found["database"]["found"]
    assert "KEYLEDGER_DATABASE_URL" in found["database"]["remedy"]
    assert "a-password" not in str(found)
