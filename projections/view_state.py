"""How far the tables of views have come, live ones and shadows."""

from dataclasses import dataclass

from sqlalchemy import Connection, select

from projections.schema import projection_states


@dataclass(frozen=True, slots=True)
class ViewState:
    """How far a view's table has come."""

    view_version: int
    generation: int
    position: int
    completed_at: str | None
    filled_to: int | None

    @property
    def reached(self) -> int:
        """The position that it has reached, for people who wait."""
        return self.position if self.filled_to is None else self.filled_to


def read_state(connection: Connection, table_name: str) -> ViewState | None:
    """Return the state of a table, live or shadow; ``None`` if it has none."""
    row = connection.execute(
        select(
            projection_states.c.view_version,
            projection_states.c.generation,
            projection_states.c.position,
            projection_states.c.completed_at,
            projection_states.c.filled_to,
        ).where(projection_states.c.table_name == table_name)
    ).one_or_none()
    return None if row is None else ViewState(*row)
