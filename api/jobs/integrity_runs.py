"""Integrity checks that a user starts, in the background and one at a time."""

import threading

from api.composition import OpenLedger
from api.jobs.integrity_check import Pace, check_ledger, log_report
from api.jobs.started_runs import Run, RunState, StartedRuns
from projections.store.locks import task_lock
from projections.views.registry import VIEWS

LOCK = "attestation"
STAGES = ("log", "key histories", "checkpoints", *(view.name for view in VIEWS))
"""The stages of an integrity check, in order."""

_NAME = "on request"
_SHARE = 0.5
"""Of a core: a user waits for it, and so do those who verify tokens."""


class IntegrityRuns:
    """Starts integrity checks, one at a time among all processes."""

    def __init__(self, ledger: OpenLedger) -> None:
        self._ledger = ledger
        self._runs = StartedRuns("attestation")
        self._lock = threading.Lock()

    def state(self) -> RunState | None:
        """Return the state of the check that runs, in any process, or of the last one here."""
        # With the lock: a check that starts now would find the task lock taken by this reading.
        with self._lock:
            state = self._runs.state(_NAME)
            if state is not None and state.is_running:
                return state
            with task_lock(self._ledger.database, LOCK) as alone:
                return state if alone else RunState("running")

    def start(self) -> None:
        """Start an integrity check, unless one runs in this process."""
        with self._lock:
            self._runs.start(_NAME, self._check)

    def stop(self) -> None:
        """Stop the running check after its batch."""
        self._runs.stop()

    def _check(self, run: Run) -> RunState:
        def progress(stage: str, done: int, last: int) -> None:
            share = None
            if stage in STAGES:
                within = min(done / last, 1) if last else 0
                share = (STAGES.index(stage) + within) / len(STAGES)
            run.report(RunState("running", stage=stage, share=share))

        progress(STAGES[0], 0, 0)
        with task_lock(self._ledger.database, LOCK) as alone:
            if not alone:
                detail = "another check was running; its result is shown when it ends"
                return RunState("failed", detail=detail)
            pace = Pace(_SHARE, run.stopping)
            log_report(check_ledger(self._ledger, progress=progress, pause=pace))
            return RunState("done")
