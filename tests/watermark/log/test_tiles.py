"""Paths, tiles and bundles, against the published ones."""

from __future__ import annotations

import pytest

from tests.watermark.log.samples import vectors
from watermark.errors import LogFormatError, LogRangeError
from watermark.log import (
    MAX_ENTRY_BYTES,
    Bundle,
    Tile,
    bundles_of,
    format_bundle,
    parse_bundle,
    parse_tile,
    parse_tile_path,
    tile_width,
    tiles_of,
)

VECTORS = vectors("tlog-tiles")


def test_the_published_paths() -> None:
    for case in VECTORS["paths"]:
        place = {"index": case["index"], "width": case["width"]}
        named = Bundle(**place) if case["level"] is None else Tile(level=case["level"], **place)
        assert named.path == case["path"]
        assert parse_tile_path(case["path"]) == named


@pytest.mark.parametrize("path", VECTORS["refused"])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(LogFormatError):
        parse_tile_path(path)


def test_the_published_tree_of_tiles() -> None:
    case = VECTORS["tree"]
    size = case["size"]
    full: dict[str, int] = {}
    partial: dict[str, int] = {}
    for tile in tiles_of(size):
        assert tile.width == tile_width(tile.level, tile.index, size)
        assert parse_tile_path(tile.path) == tile
        if tile.width == 256:
            full[str(tile.level)] = full.get(str(tile.level), 0) + 1
        else:
            partial[str(tile.level)] = tile.width
    assert full == case["full"]
    assert partial == case["partial"]
    bundles = list(bundles_of(size))
    assert (len(bundles), bundles[-1]) == (274, Bundle(index=273, width=112))
    assert [tile.path for tile in tiles_of(256)] == ["tile/0/000", "tile/1/000.p/1"]
    assert [bundle.path for bundle in bundles_of(256)] == ["tile/entries/000"]
    assert not list(tiles_of(0))
    assert not list(bundles_of(0))
    assert tile_width(0, 1, 256) == tile_width(5, 9, 70_000) == 0


def test_names_that_no_tile_has() -> None:
    for level, index, width in ((-1, 0, 1), (64, 0, 1), (0, -1, 1), (0, 10**18, 1), (0, 0, 0)):
        with pytest.raises(LogRangeError):
            Tile(level=level, index=index, width=width)
    with pytest.raises(LogRangeError):
        Bundle(index=0, width=257)


def test_bundles_round_trip() -> None:
    for entries in ([], [b""], [b"", b"a", bytes(300)], [bytes(MAX_ENTRY_BYTES)]):
        assert parse_bundle(format_bundle(entries), len(entries)) == entries
    assert format_bundle([b"", b"a"]).hex() == "0000000161"
    with pytest.raises(LogRangeError):
        format_bundle([bytes(MAX_ENTRY_BYTES + 1)])


def test_what_is_no_bundle_or_tile_is_refused() -> None:
    whole = format_bundle([b"", b"ab", b"c"])
    for length in range(len(whole)):
        with pytest.raises(LogFormatError):
            parse_bundle(whole[:length], 3)
    for data, width in ((whole, 2), (whole, 4), (whole + b"\0", 3), (whole + b"\0\0", 3)):
        with pytest.raises(LogFormatError):
            parse_bundle(data, width)
    assert parse_tile(bytes(64), 2) == [bytes(32), bytes(32)]
    for length in (0, 63, 65, 96):
        with pytest.raises(LogFormatError):
            parse_tile(bytes(length), 2)
