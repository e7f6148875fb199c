"""The workspaces that have keys."""

from sqlalchemy import Connection, func, select

from projections.views.key_list import table


def list_workspaces(connection: Connection, *, limit: int) -> list[str]:
    """Return the names of the workspaces that have keys, in their order.

    Each name is found by the index after the one before, so that it does not matter how many keys
    there are.

    Args:
        limit: how many at most.
    """
    names: list[str] = []
    while len(names) < limit:
        after = table.c.workspace > names[-1] if names else table.c.workspace.is_not(None)
        name = connection.scalar(select(func.min(table.c.workspace)).where(after))
        if name is None:
            break
        names.append(name)
    return names
