"""Rebuilds that this process runs in the background, and how they go."""

import threading
from dataclasses import dataclass
from typing import Literal

import structlog

from domain.errors import LedgerError, RebuildRunning
from projections.rebuild.rebuild import Clock, check_may_rebuild, rebuild
from projections.store.database import Database
from projections.views.view import View

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RebuildState:
    """How the last rebuild of a view goes, or went."""

    state: Literal["running", "failed", "done"]
    position: int | None
    detail: str | None = None


class _Stopped(Exception):
    """The server stops, and a rebuild with it."""


class Rebuilds:
    """Starts rebuilds, each in a thread of its own, and remembers the last of each view."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._states: dict[str, RebuildState] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def state(self, name: str) -> RebuildState | None:
        """Return the state of the last rebuild of a view that this process ran."""
        return self._states.get(name)

    def start(self, view: View) -> None:
        """Start to rebuild a view.

        Raises:
            NotOwner: the server runs as a role that may not.
            RebuildRunning: this process is at it already. If another process is, the state
                becomes failed and says so.
        """
        check_may_rebuild(self._database, view)
        with self._lock:
            running = self._threads.get(view.name)
            if running is not None and running.is_alive():
                raise RebuildRunning(f"a rebuild of {view.name} is running already")
            self._states[view.name] = RebuildState("running", None)
            thread = threading.Thread(target=self._run, args=(view,), name=f"rebuild {view.name}")
            self._threads[view.name] = thread
            thread.start()

    def stop(self) -> None:
        """Stop the rebuilds that run, each after its batch; a later one goes on from there."""
        self._stopping.set()
        for thread in list(self._threads.values()):
            thread.join()

    def _run(self, view: View) -> None:
        try:
            report = rebuild(self._database, view, clock=self._clock, progress=self._progress)
        except LedgerError as error:
            _log.error("rebuild_failed", view=view.name, code=error.code, detail=str(error))
            self._fail(view, str(error))
        except _Stopped:
            _log.info("rebuild_stopped", view=view.name)
            self._fail(view, "the server stopped; start the rebuild again to go on with it")
        except BaseException:
            # The thread has nobody above it to tell; the state and the log must not stay silent.
            _log.exception("rebuild_failed", view=view.name)
            self._fail(view, "something went wrong; the server's log has the cause")
            raise
        else:
            _log.info(
                "rebuild_done",
                view=view.name,
                events=report.events,
                differing=report.differing,
                seconds=round(report.seconds, 3),
            )
            detail = f"{report.events} events; {report.differing} rows of the old table differed"
            self._states[view.name] = RebuildState("done", report.position, detail)

    def _progress(self, name: str, done: int, _last: int) -> None:
        self._states[name] = RebuildState("running", done)
        if self._stopping.is_set():
            raise _Stopped

    def _fail(self, view: View, detail: str) -> None:
        self._states[view.name] = RebuildState("failed", None, detail)
