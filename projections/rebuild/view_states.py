"""How far the tables of views have been filled, live tables and shadow tables."""

from dataclasses import dataclass

from sqlalchemy import Connection, select

from domain.errors import LedgerUnavailable
from projections.store.schema import projection_states
from projections.store.unreadable_rows import check_types


@dataclass(frozen=True, slots=True)
class ViewState:
    """How far a view's table has been filled."""

    view_version: int
    generation: int
    position: int
    completed_at: str | None
    filled_to: int | None

    @property
    def reached(self) -> int:
        """The position reached so far, for display."""
        return self.position if self.filled_to is None else self.filled_to


def read_state(connection: Connection, table_name: str) -> ViewState | None:
    """Return the state of a live or shadow table; ``None`` if it has none that can be read.

    A table without a state is rebuilt when the ledger is opened, like a missing table.
    """
    row = connection.execute(
        select(
            projection_states.c.view_version,
            projection_states.c.generation,
            projection_states.c.position,
            projection_states.c.completed_at,
            projection_states.c.filled_to,
        ).where(projection_states.c.table_name == table_name)
    ).one_or_none()
    if row is None:
        return None
    try:
        check_types(row, int, "view_version", "generation", "position")
        check_types(row, str, "completed_at", or_none=True)
        check_types(row, int, "filled_to", or_none=True)
    except TypeError:
        return None
    return ViewState(*row)


def check_not_newer(connection: Connection, name: str, version: int) -> None:
    """Refuse to replace, or to compare with, a table that a newer version of the program made.

    Args:
        name: name of the view.
        version: version of the view in this program.

    Raises:
        LedgerUnavailable: the table is of a newer version.
    """
    state = read_state(connection, name)
    if state is not None and state.view_version > version:
        raise LedgerUnavailable(
            f"{name} is at version {state.view_version}, and this program has version {version}:"
            " a newer version of Keyledger uses this database. Run the newer version; or, to"
            " return all servers to this version, stop the others and run as the owner: keyledger"
            " projections downgrade"
        )
