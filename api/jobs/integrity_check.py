"""Check the integrity of the open ledger, and publish the result."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter

import structlog

from api.composition import OpenLedger
from api.jobs.started_runs import Stopping
from domain.errors import LedgerUnavailable
from projections.audit_log.checkpoint_file import notes_in
from projections.integrity.findings import Findings
from projections.integrity.last_result import LastFinding, LastResult, store_last_result
from projections.integrity.verify import IntegrityReport, check_integrity, no_pause
from projections.rebuild.rebuild import Progress, ignore_progress

_log = structlog.get_logger()


def check_ledger(
    ledger: OpenLedger,
    *,
    progress: Progress = ignore_progress,
    pause: Callable[[], None] = no_pause,
) -> IntegrityReport:
    """Check a ledger with its own key and its checkpoints outside the database; store the result.

    If the result cannot be stored, it is returned nevertheless, and the reason is logged.

    Raises:
        LedgerUnavailable: the database or the checkpoint file cannot be read.
    """
    report = check_without_storing(ledger, Findings(), progress=progress, pause=pause)
    try:
        store_result(ledger, report)
    except LedgerUnavailable as error:
        # The findings are reported nevertheless, and the next check tries to store again.
        _log.error("attestation_not_kept", code=error.code, detail=str(error))
    return report


def check_without_storing(
    ledger: OpenLedger,
    findings: Findings,
    *,
    progress: Progress = ignore_progress,
    pause: Callable[[], None] = no_pause,
) -> IntegrityReport:
    """Check a ledger without storing the result.

    Args:
        findings: receives each finding as soon as it is known.
    """
    return check_integrity(
        ledger.database,
        notes=_notes(ledger.signer.path),
        keys=[ledger.signer.key.verifier_key],
        now=ledger.clock(),
        progress=progress,
        pause=pause,
        findings=findings,
    )


def store_result(ledger: OpenLedger, report: IntegrityReport) -> None:
    """Store the result of an integrity check, without waiting for a standby.

    Raises:
        LedgerUnavailable: it cannot be stored.
    """
    last = LastResult(
        ledger.clock(),
        position=report.position,
        events=report.events,
        entries=report.entries,
        keys=report.keys,
        checkpoints=report.checkpoints,
        findings=report.found,
        listed=tuple(LastFinding(each.name, each.wrong, each.remedy) for each in report.findings),
    )
    store_last_result(ledger.database, last)


def log_report(report: IntegrityReport) -> None:
    """Log the result of an integrity check."""
    _log.info(
        "ledger_attested",
        position=report.position,
        checkpoints=report.checkpoints,
        findings=report.found,
        seconds=round(report.seconds, 3),
    )
    for finding in report.findings:
        _log.error(
            "attestation_finding",
            name=finding.name,
            wrong=finding.wrong,
            remedy=finding.remedy,
        )


class Pace:
    """Pauses so that a background task uses only a share of one core."""

    def __init__(self, share: float, stopped: threading.Event) -> None:
        """Allow work for ``share`` of the time, until ``stopped`` is set."""
        self._idle = 1 / share - 1
        self._stopped = stopped
        self._since = perf_counter()

    def __call__(self) -> None:
        """Wait in proportion to the time worked since the last call.

        Raises:
            Stopping: the server stops.
        """
        worked = perf_counter() - self._since
        if self._stopped.wait(worked * self._idle):
            raise Stopping
        self._since = perf_counter()


def _notes(path: Path) -> Iterator[str]:
    try:
        yield from notes_in(path)
    except ValueError as error:
        message = f"{path} is not a checkpoint file: {error}; restore it"
        raise LedgerUnavailable(message) from error
    except OSError as error:
        raise LedgerUnavailable(f"cannot read the checkpoints: {error}") from error
