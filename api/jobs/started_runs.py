"""Long work that a user starts: each run has a thread, and its last state can be read."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import structlog

from domain.errors import LedgerError

_log = structlog.get_logger()


class Stopping(Exception):
    """The work must end because the server stops."""


@dataclass(frozen=True, slots=True)
class RunState:
    """How far a run is, or how it ended.

    Args:
        position: last event that a rebuild has read.
        stage: name of the current stage; ``None`` if unknown, as for a run of another process.
        share: of the work that is done, from 0 to 1; ``None`` if unknown.
        detail: the result, or why the run failed.
    """

    state: Literal["running", "failed", "done"]
    position: int | None = None
    stage: str | None = None
    share: float | None = None
    detail: str | None = None

    @property
    def is_running(self) -> bool:
        """Whether the run has not ended."""
        return self.state == "running"


class Run:
    """What the work of a run uses to report, and to learn that it must end."""

    def __init__(self, runs: "StartedRuns", name: str) -> None:
        self._runs = runs
        self._name = name

    @property
    def stopping(self) -> threading.Event:
        """Is set when the server stops."""
        return self._runs.stopping

    def report(self, state: RunState) -> None:
        """Record how far the run is.

        Raises:
            Stopping: the server stops.
        """
        self._runs.record(self._name, state)
        if self.stopping.is_set():
            raise Stopping


Work = Callable[[Run], RunState]
"""Does the work and returns its final state; raises `LedgerError` where it fails."""


class StartedRuns:
    """Runs of one kind; at most one of each name at a time in this process."""

    def __init__(self, kind: str) -> None:
        """Begin the log events with ``kind``, as in ``rebuild_failed``."""
        self.stopping = threading.Event()
        self._kind = kind
        self._states: dict[str, RunState] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._lock = threading.Lock()

    def state(self, name: str) -> RunState | None:
        """Return the state of the last run of a name in this process."""
        return self._states.get(name)

    def start(self, name: str, work: Work, **logged: str) -> bool:
        """Start work in a thread; return whether it was started, since none of its name runs.

        Args:
            logged: fields for the log events of the run.
        """
        with self._lock:
            running = self._threads.get(name)
            if running is not None and running.is_alive():
                return False
            self._states[name] = RunState("running")
            thread = threading.Thread(
                target=self._run, args=(name, work, logged), name=f"{self._kind} {name}"
            )
            self._threads[name] = thread
            thread.start()
            return True

    def stop(self) -> None:
        """Stop all runs, each when it reports next, and wait for them."""
        self.stopping.set()
        for thread in list(self._threads.values()):
            thread.join()

    def record(self, name: str, state: RunState) -> None:
        """Record the state of a run."""
        self._states[name] = state

    def _run(self, name: str, work: Work, logged: dict[str, str]) -> None:
        try:
            self.record(name, work(Run(self, name)))
        except LedgerError as error:
            _log.error(f"{self._kind}_failed", **logged, code=error.code, detail=str(error))
            self._fail(name, str(error))
        except Stopping:
            _log.info(f"{self._kind}_stopped", **logged)
            self._fail(name, "the server stopped: start it again")
        except BaseException:
            # Nothing above this thread handles the error, so the log and the state must have it.
            _log.exception(f"{self._kind}_failed", **logged)
            self._fail(name, "it failed: the server's log has the cause")
            raise

    def _fail(self, name: str, detail: str) -> None:
        self.record(name, RunState("failed", detail=detail))
