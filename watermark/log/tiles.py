"""Tiles and entry bundles: how a log lies in storage, as files that never change.

A tile holds up to 256 consecutive hashes of every eighth level of the tree; a bundle holds the
entries below one tile of level 0. The last of each level are partial and carry their width in
their path, until they are full.

Source: c2sp.org/tlog-tiles.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from watermark.errors import LogFormatError, LogRangeError
from watermark.log.hashing import HASH_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

TILE_HEIGHT: Final = 8
TILE_WIDTH: Final = 1 << TILE_HEIGHT
MAX_ENTRY_BYTES: Final = 2**16 - 1  # a bundle writes lengths in two bytes
MAX_TILE_LEVEL: Final = 63
CHECKPOINT_PATH: Final = "checkpoint"

_LENGTH_BYTES: Final = 2
_GROUP: Final = 1000
_MAX_INDEX: Final = 10**18 - 1  # six groups of three digits; a tree of 2^63 leaves has fewer tiles
_PATH: Final = re.compile(
    r"tile/(?P<level>entries|0|[1-9][0-9]?)/"
    r"(?P<index>(?:x[0-9]{3}/){0,5}[0-9]{3})"
    r"(?:\.p/(?P<width>[1-9][0-9]{0,2}))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """The name of one tile of hashes.

    Attributes:
        level: 0 for leaf hashes; each level above covers 256 times as many leaves.
        index: Its place in the level, from 0.
        width: Hashes in it, 1 to 256.

    Raises:
        LogRangeError: No tile has that name.
    """

    level: int
    index: int
    width: int = TILE_WIDTH

    def __post_init__(self) -> None:
        if not 0 <= self.level <= MAX_TILE_LEVEL:
            raise LogRangeError(f"a tile's level is 0 to {MAX_TILE_LEVEL}, not {self.level}")
        _check_place(self.index, self.width)

    @property
    def path(self) -> str:
        """Where it is stored."""
        return f"tile/{self.level}/{_index_path(self.index)}{_width_suffix(self.width)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """The name of one bundle of entries.

    Attributes:
        index: Its place, from 0; it holds the entries from `index * 256`.
        width: Entries in it, 1 to 256.

    Raises:
        LogRangeError: No bundle has that name.
    """

    index: int
    width: int = TILE_WIDTH

    def __post_init__(self) -> None:
        _check_place(self.index, self.width)

    @property
    def path(self) -> str:
        """Where it is stored."""
        return f"tile/entries/{_index_path(self.index)}{_width_suffix(self.width)}"


def parse_tile_path(path: str) -> Tile | Bundle:
    """Return the tile or bundle that a path names.

    Raises:
        LogFormatError: It names neither.
    """
    found = _PATH.fullmatch(path)
    if found is None:
        raise LogFormatError(
            "a path is tile/LEVEL/INDEX or tile/entries/INDEX, maybe with .p/WIDTH"
        )
    index = int(found["index"].replace("x", "").replace("/", ""))
    width = int(found["width"] or TILE_WIDTH)
    if found["width"] and width == TILE_WIDTH:
        raise LogFormatError("a full tile has no width in its path")
    try:
        tile = (
            Bundle(index=index, width=width)
            if found["level"] == "entries"
            else Tile(level=int(found["level"]), index=index, width=width)
        )
    except LogRangeError as err:
        raise LogFormatError(f"a path names no tile: {err}") from err
    if tile.path != path:  # groups of zeros in front
        raise LogFormatError("a tile's index has groups of zeros in front")
    return tile


def tile_width(level: int, index: int, size: int) -> int:
    """Return the width that a tile has in a tree of `size` leaves, 0 where it does not exist."""
    return max(0, min(TILE_WIDTH, (size >> TILE_HEIGHT * level) - index * TILE_WIDTH))


def tiles_of(size: int) -> Iterator[Tile]:
    """Yield every tile of a tree of `size` leaves, level by level from the leaves."""
    for level in range(MAX_TILE_LEVEL + 1):
        hashes = size >> TILE_HEIGHT * level
        if not hashes:
            return
        for index in range(hashes >> TILE_HEIGHT):
            yield Tile(level=level, index=index)
        if hashes % TILE_WIDTH:
            yield Tile(level=level, index=hashes >> TILE_HEIGHT, width=hashes % TILE_WIDTH)


def bundles_of(size: int) -> Iterator[Bundle]:
    """Yield every bundle of a log of `size` entries."""
    for index in range(size >> TILE_HEIGHT):
        yield Bundle(index=index)
    if size % TILE_WIDTH:
        yield Bundle(index=size >> TILE_HEIGHT, width=size % TILE_WIDTH)


def parse_tile(data: bytes, width: int) -> list[bytes]:
    """Return the hashes of a tile.

    Args:
        data: The stored bytes.
        width: Hashes that it must hold.

    Returns:
        `width` hashes.

    Raises:
        LogFormatError: It has another length.
    """
    if len(data) != width * HASH_BYTES:
        raise LogFormatError(f"a tile of {width} hashes has {width * HASH_BYTES} bytes")
    return [data[start : start + HASH_BYTES] for start in range(0, len(data), HASH_BYTES)]


def check_entry(entry: bytes) -> bytes:
    """Return `entry` if a log can hold it.

    Raises:
        LogRangeError: It is too long.
    """
    if len(entry) > MAX_ENTRY_BYTES:
        raise LogRangeError(
            f"an entry has {len(entry)} bytes, at most {MAX_ENTRY_BYTES} fit; log its digest"
        )
    return entry


def format_bundle(entries: Iterable[bytes]) -> bytes:
    """Return entries as a bundle, each after its length in two bytes.

    Raises:
        LogRangeError: An entry is too long.
    """
    parts: list[bytes] = []
    for entry in entries:
        parts += (len(check_entry(entry)).to_bytes(_LENGTH_BYTES, "big"), entry)
    return b"".join(parts)


def parse_bundle(data: bytes, width: int) -> list[bytes]:
    """Return the entries of a bundle.

    Args:
        data: The stored bytes.
        width: Entries that it must hold.

    Returns:
        `width` entries.

    Raises:
        LogFormatError: It holds more, fewer, or a part of one.
    """
    entries: list[bytes] = []
    place = 0
    while place < len(data) and len(entries) < width:
        begin = place + _LENGTH_BYTES
        place = begin + int.from_bytes(data[place:begin], "big")
        entries.append(data[begin:place])
    if place != len(data) or len(entries) != width:
        raise LogFormatError(f"a bundle does not hold {width} whole entries and nothing else")
    return entries


def join_hashes(hashes: Sequence[bytes]) -> bytes:
    """Return hashes as a tile."""
    return b"".join(hashes)


def _check_place(index: int, width: int) -> None:
    """Refuse an index or a width that no tile has."""
    if not 0 <= index <= _MAX_INDEX:
        raise LogRangeError(f"a tile's index is 0 to {_MAX_INDEX}, not {index}")
    if not 1 <= width <= TILE_WIDTH:
        raise LogRangeError(f"a tile's width is 1 to {TILE_WIDTH}, not {width}")


def _index_path(index: int) -> str:
    """Return an index in groups of three digits, all but the last after an x."""
    path = f"{index % _GROUP:03}"
    while index := index // _GROUP:
        path = f"x{index % _GROUP:03}/{path}"
    return path


def _width_suffix(width: int) -> str:
    """Return what a partial tile's path ends in."""
    return "" if width == TILE_WIDTH else f".p/{width}"
