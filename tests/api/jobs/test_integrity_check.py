"""Integrity checks in the background: in one process, slowly, with a result for all processes."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from api.composition import OpenLedger
from api.jobs.integrity_check import Pace, check_ledger, check_without_storing
from api.jobs.periodic import checking_integrity
from api.jobs.started_runs import Stopping
from api.settings import Settings
from domain.errors import LedgerUnavailable
from domain.times import to_text
from projections.integrity.findings import Findings
from projections.integrity.last_result import LastFinding, LastResult, read_last_result
from projections.store.locks import task_lock
from projections.store.schema import last_attestation as table
from tests.api.served import Api, NewLedger, served
from tests.conftest import NOON, SettableClock
from tests.engines import settings_of
from tests.projections.integrity.manipulations import change_value
from tests.projections.ledgers import HOUR, Keys, keys_in
from tests.raw_sql import plant_row, sql

AT_ONCE = 1e-7
"""Hours: a third of a millisecond."""


def eventually(so: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not so():
        assert time.monotonic() < end, "it did not come about"
        threading.Event().wait(0.005)


@pytest.fixture
def settings(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.delenv("KEYLEDGER_DATA_DIR", raising=False)
    return settings_of(data_dir, attestation_hours=AT_ONCE)


def test_a_server_checks_integrity_and_reports_findings(
    new_ledger: NewLedger, data_dir: Path, clock: SettableClock
) -> None:
    settings = settings_of(
        new_ledger.copied_to(data_dir), expirer_seconds=3600, attestation_hours=AT_ONCE
    )
    with served(settings, new_ledger.root, clock) as api:

        def told() -> object:
            answer = api.get("/readyz", by=None)
            assert answer.status_code == 200
            return answer.json()["attestation"]

        sound = {"finished_at": "2026-03-03T12:00:00.000000Z", "position": 1, "findings": 0}
        eventually(lambda: told() == sound)
        assert api.metrics()["keyledger_attestation_findings"] == 0
        sql(api.address, "UPDATE key_list SET name = 'hacked'")
        clock.advance(hours=1)
        found = sound | {"finished_at": "2026-03-03T13:00:00.000000Z", "findings": 1}
        eventually(lambda: told() == found)
        metrics = api.metrics()
        assert metrics["keyledger_attestation_findings"] == 1
        finished = metrics["keyledger_attestation_timestamp_seconds"]
        assert finished == clock.now.timestamp()
        # A finding stops nothing.
        assert api.show(api.make())["status"] == "active"


def test_no_integrity_check_runs_before_the_start_delay(api: Api) -> None:
    assert api.settings.attestation_hours == 24
    assert api.get("/readyz", by=None).json()["attestation"] is None
    assert "keyledger_attestation_findings" not in api.metrics()


def test_only_one_process_checks_integrity_at_a_time(opened: OpenLedger) -> None:
    asked = threading.Semaphore(0)

    def later() -> datetime:
        asked.release()
        return NOON + HOUR

    check_ledger(opened)
    before = read_last_result(opened.database, opened.clock())
    with task_lock(opened.database, "attestation") as alone:
        assert alone
        with checking_integrity(replace(opened, clock=later)):
            # It was due, and left to the other process; and once more.
            assert asked.acquire(timeout=30)
            assert asked.acquire(timeout=30)
        assert read_last_result(opened.database, opened.clock()) == before
    with checking_integrity(replace(opened, clock=later)):
        eventually(lambda: read_last_result(opened.database, opened.clock()) != before)


def test_the_end_of_the_server_ends_it(opened: OpenLedger) -> None:
    stopped = threading.Event()
    pace = Pace(1e-9, stopped)
    threading.Timer(0.05, stopped.set).start()
    with pytest.raises(Stopping):
        check_ledger(opened, pause=pace)
    assert read_last_result(opened.database, opened.clock()) is None


def test_0_hours_disable_the_integrity_check(data_dir: Path, opened: OpenLedger) -> None:
    assert data_dir.exists()
    never = settings_of(data_dir, attestation_hours=0)
    before = threading.active_count()
    with checking_integrity(replace(opened, settings=never)):
        assert threading.active_count() == before


NOTHING_YET = LastResult(
    NOON, position=0, events=0, entries=0, keys=0, checkpoints=0, findings=0, listed=()
)


def test_every_process_reads_the_last_result(opened: OpenLedger, data_dir: Path) -> None:
    check_ledger(opened)
    assert read_last_result(opened.database, opened.clock()) == NOTHING_YET
    Keys(opened).create()
    sql(opened.database.url, "UPDATE auth_lookup SET name = 'hacked'")
    later = NOON + HOUR
    found = check_ledger(replace(opened, clock=lambda: later))
    (finding,) = found.findings
    with keys_in(data_dir) as elsewhere:
        assert read_last_result(elsewhere.database, later) == replace(
            NOTHING_YET,
            finished_at=later,
            position=1,
            events=1,
            entries=1,
            keys=1,
            findings=1,
            listed=(LastFinding(finding.name, finding.wrong, finding.remedy),),
        )
    assert len(sql(opened.database.url, "SELECT * FROM last_attestation")) == 1


@pytest.mark.parametrize("column", [column.name for column in table.c])
def test_a_result_that_was_changed_in_any_column_is_not_used(
    opened: OpenLedger, column: str
) -> None:
    check_ledger(opened)
    change_value(opened.database.url, table.name, column)
    assert read_last_result(opened.database, opened.clock()) is None
    found = check_without_storing(opened, Findings()).findings
    assert any("last_attestation" in each.name for each in found)
    assert check_ledger(opened).found == 1
    assert check_ledger(opened).found == 0


@pytest.mark.only_on("sqlite")
def test_a_result_with_text_that_is_not_utf_8_is_not_used(opened: OpenLedger) -> None:
    check_ledger(opened)
    sql(opened.database.url, "UPDATE last_attestation SET finished_at = CAST(x'ff' AS TEXT)")
    assert read_last_result(opened.database, opened.clock()) is None


def test_a_forged_result_neither_hides_findings_nor_delays_the_next_check(
    opened: OpenLedger, clock: SettableClock
) -> None:
    Keys(opened).create()
    sql(opened.database.url, "UPDATE auth_lookup SET name = 'hacked'")
    assert check_ledger(opened).found == 1
    due_at = clock.advance(hours=24)
    for planted_at in (due_at, due_at - HOUR, due_at + HOUR):
        row = {"finished_at": to_text(planted_at), "findings": 0}
        plant_row(opened.database.url, table.name, **row)
    last = read_last_result(opened.database, due_at)
    assert last is not None
    assert (last.finished_at, last.findings) == (NOON, 1)


def test_a_result_from_the_future_is_not_used_even_with_a_valid_seal(opened: OpenLedger) -> None:
    check_ledger(replace(opened, clock=lambda: NOON + HOUR))
    assert read_last_result(opened.database, NOON) is None
    assert read_last_result(opened.database, NOON + HOUR) is not None


def test_a_result_that_cannot_be_stored_is_reported(opened: OpenLedger) -> None:
    sql(opened.database.url, "ALTER TABLE last_attestation RENAME TO elsewhere")
    with capture_logs() as logs:
        (finding,) = check_ledger(opened).findings
    assert finding.name == "the table last_attestation"
    assert [line["event"] for line in logs] == ["attestation_not_kept"]


def test_a_file_that_is_not_a_checkpoint_file_is_reported(opened: OpenLedger) -> None:
    Keys(opened).create()
    opened.signer.sign()
    path = opened.signer.path
    path.write_bytes(path.read_bytes().replace(b"keyledger", b"keyledge\xff"))
    with pytest.raises(LedgerUnavailable, match="is not a checkpoint file"):
        check_ledger(opened)


def test_checkpoints_outside_are_compared(opened: OpenLedger) -> None:
    Keys(opened).create()
    opened.signer.sign()
    sql(opened.database.url, "DELETE FROM checkpoints")
    assert check_ledger(opened).checkpoints == 1
