"""Making views anew from the events, and checking live ones against the events.

A rebuild fills a shadow table in batches, first key by key, then with what was appended since, and
can go on where a killed one stopped. Then it takes
the append lock for a moment: it projects what was appended meanwhile, and the shadow becomes the
live table. Whoever reads sees the old table or the new one, whole.

Comparing a million rows takes too long to hold a lock for. So the two tables are compared before
it is taken, while events still arrive; the few rows that differ then, and those that events have
touched since, are compared again under the lock.
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
    purpose_of_role,
    take_as_long_as_needed,
)
from projections.store.events import Recorded, first_positions, last_position
from projections.store.locks import exclusively
from projections.store.postgresql_locks import ReadersInTheWay
from projections.views.view import View

Clock = Callable[[], datetime]
"""Gives the time; in production the machine's, in UTC."""

Progress = Callable[[str, int, int], None]
"""Told after each batch the view's name, which position is done, and which is the last."""

DIFFERENCES_SHOWN = 1000
_LOOK_AGAIN_SECONDS = 0.05
_ATTEMPTS = 300
_PAUSE_SECONDS = 1.0


def ignore_progress(_view: str, _done: int, _last: int) -> None:
    """Show nothing."""


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What a rebuild or a check did.

    Args:
        view: the view's name.
        events: how many events were projected; fewer than there are if a run was resumed.
        position: the last of them.
        differing: how many rows of the live table were not what the events say.
        differences: the first `DIFFERENCES_SHOWN` of them.
        seconds: how long it all took.
        locked_seconds: for how long of that the append lock was held at the end.
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
        downgrade: whether it may replace a table of a newer version of the program.

    Raises:
        NotOwner: only the owner of the tables may put another one in a table's place.
        LedgerUnavailable: the database cannot be asked, or the table is of a newer version of the
            program.
    """
    with database.read() as connection:
        check_owner(connection, f"keyledger projections rebuild {view.name}")
        if not downgrade:
            check_not_newer(connection, view.name, view.version)


def rebuild(
    database: Database, view: View, *, clock: Clock, progress: Progress = ignore_progress
) -> ReplayReport:
    """Make a view's table anew, and put it in the live one's place.

    A live table of another version of the view is kept beside it, up to the next rebuild.

    Raises:
        NotOwner: only the owner of the tables may do it.
        RebuildRunning: somebody is at it already.
        PoisonEvent: an event cannot be projected. The live table stays, and goes on being kept up
            to date; when the event's trouble is mended, the same call goes on from there.
        LedgerUnavailable: the database cannot be asked; the same call goes on later. Or the table
            is of a newer version of the program.
    """
    return _rebuild(database, view, clock, progress, _begin_from_the_events)


def check(database: Database, view: View, *, progress: Progress = ignore_progress) -> ReplayReport:
    """Compare a view's live table with one made from the events, which is thrown away again.

    Raises:
        RebuildRunning: somebody is checking this view already.
        PoisonEvent: an event cannot be projected.
        LedgerUnavailable: the database cannot be asked, or the table is of a newer version of the
            program.
    """

    def begin(shadow: Shadow) -> None:
        shadow.begin(resume=False)

    def stay_aside(_connection: Connection, shadow: Shadow) -> Table:
        return shadow.table

    # What it makes is thrown away again, and it must not hold the append lock for a standby.
    database = database.without_standby()
    with database.read() as connection:
        check_not_newer(connection, view.name, view.version)
        # What a check of another role has left, when it was killed, cannot be dropped by this one.
        shadow = Shadow(database, view, purpose_of_role(connection, "check"))
    return _replay(database, shadow, "check", begin, stay_aside, progress=progress)


def build_outdated_views(
    database: Database,
    views: Sequence[View],
    *,
    clock: Clock,
    progress: Progress = ignore_progress,
    downgrade: bool = False,
) -> list[ReplayReport]:
    """Build each view that has no table yet, or one of another version of the program.

    If the table of this version was kept when that of the other one took its place, it becomes the
    live one again, and is projected only what was appended since.

    Several processes may do it at the same time: the first does the work, the others wait for it.

    Args:
        downgrade: whether to replace tables of a newer version of the program too, after which
            servers of the newer version can change nothing.

    Raises:
        NotOwner, PoisonEvent, LedgerUnavailable: as for `rebuild`. Where one of the tables is of a
            newer version of the program, none is built.
    """
    if not downgrade:
        with database.read() as connection:
            for view in views:
                check_not_newer(connection, view.name, view.version)
    begin = _begin_from_what_was_kept
    reports = []
    for view in views:
        while not is_current(database, view):
            try:
                reports.append(
                    _rebuild(database, view, clock, progress, begin, downgrade=downgrade)
                )
            except RebuildRunning:
                sleep(_LOOK_AGAIN_SECONDS)
    return reports


def _begin_from_the_events(shadow: Shadow) -> None:
    shadow.drop_previous()
    shadow.begin(resume=True)


def _begin_from_what_was_kept(shadow: Shadow) -> None:
    shadow.take_back()
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

    def take_over(connection: Connection, shadow: Shadow) -> Table | None:
        if not downgrade:
            # A newer program may have replaced the table meanwhile.
            check_not_newer(connection, view.name, view.version)
        return shadow.take_over(connection, to_text(clock()))

    shadow = Shadow(database, view, "rebuild")
    return _replay(database, shadow, "rebuild", begin, take_over, progress=progress)


def _replay(
    database: Database,
    shadow: Shadow,
    purpose: str,
    begin: Callable[[Shadow], None],
    finish: Callable[[Connection, Shadow], Table | None],
    *,
    progress: Progress,
) -> ReplayReport:
    """Fill a shadow table and compare it; ``finish`` uses it and says which table to drop."""
    view = shadow.view
    with exclusively(database, f"{purpose}-{view.name}") as alone:
        if not alone:
            message = f"a {purpose} of {view.name} is running already; wait for it to end"
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
                take_as_long_as_needed(connection)
                suspects = differing_positions(
                    connection, view.table, shadow.table, leave_out=_not_compared(database)
                )
            for recorded in _catch_up(database, shadow, progress):
                touched += recorded
        shadow.settle()
        end = _end(database, shadow, suspects if comparable else None, touched, finish)
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


class _End(NamedTuple):
    """What came of the time under the append lock."""

    differences: list[Difference]
    obsolete: Table | None
    locked_seconds: float


def _end(
    database: Database,
    shadow: Shadow,
    suspects: set[int] | None,
    touched: Collection[Recorded],
    finish: Callable[[Connection, Shadow], Table | None],
) -> _End:
    """Project the rest, compare what may differ, and finish, all under the append lock.

    Args:
        suspects: the positions of rows to be compared; ``None`` for no comparison.
        touched: events whose rows are to be compared as well.

    Raises:
        ReadersInTheWay: somebody has gone on reading, however often it was tried.
    """
    view = shadow.view

    def end() -> _End:
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
        return _End(differences, obsolete, perf_counter() - locked)

    for _ in range(_ATTEMPTS - 1):
        try:
            return end()
        except ReadersInTheWay:
            shadow.forget_rest()
        sleep(_PAUSE_SECONDS)
    return end()


def _not_compared(database: Database) -> frozenset[str]:
    """Return the columns that cannot be compared: without the secret, no seal can be made."""
    return frozenset() if database.seals.checks else frozenset({"seal"})


def _catch_up(
    database: Database, shadow: Shadow, progress: Progress
) -> Iterator[Sequence[Recorded]]:
    """Project batches until one is not full; yield each."""
    while True:
        recorded = shadow.project_batch()
        with database.read() as connection:
            last = last_position(connection)
        progress(shadow.view.name, shadow.position, last)
        yield recorded
        if len(recorded) < BATCH:
            return


def _positions_touched(connection: Connection, recorded: Sequence[Recorded]) -> set[int]:
    """Return the positions of all rows that events may have changed."""
    keys = {each.event.originator_id for each in recorded}
    return {
        *(each.position for each in recorded),
        *first_positions(connection, keys).values(),
    }


def is_current(database: Database, view: View) -> bool:
    """Tell whether a view has a table, and of this version of the program."""
    with database.read() as connection:
        state = read_state(connection, view.name)
        # A table that somebody dropped is made anew like one that never was.
        there = inspect(connection).has_table(view.name)
    return there and state is not None and state.view_version == view.version
