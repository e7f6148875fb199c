"""How far each projection has come."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, inspect, select

from domain.times import from_text
from projections.rebuild.view_states import read_state
from projections.store.database import Database
from projections.store.events import last_position
from projections.store.schema import events
from projections.store.unreadable_rows import check_types, readable
from projections.views.registry import VIEWS, view_named
from projections.views.view import View


@dataclass(frozen=True, slots=True)
class ProjectionStatus:
    """How far one projection has come.

    Args:
        name: the projection's name.
        view_version: the version of the code that fills its table; 0 if it was never built.
        position: of the last event that is in its table.
        last_position: of the newest event in the ledger.
        lag: how many events are not in its table yet.
        rows: how many rows its table has.
        completed_at: when its table was last made anew.
        rebuild_position: of the last event in the table of a rebuild that is running, or was
            interrupted and can go on; ``None`` if there is none.
    """

    name: str
    view_version: int
    position: int
    last_position: int
    lag: int
    rows: int
    completed_at: datetime | None
    rebuild_position: int | None

    @property
    def is_of_another_version(self) -> bool:
        """Whether the table is of another version of the program; then changes are refused."""
        return self.view_version != view_named(self.name).version


def projection_status(database: Database) -> list[ProjectionStatus]:
    """Return how far each projection has come, all at one moment.

    Raises:
        LedgerUnavailable: the database cannot be asked.
        ProjectionInconsistent: a row of the states cannot be read.
    """
    with database.read() as connection:
        return [_status(connection, view) for view in VIEWS]


def _status(connection: Connection, view: View) -> ProjectionStatus:
    # Whoever drops a view's table leaves its state behind.
    there = inspect(connection).has_table(view.name)
    live = read_state(connection, view.name) if there else None
    rebuild = read_state(connection, f"{view.name}_rebuild")
    rows = 0 if live is None else _count_rows(connection, view)
    with readable("projection_states"):
        for state in filter(None, (live, rebuild)):
            check_types(state, int, "view_version", "generation", "position", "reached")
        completed_at = (
            None if live is None or live.completed_at is None else from_text(live.completed_at)
        )
    position = 0 if live is None else live.position
    return ProjectionStatus(
        name=view.name,
        view_version=0 if live is None else live.view_version,
        position=position,
        last_position=last_position(connection),
        lag=_count_events(connection, after=position),
        rows=rows,
        completed_at=completed_at,
        rebuild_position=None if rebuild is None else rebuild.reached,
    )


def _count_rows(connection: Connection, view: View) -> int:
    return connection.scalar(select(func.count()).select_from(view.table)) or 0


def _count_events(connection: Connection, *, after: int) -> int:
    """Count events instead of subtracting positions, which may have gaps."""
    return connection.scalar(select(func.count()).where(events.c.id > after)) or 0
