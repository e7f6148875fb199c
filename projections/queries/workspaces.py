"""The workspaces that have keys."""

from sqlalchemy import Connection, func, select

from projections.views.key_list import table


def list_workspaces(connection: Connection, *, limit: int) -> list[str]:
    """Return the names of the workspaces that have keys, sorted.

    Each name is found by index from the previous one, so the time does not depend on the number of
    keys.

    Args:
        limit: maximum number of names.
    """
    names: list[str] = []
    while len(names) < limit:
        after = table.c.workspace > names[-1] if names else table.c.workspace.is_not(None)
        name = connection.scalar(select(func.min(table.c.workspace)).where(after))
        if name is None:
            break
        names.append(name)
    return names
