"""How many keys fit a filter, counted up to a limit."""

from datetime import datetime

from sqlalchemy import Connection, func, select

from domain.times import to_text
from projections.queries.filters import Filters, conditions, in_workspace
from projections.queries.keys_sorted import status_now
from projections.store.schema import last_uses
from projections.views.key_list import table


def count_keys(
    connection: Connection, workspace: str | None, filters: Filters, *, now: datetime, at_most: int
) -> int:
    """Return how many keys fit the filters.

    Args:
        workspace: only keys of this one; ``None`` counts those of all.
        at_most: where to stop, so that a large workspace costs no more than a small one.
    """
    fitting = select(table.c.position).where(
        *in_workspace(table, workspace),
        *conditions(filters, table, last_uses),
        *status_now(filters, to_text(now)),
    )
    counted = select(func.count()).select_from(fitting.limit(at_most).subquery())
    return connection.execute(counted).scalar_one()
