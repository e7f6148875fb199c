"""Tiles, read by someone who knows only the specification."""

from collections.abc import Sequence
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.tlog.merkle import CompactRange, Node, hash_at, leaf_that_completes, root
from projections.tlog.tiles import EntryBundle, HashTile, parse_tile_path
from tests.domain.builders import PATIENT

SIZE = 70_000
"""The size of the specification's own example; it has tiles of three levels."""


class Log:
    """A log that answers paths with the bytes of tiles, as a server would."""

    def __init__(self, size: int) -> None:
        self.entries = [b"entry %d" % number for number in range(size)]
        growth = CompactRange(0, self.read)
        self.stored = [growth.append(entry) for entry in self.entries]
        self.root = growth.root()

    def read(self, nodes: Sequence[Node]) -> list[bytes]:
        return [hash_at(node[0], self.stored[leaf_that_completes(node)]) for node in nodes]

    def read_entries(self, start: int, end: int) -> list[bytes]:
        return self.entries[start:end]

    def get(self, path: str) -> bytes:
        tile = parse_tile_path(path)
        assert tile.is_in(len(self.entries)), "404"
        if isinstance(tile, HashTile):
            return tile.hashes(self.read)
        return tile.content(self.read_entries)


@pytest.fixture(scope="module")
def log() -> Log:
    return Log(SIZE)


def fetched(log: Log, level: str, hashes: int) -> list[bytes]:
    """Get all the tiles of a level, by the specification alone: full ones, then the partial one."""
    contents = []
    for number in range(-(-hashes // 256)):
        digits = f"{number:03}" if number < 1000 else f"x{number // 1000:03}/{number % 1000:03}"
        width = min(256, hashes - 256 * number)
        partial = "" if width == 256 else f".p/{width}"
        contents.append(log.get(f"/tile/{level}/{digits}{partial}"))
    return contents


def split(tile: bytes) -> list[bytes]:
    assert len(tile) % 32 == 0
    return [tile[at : at + 32] for at in range(0, len(tile), 32)]


def unbundled(bundle: bytes) -> list[bytes]:
    entries = []
    while bundle:
        length = bundle[0] << 8 | bundle[1]
        assert len(bundle) >= 2 + length
        entries.append(bundle[2 : 2 + length])
        bundle = bundle[2 + length :]
    return entries


def merkle_root(leaves: list[bytes]) -> bytes:
    """The definition of RFC 6962, section 2.1, over hashes in the place of leaves."""
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return sha256(b"\x01" + merkle_root(leaves[:k]) + merkle_root(leaves[k:])).digest()


def test_entries_and_tiles_give_the_root(log: Log) -> None:
    entries = [entry for bundle in fetched(log, "entries", SIZE) for entry in unbundled(bundle)]
    assert entries == log.entries
    leaves = [sha256(b"\x00" + entry).digest() for entry in entries]

    level_0 = fetched(log, "0", SIZE)
    level_1 = fetched(log, "1", SIZE // 256)
    level_2 = fetched(log, "2", SIZE // 256**2)

    assert (len(level_0), len(level_1), len(level_2)) == (274, 2, 1)
    assert [len(tiles[-1]) // 32 for tiles in (level_0, level_1, level_2)] == [112, 17, 1]
    assert [each for tile in level_0 for each in split(tile)] == leaves
    assert [each for tile in level_1 for each in split(tile)] == [
        merkle_root(split(tile)) for tile in level_0[:-1]
    ]
    assert level_2[0] == merkle_root(split(level_1[0]))
    # The root is over the partial tiles: what is in no full tile of the level below.
    right = merkle_root(split(level_0[-1]))
    right = sha256(
        b"\x01"
        + merkle_root(split(level_1[-1])[:16])
        + sha256(b"\x01" + split(level_1[-1])[16] + right).digest()
    ).digest()
    assert sha256(b"\x01" + level_2[0] + right).digest() == log.root == merkle_root(leaves)


@pytest.mark.parametrize(
    ("path", "in_the_tree"),
    [
        ("/tile/0/272", True),
        ("/tile/0/273", False),
        ("/tile/0/273.p/112", True),
        ("/tile/0/273.p/1", True),
        ("/tile/0/273.p/113", False),
        ("/tile/0/274.p/1", False),
        ("/tile/1/000", True),
        ("/tile/1/001.p/17", True),
        ("/tile/1/001.p/18", False),
        ("/tile/2/000.p/1", True),
        ("/tile/2/000.p/2", False),
        ("/tile/3/000.p/1", False),
        ("/tile/63/000.p/1", False),
        ("/tile/entries/273.p/112", True),
        ("/tile/entries/273.p/113", False),
        ("/tile/entries/273", False),
        ("/tile/entries/x001/000", False),
    ],
)
def test_a_tree_has_the_tiles_that_it_fills(path: str, *, in_the_tree: bool) -> None:
    assert parse_tile_path(path).is_in(SIZE) == in_the_tree


def test_a_tree_of_one_full_tile_has_one_hash_above(log: Log) -> None:
    assert parse_tile_path("/tile/0/000").is_in(256)
    assert parse_tile_path("/tile/1/000.p/1").is_in(256)
    assert not parse_tile_path("/tile/1/000.p/1").is_in(255)
    assert log.get("/tile/1/000.p/1") == root(256, log.read)


@pytest.mark.parametrize(
    ("path", "tile"),
    [
        ("/tile/0/000", HashTile(0, 0)),
        ("/tile/0/999.p/255", HashTile(0, 999, 255)),
        ("/tile/63/x001/x234/067", HashTile(63, 1234067)),
        ("/tile/entries/x001/234", EntryBundle(1234)),
        ("/tile/entries/x100/000.p/7", EntryBundle(100_000, 7)),
    ],
)
def test_a_path_names_its_tile(path: str, tile: HashTile | EntryBundle) -> None:
    assert parse_tile_path(path) == tile
    assert str(tile) == path


@PATIENT
@given(st.integers(0, 63), st.integers(0, 2**64), st.integers(1, 256))
def test_every_tile_has_one_path(level: int, index: int, width: int) -> None:
    for tile in (HashTile(level, index, width), EntryBundle(index, width)):
        assert parse_tile_path(str(tile)) == tile


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/tile/0/",
        "/tile/0/0",
        "/tile/0/00",
        "/tile/0/0000",
        "/tile/00/000",
        "/tile/64/000",
        "/tile/99/000",
        "/tile/100/000",
        "/tile/-1/000",
        "/tile/x/000",
        "/tile/0/x000",
        "/tile/0/x000/000",
        "/tile/0/x000/x001/234",
        "/tile/0/001/234",
        "/tile/0/x001/x234",
        "/tile/0/X001/234",
        "/tile/0/x1/234",
        "/tile/0/000.p",
        "/tile/0/000.p/",
        "/tile/0/000.p/0",
        "/tile/0/000.p/01",
        "/tile/0/000.p/256",
        "/tile/0/000.p/1000",
        "/tile/0/000.p/1/",
        "/tile/0/000\n",
        "/tile/0/\u0660\u0660\u0660",
        "/tile/\u0660/000",
        "/tile/0/" + "x001/" * 7 + "000",
        "/tile/Entries/000",
        "tile/0/000",
        "/log/tile/0/000",
    ],
)
def test_any_other_path_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"use /tile|levels go up"):
        parse_tile_path(path)


def test_an_entry_longer_than_65535_bytes_does_not_fit_into_a_bundle() -> None:
    bundle = EntryBundle(0, 1)

    assert bundle.content(lambda _start, _end: [b"n" * 65_535]) == b"\xff\xff" + b"n" * 65_535
    with pytest.raises(ValueError, match="at most 65535 bytes, not 65536"):
        bundle.content(lambda _start, _end: [b"n" * 65_536])
