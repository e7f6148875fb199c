"""Rebuild views from the events, and compare live views with the events.

A rebuild fills a shadow table in batches: first key by key, then with the events that were appended
since. An interrupted rebuild can be resumed. At the end it takes the append lock for a moment,
projects the rest, and swaps the shadow table with the live one. Readers see either table, complete.

Comparing a million rows takes too long for a lock. So the tables are compared before it is taken,
while events still arrive. The few rows that differ then, and those that events have changed since,
are compared again under the lock.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from time import perf_counter, sleep
from typing import NamedTuple

from sqlalchemy import Connection, Table, inspect

from domain.errors import RebuildRunning
from domain.times import to_text
from projections.rebuild.comparison import Difference, compare_rows, differing_positions
from projections.rebuild.shadow_table import BATCH, Shadow
from projections.rebuild.view_states import check_not_newer, read_state
from projections.rebuild.view_tables import drop_table
from projections.store.database import (
    Database,
    check_owner,
    lift_timeouts,
    mode_of_role,
)
from projections.store.events import Recorded, first_positions, last_position
from projections.store.locks import task_lock
from projections.store.postgresql_locks import TableInUse
from projections.views.view import View

Clock = Callable[[], datetime]
"""Returns the current time in UTC."""

Progress = Callable[[str, int, int], None]
"""Called after each batch with the name of the view, the current position and the last one."""

DIFFERENCES_SHOWN = 1000
_RETRY_SECONDS = 0.05
_ATTEMPTS = 300
_PAUSE_SECONDS = 1.0


def ignore_progress(_view: str, _done: int, _last: int) -> None:
    """Ignore progress."""


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """The result of a rebuild or a comparison.

    Args:
        view: name of the view.
        events: number of events projected; less than all if a run was resumed.
        position: position of the last event.
        differing: number of rows of the live table that differ from what the events give.
        differences: the first `DIFFERENCES_SHOWN` of them.
        seconds: total duration.
        locked_seconds: time for which the append lock was held at the end.
    """

    view: str
    events: int
    position: int
    differing: int
    differences: tuple[Difference, ...]
    seconds: float
    locked_seconds: float


def check_may_rebuild(database: Database, view: View, *, downgrade: bool = False) -> None:
    """Refuse a rebuild that would fail at its end.

    Args:
        downgrade: whether to replace a table that a newer version of the program made.

    Raises:
        NotOwner: only the owner of the tables may replace a table.
        LedgerUnavailable: the database did not answer, or a newer version of the program made the
            table.
    """
    with database.read() as connection:
        check_owner(connection, f"keyledger projections rebuild {view.name}")
        if not downgrade:
            check_not_newer(connection, view.name, view.version)


def rebuild(
    database: Database, view: View, *, clock: Clock, progress: Progress = ignore_progress
) -> ReplayReport:
    """Rebuild a view's table, and swap it with the live one.

    If the live table is of another version of the view, it is kept until the next rebuild.

    Raises:
        NotOwner: only the owner of the tables may do this.
        RebuildRunning: another rebuild of the view is running.
        PoisonEvent: an event cannot be projected. The live table stays in use and up to date. Once
            the cause is fixed, call this again to resume.
        LedgerUnavailable: the database did not answer; call this again to resume. Or a newer
            version of the program made the table.
    """
    return _rebuild(database, view, clock, progress, _begin_from_events)


def check(database: Database, view: View, *, progress: Progress = ignore_progress) -> ReplayReport:
    """Compare a view's live table with one built from the events, and drop the latter.

    Raises:
        RebuildRunning: another comparison of this view is running.
        PoisonEvent: an event cannot be projected.
        LedgerUnavailable: the database did not answer, or a newer version of the program made the
            table.
    """

    def begin(shadow: Shadow) -> None:
        shadow.begin(resume=False)

    def keep_live(_connection: Connection, shadow: Shadow) -> Table:
        return shadow.table

    # The result is temporary, so it must not wait for a standby while holding the append lock.
    database = database.without_standby()
    with database.read() as connection:
        check_not_newer(connection, view.name, view.version)
        # One role cannot drop a table that an interrupted comparison of another role left.
        shadow = Shadow(database, view, mode_of_role(connection, "check"))
    return _replay(database, shadow, "check", begin, keep_live, progress=progress)


def build_outdated_views(
    database: Database,
    views: Sequence[View],
    *,
    clock: Clock,
    progress: Progress = ignore_progress,
    downgrade: bool = False,
) -> list[ReplayReport]:
    """Build each view whose table is missing or of another version of the program.

    If the previous table is of this version, it becomes the live one again, and only what was
    appended since is projected.

    Several processes may call this at the same time: the first one does the work, the others wait.

    Args:
        downgrade: whether to replace tables of a newer version of the program too; servers of the
            newer version can then change nothing.

    Raises:
        NotOwner, PoisonEvent, LedgerUnavailable: as for `rebuild`. If a newer version of the
            program made one of the tables, no view is built.
    """
    if not downgrade:
        with database.read() as connection:
            for view in views:
                check_not_newer(connection, view.name, view.version)
    begin = _begin_with_previous
    reports = []
    for view in views:
        while not is_current(database, view):
            try:
                reports.append(
                    _rebuild(database, view, clock, progress, begin, downgrade=downgrade)
                )
            except RebuildRunning:
                sleep(_RETRY_SECONDS)
    return reports


def _begin_from_events(shadow: Shadow) -> None:
    shadow.drop_previous()
    shadow.begin(resume=True)


def _begin_with_previous(shadow: Shadow) -> None:
    shadow.reuse_previous()
    shadow.begin(resume=True)


def _rebuild(
    database: Database,
    view: View,
    clock: Clock,
    progress: Progress,
    begin: Callable[[Shadow], None],
    *,
    downgrade: bool = False,
) -> ReplayReport:
    check_may_rebuild(database, view, downgrade=downgrade)

    def swap_in(connection: Connection, shadow: Shadow) -> Table | None:
        if not downgrade:
            # A newer program may have replaced the table since.
            check_not_newer(connection, view.name, view.version)
        return shadow.swap_in(connection, to_text(clock()))

    shadow = Shadow(database, view, "rebuild")
    return _replay(database, shadow, "rebuild", begin, swap_in, progress=progress)


def _replay(
    database: Database,
    shadow: Shadow,
    mode: str,
    begin: Callable[[Shadow], None],
    finish: Callable[[Connection, Shadow], Table | None],
    *,
    progress: Progress,
) -> ReplayReport:
    """Fill a shadow table and compare it; ``finish`` uses it and returns the table to drop."""
    view = shadow.view
    with task_lock(database, f"{mode}-{view.name}") as alone:
        if not alone:
            message = f"a {mode} of {view.name} is already running: wait until it ends"
            raise RebuildRunning(message)
        started = perf_counter()
        begin(shadow)
        while not shadow.is_filled:
            shadow.fill_batch()
            progress(view.name, shadow.reached, shadow.position)
        for _ in _catch_up(database, shadow, progress):
            pass
        comparable = is_current(database, view)
        suspects: set[int] = set()
        touched: list[Recorded] = []
        if comparable:
            with database.read() as connection:
                lift_timeouts(connection)
                suspects = differing_positions(
                    connection, view.table, shadow.table, leave_out=_not_compared(database)
                )
            for recorded in _catch_up(database, shadow, progress):
                touched += recorded
        shadow.prepare_swap()
        end = _finish(database, shadow, suspects if comparable else None, touched, finish)
        if end.obsolete is not None:
            drop_table(database, end.obsolete)
        return ReplayReport(
            view=view.name,
            events=shadow.projected,
            position=shadow.position,
            differing=len(end.differences),
            differences=tuple(end.differences[:DIFFERENCES_SHOWN]),
            seconds=perf_counter() - started,
            locked_seconds=end.locked_seconds,
        )


class _Outcome(NamedTuple):
    """The result of the steps under the append lock."""

    differences: list[Difference]
    obsolete: Table | None
    locked_seconds: float


def _finish(
    database: Database,
    shadow: Shadow,
    suspects: set[int] | None,
    touched: Collection[Recorded],
    finish: Callable[[Connection, Shadow], Table | None],
) -> _Outcome:
    """Project the rest, compare the rows that may differ, and finish, all under the append lock.

    Args:
        suspects: positions of the rows to compare; ``None`` for no comparison.
        touched: events whose rows are compared as well.

    Raises:
        TableInUse: at every attempt, a reader held the tables for too long.
    """
    view = shadow.view

    def end() -> _Outcome:
        with database.append() as connection:
            locked = perf_counter()
            rest = shadow.project_rest(connection)
            differences = []
            if suspects is not None:
                wanted = suspects | _positions_touched(connection, [*touched, *rest])
                differences = [
                    *compare_rows(
                        connection,
                        view.table,
                        shadow.table,
                        wanted,
                        leave_out=_not_compared(database),
                    )
                ]
            obsolete = finish(connection, shadow)
        return _Outcome(differences, obsolete, perf_counter() - locked)

    for _ in range(_ATTEMPTS - 1):
        try:
            return end()
        except TableInUse:
            shadow.undo_rest()
        sleep(_PAUSE_SECONDS)
    return end()


def _not_compared(database: Database) -> frozenset[str]:
    """Return the columns that cannot be compared: without the secret, seals cannot be computed."""
    return frozenset() if database.seals.checks else frozenset({"seal"})


def _catch_up(
    database: Database, shadow: Shadow, progress: Progress
) -> Iterator[Sequence[Recorded]]:
    """Project batches and yield each, until one is not full."""
    while True:
        recorded = shadow.project_batch()
        with database.read() as connection:
            last = last_position(connection)
        progress(shadow.view.name, shadow.position, last)
        yield recorded
        if len(recorded) < BATCH:
            return


def _positions_touched(connection: Connection, recorded: Sequence[Recorded]) -> set[int]:
    """Return the positions of all rows that the events may have changed."""
    keys = {each.event.originator_id for each in recorded}
    return {
        *(each.position for each in recorded),
        *first_positions(connection, keys).values(),
    }


def is_current(database: Database, view: View) -> bool:
    """Return whether a view has a table of this version of the program."""
    with database.read() as connection:
        state = read_state(connection, view.name)
        # If someone dropped the table, it is built like one that never existed.
        there = inspect(connection).has_table(view.name)
    return there and state is not None and state.view_version == view.version
