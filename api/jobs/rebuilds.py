"""Rebuilds of views in the background."""

import structlog

from api.jobs.started_runs import Run, RunState, StartedRuns
from domain.errors import RebuildRunning
from projections.rebuild.rebuild import Clock, check_may_rebuild, rebuild
from projections.store.database import Database
from projections.views.view import View

_log = structlog.get_logger()


class Rebuilds:
    """Starts rebuilds, one of each view at a time."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._runs = StartedRuns("rebuild")

    def state(self, name: str) -> RunState | None:
        """Return the state of the last rebuild of a view that this process ran."""
        return self._runs.state(name)

    def start(self, view: View) -> None:
        """Start to rebuild a view.

        Raises:
            NotOwner: the server's database role may not rebuild it.
            RebuildRunning: this process rebuilds it already. If another process does, the state
                becomes failed and says so.
        """
        check_may_rebuild(self._database, view)
        if not self._runs.start(view.name, lambda run: self._rebuild(view, run), view=view.name):
            raise RebuildRunning(f"a rebuild of {view.name} is already running")

    def stop(self) -> None:
        """Stop the running rebuilds, each after its batch; the next one resumes there."""
        self._runs.stop()

    def _rebuild(self, view: View, run: Run) -> RunState:
        report = rebuild(
            self._database,
            view,
            clock=self._clock,
            progress=lambda _name, done, _last: run.report(RunState("running", position=done)),
        )
        _log.info(
            "rebuild_done",
            view=view.name,
            events=report.events,
            differing=report.differing,
            seconds=round(report.seconds, 3),
        )
        detail = f"{report.events} events; {report.differing} rows of the old table differed"
        return RunState("done", position=report.position, detail=detail)
