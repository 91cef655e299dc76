"""What a log needs of the place where it lies, and reading tiles from it.

Source: c2sp.org/tlog-tiles (which tile may be asked for, and the full tile as a fallback).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Protocol

from watermark.errors import LogFormatError, LogRangeError, LogStorageError
from watermark.log.hashing import HASH_BYTES, parents
from watermark.log.tiles import (
    MAX_ENTRY_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    Bundle,
    Tile,
    parse_bundle,
    parse_tile,
    tile_width,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

CACHED_TILES: Final = 512  # of at most 511 hashes each: some 20 MB
_MAX_FILE_BYTES: Final = TILE_WIDTH * (2 + MAX_ENTRY_BYTES)  # the largest bundle


class Storage(Protocol):
    """Files by path, such as `tile/0/x001/234`.

    `write` takes effect whole or not at all, is durable when it returns, and replaces what was
    there. One process at a time writes a log: the caller holds a lock for that.
    """

    def read(self, path: str) -> bytes | None:
        """Return what is stored at `path`, None where there is nothing."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Store `data` at `path`."""
        ...


class MemoryStorage:
    """Storage in a dictionary, for logs that need not outlive the process.

    Attributes:
        files: What is stored, by path.
    """

    __slots__ = ("files",)

    def __init__(self) -> None:
        """Start with nothing stored."""
        self.files: dict[str, bytes] = {}

    def read(self, path: str) -> bytes | None:
        """Return what is stored at `path`, None where there is nothing."""
        return self.files.get(path)

    def write(self, path: str, data: bytes) -> None:
        """Store `data` at `path`."""
        self.files[path] = data


def read_bundle(storage: Storage, index: int, size: int) -> list[bytes]:
    """Return the entries of one bundle of a log of `size` entries; nothing vouches for them yet.

    Raises:
        LogStorageError: It is missing or damaged.
    """
    bundle = Bundle(index=index, width=tile_width(0, index, size))
    data = storage.read(bundle.path)
    try:
        if data is not None or bundle.width == TILE_WIDTH:
            return parse_bundle(_present(data, bundle.path), bundle.width)
        full = Bundle(index=index).path
        return parse_bundle(_present(storage.read(full), bundle.path), TILE_WIDTH)[: bundle.width]
    except LogFormatError as err:
        raise LogStorageError(f"{bundle.path} is damaged: {err}; restore it") from err


class TileNodes:
    """The nodes of a stored tree of one size; nothing vouches for them before a proof does.

    Args:
        storage: Where the tiles lie.
        size: Leaves of the tree.
    """

    __slots__ = ("_cache", "_size", "_storage")

    def __init__(self, storage: Storage, size: int) -> None:
        self._storage = storage
        self._size = size
        self._cache: OrderedDict[tuple[int, int], list[list[bytes]]] = OrderedDict()

    def node(self, level: int, index: int) -> bytes:
        """Return the root of the leaves `index * 2**level` to `(index + 1) * 2**level`.

        Raises:
            LogRangeError: The tree has no such complete subtree.
            LogStorageError: Its tile is missing or damaged.
        """
        if not (level >= 0 and 0 <= index < self._size >> level):
            raise LogRangeError(f"the tree of {self._size} leaves has no node {index} on {level=}")
        tile_level, height = divmod(level, TILE_HEIGHT)
        tile_index, place = divmod(index << height, TILE_WIDTH)
        return self._pyramid(tile_level, tile_index)[height][place >> height]

    def hashes(self, level: int, index: int) -> list[bytes]:
        """Return the hashes of one tile, as many as it has in this tree.

        Raises:
            LogRangeError: The tree has no such tile.
            LogStorageError: The tile is missing or damaged.
        """
        return list(self._pyramid(level, index)[0])

    def over_tile(self, level: int, index: int) -> bytes:
        """Return the root over one full tile, from its own hashes.

        Raises:
            LogRangeError: The tree has no such full tile.
            LogStorageError: The tile is missing or damaged.
        """
        if tile_width(level, index, self._size) != TILE_WIDTH:
            raise LogRangeError(
                f"the tree of {self._size} leaves has no full tile {index}, {level=}"
            )
        return self._pyramid(level, index)[TILE_HEIGHT][0]

    def _pyramid(self, level: int, index: int) -> list[list[bytes]]:
        """Return the hashes of a tile and the levels between it and the tile above."""
        key = (level, index)
        rows = self._cache.get(key)
        if rows is None:
            rows = list(_rows(self._load(level, index)))
            self._cache[key] = rows
            if len(self._cache) > CACHED_TILES:
                self._cache.popitem(last=False)
        else:
            self._cache.move_to_end(key)
        return rows

    def _load(self, level: int, index: int) -> list[bytes]:
        """Read the hashes of a tile, from the full tile where the partial one is gone."""
        tile = Tile(level=level, index=index, width=tile_width(level, index, self._size))
        data = self._storage.read(tile.path)
        if data is None and tile.width < TILE_WIDTH:
            full = self._storage.read(Tile(level=level, index=index).path)
            data = full and full[: tile.width * HASH_BYTES]
        try:
            return parse_tile(_present(data, tile.path), tile.width)
        except LogFormatError as err:
            raise LogStorageError(f"{tile.path} is damaged: {err}; restore it") from err


def _rows(hashes: list[bytes]) -> Iterator[list[bytes]]:
    """Yield the hashes of a tile and the complete nodes above them, up to its one root."""
    row = hashes
    for _ in range(TILE_HEIGHT + 1):
        yield row
        row = parents(row)


def _present(data: bytes | None, path: str) -> bytes:
    """Return `data` if it is there and not larger than any tile or bundle."""
    if data is None:
        raise LogStorageError(f"{path} is missing; restore it")
    if len(data) > _MAX_FILE_BYTES:
        raise LogStorageError(f"{path} is larger than any tile or bundle; restore it")
    return data
