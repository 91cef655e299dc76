"""A Merkle tree that grows at its right edge.

:class:`CompactRange` remembers the right edge only, one hash for each bit of the size;
:class:`MerkleTree` remembers every node and so can prove. Both grow by one leaf or by many.

    >>> from watermark.log import MerkleTree, inclusion_proof, leaf_hash, verify_inclusion
    >>> tree = MerkleTree()
    >>> tree.extend([leaf_hash(b"a"), leaf_hash(b"b"), leaf_hash(b"c")])
    >>> proof = inclusion_proof(tree, 1, tree.size)
    >>> verify_inclusion(leaf_hash(b"b"), 1, tree.size, proof, tree.root()).index
    1

Source: RFC 6962, section 2.1 (the tree); RFC 9162, section 2.1.2 (growing it by its right edge).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from watermark.errors import LogFormatError, LogRangeError
from watermark.log.hashing import HASH_BYTES, fold_peaks, node_hash, parents

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_SIZE: Final = 2**63 - 1
"""Leaves that a tree may have: sizes travel as signed 64-bit numbers in other implementations."""


class Nodes(Protocol):
    """Where the complete subtrees of one tree can be looked up."""

    def node(self, level: int, index: int) -> bytes:
        """Return the root of the leaves `index * 2**level` to `(index + 1) * 2**level`."""
        ...


def check_hash(value: bytes, what: str) -> bytes:
    """Return `value` if it has the length of a hash.

    Args:
        value: The bytes.
        what: What they stand for, for the message.

    Returns:
        `value`.

    Raises:
        LogFormatError: They are not 32 bytes.
    """
    if len(value) != HASH_BYTES:
        raise LogFormatError(f"{what} has {len(value)} bytes; a hash has {HASH_BYTES}")
    return value


def range_hash(nodes: Nodes, start: int, end: int) -> bytes:
    """Return the root over the leaves `start` to `end` (exclusive), which need not be complete.

    Args:
        nodes: Where complete subtrees are looked up.
        start: First leaf; a multiple of the power of two that is at least `end - start`.
        end: The leaf after the last.

    Returns:
        The root; `EMPTY_ROOT` for no leaf.
    """
    peaks: list[bytes] = []
    rest = end - start
    while rest:
        level = (rest & -rest).bit_length() - 1
        rest -= 1 << level
        peaks.append(nodes.node(level, (start + rest) >> level))
    return fold_peaks(peaks)


class CompactRange:
    """The right edge of a tree: enough to grow it and to know its root.

    Attributes:
        size: Leaves so far.
    """

    __slots__ = ("_peaks", "size")

    def __init__(self) -> None:
        """Start with no leaf."""
        self.size = 0
        # By level; valid where the bit of `size` is set, and left behind elsewhere.
        self._peaks: list[bytes] = []

    @classmethod
    def of_nodes(cls, nodes: Nodes, size: int) -> CompactRange:
        """Return the right edge of an existing tree.

        Args:
            nodes: Where its complete subtrees are looked up.
            size: Its leaves.

        Returns:
            The edge, ready to grow.
        """
        edge = cls()
        edge.size = size
        edge._peaks = [
            nodes.node(level, (size >> level) - 1) if size >> level & 1 else b""
            for level in range(size.bit_length())
        ]
        return edge

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash.

        Args:
            leaf: The hash of the entry, 32 bytes.

        Raises:
            LogFormatError: It is not 32 bytes.
        """
        carried = check_hash(leaf, "a leaf")
        level = 0
        while self.size >> level & 1:
            carried = node_hash(self._peaks[level], carried)
            level += 1
        if level == len(self._peaks):
            self._peaks.append(carried)
        else:
            self._peaks[level] = carried
        self.size += 1

    def extend(self, leaves: Sequence[bytes]) -> list[list[bytes]]:
        """Add many leaf hashes.

        Args:
            leaves: The hashes of the entries, 32 bytes each.

        Returns:
            The nodes that became complete, by level; level 0 is `leaves`.

        Raises:
            LogFormatError: One is not 32 bytes; nothing was added.
            LogRangeError: The tree would be too large; nothing was added.
        """
        for leaf in leaves:
            if len(leaf) != HASH_BYTES:
                check_hash(leaf, "a leaf")
        if self.size + len(leaves) > MAX_SIZE:
            raise LogRangeError(f"a tree has at most {MAX_SIZE} leaves; begin another log")
        complete: list[list[bytes]] = []
        new, level = list(leaves), 0
        while new:
            complete.append(new)
            row = [self._peaks[level], *new] if self.size >> level & 1 else new
            if level == len(self._peaks):
                self._peaks.append(row[-1])
            elif len(row) % 2:
                self._peaks[level] = row[-1]
            new, level = parents(row), level + 1
        self.size += len(leaves)
        return complete

    def root(self) -> bytes:
        """Return the root over all leaves, `EMPTY_ROOT` where there are none."""
        return fold_peaks(peak for level, peak in enumerate(self._peaks) if self.size >> level & 1)


class MerkleTree:
    """A tree with all its nodes in memory, two hashes for each leaf.

    For trees whose entries do not come from a stored log: see `Log` and `LogReader` for those.
    """

    __slots__ = ("_edge", "_levels")

    def __init__(self) -> None:
        """Start with no leaf."""
        self._edge = CompactRange()
        self._levels: list[list[bytes]] = []

    @property
    def size(self) -> int:
        """Leaves so far."""
        return self._edge.size

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash of 32 bytes.

        Raises:
            LogFormatError: It is not 32 bytes.
        """
        self.extend((leaf,))

    def extend(self, leaves: Sequence[bytes]) -> None:
        """Add many leaf hashes of 32 bytes.

        Raises:
            LogFormatError: One is not 32 bytes; nothing was added.
            LogRangeError: The tree would be too large; nothing was added.
        """
        complete = self._edge.extend(leaves)
        self._levels.extend([] for _ in range(len(complete) - len(self._levels)))
        for row, new in zip(self._levels, complete, strict=False):
            row.extend(new)

    def node(self, level: int, index: int) -> bytes:
        """Return the root of the leaves `index * 2**level` to `(index + 1) * 2**level`.

        Raises:
            LogRangeError: The tree has no such complete subtree.
        """
        if not (0 <= level < len(self._levels) and 0 <= index < len(self._levels[level])):
            raise LogRangeError(f"the tree of {self.size} leaves has no node {index} on {level=}")
        return self._levels[level][index]

    def root(self, size: int | None = None) -> bytes:
        """Return the root over the first `size` leaves.

        Args:
            size: Leaves counted, 0 to `self.size`; all of them where it is not given.

        Returns:
            The root, 32 bytes.

        Raises:
            LogRangeError: The tree never had that size.
        """
        if size is None:
            return self._edge.root()
        if not 0 <= size <= self.size:
            raise LogRangeError(f"the tree has {self.size} leaves; there is no root of {size}")
        return range_hash(self, 0, size)
