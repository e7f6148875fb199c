"""Names of keys, for pages that mention several of them."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, select

from domain.key_ids import to_uuid
from projections.store.events import first_positions
from projections.views.key_list import table


@dataclass(frozen=True, slots=True)
class KeyName:
    """The name of a key, and what tells it apart from others of that name."""

    name: str
    prefix: str
    workspace: str


def names_of_keys(
    connection: Connection, workspace: str | None, key_ids: Collection[str]
) -> dict[str, KeyName]:
    """Return the names of keys, by their ids.

    Args:
        workspace: only keys of this one are returned; ``None`` returns those of all.

    Raises:
        KeyNotFound: no key can have one of these ids.
    """
    positions = first_positions(connection, {to_uuid(key_id) for key_id in key_ids})
    query = select(table.c.key_id, table.c.name, table.c.prefix, table.c.workspace).where(
        table.c.position.in_(positions.values())
    )
    if workspace is not None:
        query = query.where(table.c.workspace == workspace)
    return {
        row.key_id: KeyName(row.name, row.prefix, row.workspace)
        for row in connection.execute(query)
    }
