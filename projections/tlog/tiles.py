"""The tree and its entries as static files (C2SP ``tlog-tiles``).

A tile holds up to 256 hashes of one level of the tree; each tile level is eight levels above the
one below. A bundle holds up to 256 entries. Full tiles and bundles never change, so someone who
follows the log fetches each of them once, from any cache, and computes every proof locally.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from domain.public_event import MAX_ENTRY_LENGTH
from projections.tlog.merkle import Read

FULL_WIDTH = 256
_LEVELS_IN_A_TILE = 8

# Six elements before the last allow 10**21 tiles, more than 64-bit numbers can count.
_PATH = re.compile(
    r"/tile/(?P<level>entries|0|[1-9][0-9]?)/(?P<index>(?:x[0-9]{3}/){0,6}[0-9]{3})"
    r"(?:\.p/(?P<width>[1-9][0-9]{0,2}))?",
    re.ASCII,
)
_HIGHEST_LEVEL = 63

ReadEntries = Callable[[int, int], Sequence[bytes]]
"""Returns the entries from one leaf index up to another, which is excluded."""


@dataclass(frozen=True, slots=True)
class HashTile:
    """A tile of the tree.

    Args:
        level: level of the tile; its hashes are nodes of level ``8 * level`` of the tree.
        index: index of the tile within its level.
        width: number of hashes; 256 for a full tile.
    """

    level: int
    index: int
    width: int = FULL_WIDTH

    def __str__(self) -> str:
        """Return the path of the tile."""
        return _path(str(self.level), self.index, self.width)

    def is_in(self, size: int) -> bool:
        """Return whether a tree of ``size`` leaves has all hashes of the tile."""
        return self._end <= size >> _LEVELS_IN_A_TILE * self.level

    def hashes(self, read: Read) -> bytes:
        """Return the content of the tile, which must be in the tree."""
        level = _LEVELS_IN_A_TILE * self.level
        return b"".join(read([(level, at) for at in range(self._end - self.width, self._end)]))

    @property
    def _end(self) -> int:
        return FULL_WIDTH * self.index + self.width


@dataclass(frozen=True, slots=True)
class EntryBundle:
    """The entries whose leaf hashes are in a tile of level 0.

    Args:
        index, width: as for that tile.
    """

    index: int
    width: int = FULL_WIDTH

    def __str__(self) -> str:
        """Return the path of the bundle."""
        return _path("entries", self.index, self.width)

    def is_in(self, size: int) -> bool:
        """Return whether a tree of ``size`` leaves has all entries of the bundle."""
        return FULL_WIDTH * self.index + self.width <= size

    def content(self, read_entries: ReadEntries) -> bytes:
        """Return the content of the bundle, which must be in the log.

        Raises:
            ValueError: an entry is too long for the format; `entry_of` never makes such an entry.
        """
        start = FULL_WIDTH * self.index
        return b"".join(map(_with_length, read_entries(start, start + self.width)))


def parse_tile_path(path: str) -> HashTile | EntryBundle:
    """Parse the path of a tile or a bundle, beginning with ``/tile/``.

    Raises:
        ValueError: the path is malformed or not canonical.
    """
    match = _PATH.fullmatch(path)
    if match is None:
        message = (
            "not a tile: use /tile/LEVEL/INDEX or /tile/entries/INDEX, with an index such as"
            " x001/x234/067"
        )
        raise ValueError(message)
    index = int(match["index"].replace("/", "").replace("x", ""))
    width = FULL_WIDTH if match["width"] is None else int(match["width"])
    tile: HashTile | EntryBundle = (
        EntryBundle(index, width)
        if match["level"] == "entries"
        else HashTile(int(match["level"]), index, width)
    )
    if str(tile) != path or (isinstance(tile, HashTile) and tile.level > _HIGHEST_LEVEL):
        message = (
            f"levels go up to {_HIGHEST_LEVEL}, partial tiles to .p/{FULL_WIDTH - 1},"
            " and an index has no element more than it needs"
        )
        raise ValueError(message)
    return tile


def _path(level: str, index: int, width: int) -> str:
    digits = str(index)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    elements = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    spelled = "/".join([*(f"x{element}" for element in elements[:-1]), elements[-1]])
    partial = "" if width == FULL_WIDTH else f".p/{width}"
    return f"/tile/{level}/{spelled}{partial}"


def _with_length(entry: bytes) -> bytes:
    if len(entry) > MAX_ENTRY_LENGTH:
        message = f"a bundle holds entries of at most {MAX_ENTRY_LENGTH} bytes, not {len(entry)}"
        raise ValueError(message)
    return len(entry).to_bytes(2) + entry
