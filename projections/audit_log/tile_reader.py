"""Tiles and entry bundles of the stored tree."""

from sqlalchemy import Connection, select

from domain.errors import ProjectionInconsistent, TileNotFound
from projections.store.unreadable_rows import readable
from projections.tlog.tiles import HashTile, parse_tile_path
from projections.views.entries import reader, size_of, table


def read_tile(connection: Connection, path: str) -> bytes:
    """Return the content of a tile or a bundle.

    Args:
        path: its path, beginning with ``/tile/``.

    Raises:
        TileNotFound: the path is malformed, or the tree does not fill the tile yet.
        ProjectionInconsistent: the tree is damaged.
    """
    try:
        tile = parse_tile_path(path)
    except ValueError as error:
        raise TileNotFound(str(error)) from None
    size = size_of(connection)
    if not tile.is_in(size):
        raise TileNotFound(f"the tree has only {size} entries, which do not fill this tile yet")
    if isinstance(tile, HashTile):
        return tile.hashes(reader(connection))

    def read_entries(start: int, end: int) -> list[bytes]:
        found = connection.scalars(
            select(table.c.entry)
            .where(table.c.leaf_index >= start, table.c.leaf_index < end)
            .order_by(table.c.leaf_index)
        ).all()
        if len(found) != end - start:
            message = f"entries are missing between {start} and {end - 1}"
            raise ProjectionInconsistent(f"{message}: run keyledger audit verify")
        with readable(table.name):
            return [b"".join([entry]) for entry in found]

    return tile.content(read_entries)
