"""The status of each projection."""

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
    """The status of a projection.

    Args:
        name: name of the projection.
        view_version: version of the code that fills its table; 0 if it was never built.
        position: position of the last event in its table.
        last_position: position of the newest event in the ledger.
        lag: number of events that are not in its table yet.
        rows: number of rows in its table.
        completed_at: time of its last rebuild.
        rebuild_position: position of the last event in the table of a rebuild that is running, or
            was interrupted and can be resumed; ``None`` if there is none.
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
        """Whether the table is of another version of the program; changes are then refused."""
        return self.view_version != view_named(self.name).version


def projection_status(database: Database) -> list[ProjectionStatus]:
    """Return the status of every projection, all from one transaction.

    Raises:
        LedgerUnavailable: the database did not answer.
        ProjectionInconsistent: a row of the states cannot be read.
    """
    with database.read() as connection:
        return [_status(connection, view) for view in VIEWS]


def _status(connection: Connection, view: View) -> ProjectionStatus:
    # If someone drops a view's table, its state remains.
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
    """Count events; the difference of positions would be wrong, because positions have gaps."""
    return connection.scalar(select(func.count()).where(events.c.id > after)) or 0
