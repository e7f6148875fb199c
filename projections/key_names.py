"""What keys are called, for pages that name several of them."""

from collections.abc import Collection

from sqlalchemy import Connection, select

from projections.key_list import table


def names_of_keys(
    connection: Connection, workspace: str, key_ids: Collection[str]
) -> dict[str, str]:
    """Return the names of those of the keys that a workspace has, by their ids."""
    rows = connection.execute(
        select(table.c.key_id, table.c.name).where(
            table.c.workspace == workspace, table.c.key_id.in_(key_ids)
        )
    )
    return {row.key_id: row.name for row in rows}
