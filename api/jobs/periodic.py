"""Periodic jobs of the server: expire keys, store last uses, sign the log, check its integrity."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from time import monotonic

import structlog

from api.causes import first_cause
from api.composition import OpenLedger
from api.jobs.integrity_check import Pace, check_ledger, log_report
from api.jobs.integrity_runs import LOCK
from api.jobs.started_runs import Stopping
from domain.errors import LedgerError
from projections.expirer import expire_due_keys
from projections.integrity.last_result import read_last_result
from projections.store.locks import task_lock

_log = structlog.get_logger()
_SIGNING_SECONDS = 0.5
_START_DELAY = timedelta(minutes=10)
_DUE_CHECK_INTERVAL = timedelta(minutes=1)
_SHARE = 0.1
"""Share of one core for the integrity check."""


@contextmanager
def expiring(ledger: OpenLedger) -> Iterator[None]:
    """Append `Expired` events for due keys, now and every few seconds, until the block ends.

    One process does it at a time; when that one ends, another takes over at its next attempt.

    A failed attempt is logged, and the next one repeats its work. The clock already refuses expired
    keys, and a key stays due until its event is appended.
    """
    stopped = threading.Event()

    def scan() -> None:
        if ledger.signer.doubt is not None:
            return
        with task_lock(ledger.database, "expiring") as alone:
            if not alone:
                return
            expired = expire_due_keys(
                ledger.database, ledger.ledger, now=ledger.clock(), is_stopped=stopped.is_set
            )
        if expired:
            _log.info("keys_expired", count=expired, actor="system:expirer")

    every = ledger.settings.expirer_seconds
    with _repeating("expirer", scan, every=every, stopped=stopped):
        yield


@contextmanager
def signing(ledger: OpenLedger) -> Iterator[None]:
    """Sign a checkpoint twice a second if something is new, and once more at the end.

    A reason why it cannot is logged once, not twice a second.
    """
    logged: str | None = None

    def sign() -> None:
        nonlocal logged
        try:
            ledger.signer.sign()
        except LedgerError as error:
            if str(error) != logged:
                _log.error("no_checkpoint_signed", code=error.code, detail=str(error))
            logged = str(error)
        else:
            if logged is not None:
                _log.info("checkpoints_signed_again")
            logged = None

    try:
        with _repeating("signer", sign, every=_SIGNING_SECONDS):
            yield
    finally:
        _attempt("signer", sign)


@contextmanager
def checking_integrity(ledger: OpenLedger) -> Iterator[None]:
    """Check the ledger's integrity at intervals, slowly, and in one process at a time.

    A server that has just started waits first. Findings stop nothing: they are logged, and reported
    by `/readyz` and the metrics.
    """
    every = timedelta(hours=ledger.settings.attestation_hours)
    stopped = threading.Event()
    begin_at = monotonic() + min(every, _START_DELAY).total_seconds()

    def is_due() -> bool:
        last = read_last_result(ledger.database, ledger.clock())
        return last is None or last.finished_at + every <= ledger.clock()

    def scan() -> None:
        if monotonic() < begin_at or not is_due():
            return
        with task_lock(ledger.database, LOCK) as alone:
            # Another process may have finished a check just now.
            if not alone or not is_due():
                return
            with suppress(Stopping):
                log_report(check_ledger(ledger, pause=Pace(_SHARE, stopped)))

    if not every:
        yield
        return
    pause = min(every, _DUE_CHECK_INTERVAL).total_seconds()
    with _repeating("attestation", scan, every=pause, stopped=stopped):
        yield


@contextmanager
def storing_last_uses(ledger: OpenLedger) -> Iterator[None]:
    """Store last uses of keys at intervals, and once more at the end of the block.

    A failure is logged; the uses stay in memory for the next attempt.
    """

    def write() -> None:
        ledger.last_uses.flush(ledger.database)

    try:
        with _repeating("last_used", write, every=ledger.settings.last_used_seconds):
            yield
    finally:
        _attempt("last_used", write)


@contextmanager
def _repeating(
    name: str,
    work: Callable[[], None],
    *,
    every: float,
    stopped: threading.Event | None = None,
) -> Iterator[None]:
    """Run a job now and at intervals, in its own thread, until the block ends.

    ``stopped`` is set then, so that a long job can end early.
    """
    stopped = stopped or threading.Event()

    def repeat() -> None:
        while not stopped.is_set():
            _attempt(name, work)
            stopped.wait(every)

    thread = threading.Thread(target=repeat, name=name)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def _attempt(name: str, work: Callable[[], None]) -> None:
    try:
        work()
    except LedgerError as error:
        # Logged at every attempt while the database is away: one line, without a traceback.
        cause = first_cause(error)
        _log.warning(f"{name}_failed", code=error.code, detail=str(error), cause=cause)
    except Exception:  # noqa: BLE001 - the next attempt may succeed
        # Without this, a bug would end the thread silently.
        _log.exception(f"{name}_failed")
