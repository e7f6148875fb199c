"""Attestations that people ask this process for: one at a time, in the background."""

import threading
from dataclasses import dataclass
from typing import Literal

import structlog

from api.composition import OpenLedger
from api.jobs.integrity_check import Pace, Stopping, check_ledger, log_report
from domain.errors import LedgerError
from projections.store.locks import task_lock
from projections.views.registry import VIEWS

LOCK = "attestation"
STAGES = ("log", "key histories", "checkpoints", *(view.name for view in VIEWS))
"""What is attested, in this order."""

_log = structlog.get_logger()
_SHARE = 0.5
"""Of a core: somebody waits, and so do those who call with their keys."""


@dataclass(frozen=True, slots=True)
class RunState:
    """How the last attestation goes, or went.

    Args:
        stage: what is being attested; ``None`` where that is not known, as of another process.
        done, last: how far it is within the stage.
        detail: why it failed.
    """

    state: Literal["running", "failed", "done"]
    stage: str | None = None
    done: int = 0
    last: int = 0
    detail: str | None = None

    @property
    def is_running(self) -> bool:
        """Tell whether there is something to wait for."""
        return self.state == "running"

    @property
    def share(self) -> float | None:
        """Which part of the whole is done, from 0 to 1; ``None`` where that is not known."""
        if self.stage not in STAGES:
            return None
        within = min(self.done / self.last, 1) if self.last else 0
        return (STAGES.index(self.stage) + within) / len(STAGES)


class AttestationRuns:
    """Starts an attestation in a thread of its own, and remembers how the last one went."""

    def __init__(self, ledger: OpenLedger) -> None:
        self._ledger = ledger
        self._state: RunState | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def state(self) -> RunState | None:
        """Return how the attestation goes that runs, in whichever process, or the last one here."""
        # Not while a run begins: it would find the lock taken by who only looks.
        with self._lock:
            state = self._state
            if state is not None and state.is_running:
                return state
            with task_lock(self._ledger.database, LOCK) as nobody_runs:
                return state if nobody_runs else RunState("running")

    def start(self) -> None:
        """Start to attest the ledger, unless this process is at it already."""
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            self._state = RunState("running", STAGES[0])
            self._thread = threading.Thread(target=self._run, name="attestation asked for")
            self._thread.start()

    def stop(self) -> None:
        """Stop the attestation that runs, after its batch."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            with task_lock(self._ledger.database, LOCK) as alone:
                if not alone:
                    self._fail("another one was running; its result is shown when it ends")
                    return
                pace = Pace(_SHARE, self._stopping)
                log_report(check_ledger(self._ledger, progress=self._progress, pause=pace))
        except Stopping:
            self._fail("the server stopped; start it again")
        except LedgerError as error:
            _log.error("attestation_failed", code=error.code, detail=str(error))
            self._fail(str(error))
        except BaseException:
            # The thread has nobody above it to tell; the state and the log must not stay silent.
            _log.exception("attestation_failed")
            self._fail("something went wrong; the server's log has the cause")
            raise
        else:
            self._state = RunState("done")

    def _progress(self, what: str, done: int, last: int) -> None:
        self._state = RunState("running", what, done, last)

    def _fail(self, detail: str) -> None:
        self._state = RunState("failed", detail=detail)
