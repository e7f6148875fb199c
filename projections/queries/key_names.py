"""The names of keys, for pages that show several of them."""

from collections.abc import Collection

from sqlalchemy import Connection, select

from domain.key_ids import to_uuid
from projections.store.events import first_positions
from projections.views.key_list import table


def names_of_keys(
    connection: Connection, workspace: str, key_ids: Collection[str]
) -> dict[str, str]:
    """Return the names of those of the keys that belong to a workspace, by id.

    Raises:
        KeyNotFound: one of the ids does not have the form of a key id.
    """
    positions = first_positions(connection, {to_uuid(key_id) for key_id in key_ids})
    rows = connection.execute(
        select(table.c.key_id, table.c.name).where(
            table.c.workspace == workspace, table.c.position.in_(positions.values())
        )
    )
    return {row.key_id: row.name for row in rows}
