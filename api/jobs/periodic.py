"""The server's own regular work: expiring keys, noting uses, signing and attesting the log."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from time import monotonic

import structlog

from api.causes import first_cause
from api.composition import OpenLedger
from api.jobs.integrity_check import Pace, Stopping, attest_ledger, log_attestation
from api.jobs.integrity_runs import LOCK
from domain.errors import LedgerError
from projections.expirer import expire_due_keys
from projections.integrity.last_result import read_last_result
from projections.store.locks import task_lock

_log = structlog.get_logger()
_SIGNING_SECONDS = 0.5
_SETTLING = timedelta(minutes=10)
_LOOK_AGAIN = timedelta(minutes=1)
_SHARE = 0.1
"""Of a core, for attesting."""


@contextmanager
def expiring(ledger: OpenLedger) -> Iterator[None]:
    """Look for keys that are due, now and every few seconds, until the block ends.

    Of all processes one does it at a time; when it ends, another does at its next look.

    A look that fails is logged, and the next one does its work too: the clock has decided already
    whom to refuse, and the events are found due for as long as they are missing.
    """
    stopped = threading.Event()

    def look() -> None:
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
    with _repeating("expirer", look, every=every, stopped=stopped):
        yield


@contextmanager
def signing(ledger: OpenLedger) -> Iterator[None]:
    """Sign a checkpoint twice a second where there is something new, and once more at the end.

    Why it cannot is logged once, and not twice a second.
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
def attesting(ledger: OpenLedger) -> Iterator[None]:
    """Attest the ledger every so many hours, at a slow pace; of all processes, one does it.

    A server that has just started has other things to do first. What is found stops nothing: it is
    logged, and told by `/readyz` and the metrics.
    """
    every = timedelta(hours=ledger.settings.attestation_hours)
    stopped = threading.Event()
    begin_at = monotonic() + min(every, _SETTLING).total_seconds()

    def is_due() -> bool:
        last = read_last_result(ledger.database, ledger.clock())
        return last is None or last.finished_at + every <= ledger.clock()

    def look() -> None:
        if monotonic() < begin_at or not is_due():
            return
        with task_lock(ledger.database, LOCK) as alone:
            # Another process may have ended one just now.
            if not alone or not is_due():
                return
            with suppress(Stopping):
                log_attestation(attest_ledger(ledger, pause=Pace(_SHARE, stopped)))

    if not every:
        yield
        return
    pause = min(every, _LOOK_AGAIN).total_seconds()
    with _repeating("attestation", look, every=pause, stopped=stopped):
        yield


@contextmanager
def keeping_last_uses(ledger: OpenLedger) -> Iterator[None]:
    """Write down every now and then when keys were last used, and once more as the block ends.

    A writing that fails is logged; what it had to write stays in memory for the next one.
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
    """Do some work now and at intervals, in a thread of its own, until the block ends.

    ``stopped`` is set then, so that work that takes long can look at it.
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
        # Once a second for as long as a database is away: a line, and no traceback.
        cause = first_cause(error)
        _log.warning(f"{name}_failed", code=error.code, detail=str(error), cause=cause)
    except Exception:  # noqa: BLE001 - and the next attempt may do better
        # A thread that dies of a bug would do so in silence; this one complains each time.
        _log.exception(f"{name}_failed")
