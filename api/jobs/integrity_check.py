"""Attesting the ledger that is open, and telling what came of it."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter

import structlog

from api.composition import OpenLedger
from domain.errors import LedgerUnavailable
from projections.audit_log.checkpoint_file import notes_in
from projections.integrity.findings import Findings
from projections.integrity.last_result import LastFinding, LastResult, store_last_result
from projections.integrity.verify import IntegrityReport, check_integrity, no_pause
from projections.rebuild.rebuild import Progress, ignore_progress

_log = structlog.get_logger()


def attest_ledger(
    ledger: OpenLedger,
    *,
    progress: Progress = ignore_progress,
    pause: Callable[[], None] = no_pause,
) -> IntegrityReport:
    """Attest a ledger by its own key and the checkpoints outside its database; keep the result.

    A result that cannot be kept is returned all the same, and the log says why.

    Raises:
        LedgerUnavailable: the database or the file of the checkpoints cannot be read.
    """
    attestation = examine_ledger(ledger, Findings(), progress=progress, pause=pause)
    try:
        keep_result(ledger, attestation)
    except LedgerUnavailable as error:
        # What was found is told all the same, and the next attestation tries again.
        _log.error("attestation_not_kept", code=error.code, detail=str(error))
    return attestation


def examine_ledger(
    ledger: OpenLedger,
    findings: Findings,
    *,
    progress: Progress = ignore_progress,
    pause: Callable[[], None] = no_pause,
) -> IntegrityReport:
    """Do as `attest_ledger` does, and do not keep the result.

    Args:
        findings: takes each finding as soon as it is known.
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


def keep_result(ledger: OpenLedger, attestation: IntegrityReport) -> None:
    """Write down what came of an attestation; wait for no standby.

    Raises:
        LedgerUnavailable: it cannot be written.
    """
    last = LastResult(
        ledger.clock(),
        position=attestation.position,
        events=attestation.events,
        entries=attestation.entries,
        keys=attestation.keys,
        checkpoints=attestation.checkpoints,
        findings=attestation.found,
        listed=tuple(
            LastFinding(each.name, each.wrong, each.remedy) for each in attestation.findings
        ),
    )
    store_last_result(ledger.database, last)


def log_attestation(attestation: IntegrityReport) -> None:
    """Tell the log what came of an attestation."""
    _log.info(
        "ledger_attested",
        position=attestation.position,
        checkpoints=attestation.checkpoints,
        findings=attestation.found,
        seconds=round(attestation.seconds, 3),
    )
    for finding in attestation.findings:
        _log.error(
            "attestation_finding",
            name=finding.name,
            wrong=finding.wrong,
            remedy=finding.remedy,
        )


class Stopping(Exception):
    """The work is to end, for the server does."""


class Pace:
    """A pause that leaves most of a core to others."""

    def __init__(self, share: float, stopped: threading.Event) -> None:
        """Work for ``share`` of the time, until ``stopped`` is set."""
        self._idle = 1 / share - 1
        self._stopped = stopped
        self._since = perf_counter()

    def __call__(self) -> None:
        """Wait as long as what was done since the last call calls for.

        Raises:
            Stopping: the work is to end.
        """
        worked = perf_counter() - self._since
        if self._stopped.wait(worked * self._idle):
            raise Stopping
        self._since = perf_counter()


def _notes(path: Path) -> Iterator[str]:
    try:
        yield from notes_in(path)
    except ValueError as error:
        message = f"{path} is no file of checkpoints: {error}; restore it"
        raise LedgerUnavailable(message) from error
    except OSError as error:
        raise LedgerUnavailable(f"cannot read the checkpoints: {error}") from error
