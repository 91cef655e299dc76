"""Hashing and the growing tree, against the published tree and the definition of RFC 6962."""

from __future__ import annotations

import hashlib

import pytest

from tests.watermark.log.samples import sample_entries, tree_of, vectors
from watermark.errors import LogFormatError, LogRangeError
from watermark.log import (
    EMPTY_ROOT,
    MAX_SIZE,
    CompactRange,
    MerkleTree,
    leaf_hash,
    leaf_hashes,
    node_hash,
    range_hash,
)

TREE = vectors("rfc6962")
LEAVES = [bytes.fromhex(leaf) for leaf in TREE["leaves"]]
ROOTS = [bytes.fromhex(root) for root in TREE["roots"]]


def defined_root(entries: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, word for word."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = 1
    while 2 * k < len(entries):
        k *= 2
    left, right = defined_root(entries[:k]), defined_root(entries[k:])
    return hashlib.sha256(b"\x01" + left + right).digest()


def test_the_published_tree() -> None:
    tree = tree_of(LEAVES)
    for level, row in enumerate(TREE["nodes"]):
        assert [tree.node(level, index).hex() for index in range(len(row))] == row
    assert [tree.root(size) for size in range(9)] == ROOTS
    assert tree.root() == ROOTS[8]
    assert ROOTS[0] == EMPTY_ROOT


def test_leaves_and_nodes_are_told_apart() -> None:
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert leaf_hash(left + right) != node_hash(left, right)


def test_one_by_one_or_many_at_once() -> None:
    entries = sample_entries(70)
    leaves = leaf_hashes(entries)
    single, appended = CompactRange(), MerkleTree()
    for size in range(71):
        assert single.size == appended.size == size
        expected = defined_root(entries[:size])
        assert single.root() == appended.root() == expected
        for cut in (0, size // 3, size):
            edge = CompactRange()
            edge.extend(leaves[:cut])
            edge.extend(leaves[cut:size])
            assert edge.root() == expected
        if size < 70:
            single.append(leaves[size])
            appended.append(leaves[size])
    for size in range(71):
        edge = CompactRange.of_nodes(appended, size)
        assert edge.root() == appended.root(size) == range_hash(appended, 0, size)
        edge.extend(leaves[size:])
        assert edge.root() == appended.root()


def test_extending_tells_the_nodes_that_became_complete() -> None:
    edge, tree = CompactRange(), MerkleTree()
    levels: list[list[bytes]] = []
    for count in (1, 1, 3, 0, 11, 20):
        leaves = leaf_hashes(sample_entries(count, edge.size))
        complete = edge.extend(leaves)
        tree.extend(leaves)
        levels += [[] for _ in range(len(complete) - len(levels))]
        for row, new in zip(levels, complete, strict=False):
            row.extend(new)
    assert [len(row) for row in levels] == [36, 18, 9, 4, 2, 1]
    for level, row in enumerate(levels):
        assert row == [tree.node(level, index) for index in range(len(row))]


def test_what_is_no_leaf_or_no_node_is_refused() -> None:
    tree, edge = tree_of(LEAVES), CompactRange()
    for bad in (b"", bytes(31), bytes(33)):
        with pytest.raises(LogFormatError, match="32"):
            edge.append(bad)
        with pytest.raises(LogFormatError, match="32"):
            tree.extend([leaf_hash(b""), bad])
    assert (edge.size, tree.size) == (0, 8)
    for level, index in ((-1, 0), (0, 8), (0, -1), (4, 0), (3, 1)):
        with pytest.raises(LogRangeError):
            tree.node(level, index)
    for size in (-1, 9):
        with pytest.raises(LogRangeError):
            tree.root(size)
    full = CompactRange()
    full.size = MAX_SIZE
    with pytest.raises(LogRangeError):
        full.extend([leaf_hash(b"")])
