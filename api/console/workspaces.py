"""The workspaces that a root key can switch to."""

from collections.abc import Sequence

from sqlalchemy import Connection

from api.console.visitors import Visitor
from projections.queries.workspaces import list_workspaces

_MOST = 200


def workspaces_for(connection: Connection, visitor: Visitor) -> Sequence[str]:
    """Return the names of the first workspaces; none for a key of an ordinary workspace."""
    return list_workspaces(connection, limit=_MOST) if visitor.requester.is_root else ()
