"""The workspaces that have keys, and how many."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select

from domain.times import to_text
from projections.views.key_list import table, will_expire


@dataclass(frozen=True, slots=True)
class WorkspaceSummary:
    """A workspace.

    Args:
        keys: the number of its keys, whatever their status.
        active_keys: the number of its active keys.
    """

    name: str
    keys: int
    active_keys: int


def list_workspaces(
    connection: Connection, *, after: str | None = None, limit: int | None = None
) -> list[str]:
    """Return the names of the workspaces that have keys, sorted by name.

    Each name is found in the index after the previous one, so the time does not depend on the
    number of keys.

    Args:
        after: return only names after this one.
        limit: the maximum number of names.
    """
    names: list[str] = []
    while limit is None or len(names) < limit:
        following = table.c.workspace.is_not(None) if after is None else table.c.workspace > after
        after = connection.scalar(select(func.min(table.c.workspace)).where(following))
        if after is None:
            break
        names.append(after)
    return names


def summarize_workspaces(
    connection: Connection, names: Sequence[str], *, now: datetime
) -> list[WorkspaceSummary]:
    """Return the workspaces with these names, in their order; the clock decides expiry."""
    in_them = table.c.workspace.in_(names)
    by_status = (
        select(table.c.workspace, table.c.status, func.count())
        .where(in_them)
        .group_by(table.c.workspace, table.c.status)
    )
    # Expired keys without an `Expired` event yet.
    overdue = (
        select(table.c.workspace, func.count())
        .where(in_them, will_expire, table.c.expires_at <= to_text(now))
        .group_by(table.c.workspace)
    )
    keys: Counter[str] = Counter()
    active: Counter[str] = Counter()
    for name, status, count in connection.execute(by_status).tuples():
        keys[name] += count
        if status == "active":
            active[name] += count
    for name, count in connection.execute(overdue).tuples():
        active[name] -= count
    return [WorkspaceSummary(name, keys[name], active[name]) for name in names]
