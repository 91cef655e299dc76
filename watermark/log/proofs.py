"""Inclusion and consistency proofs: made from stored nodes, checked from nothing but hashes.

Rule 1: what makes a proof and what checks it share no code beyond the hash of a node: the first
walks down the recursive definition, the second up the bits of the index. Rule 2: checking returns
a value that says what was shown, or raises; there is no boolean that can be forgotten.

Source: RFC 6962, sections 2.1.1 and 2.1.2 (making); RFC 9162, sections 2.1.3.2 and 2.1.4.2
(checking).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from watermark.errors import LogRangeError, LogVerificationError
from watermark.log.hashing import EMPTY_ROOT, node_hash
from watermark.log.tree import MAX_SIZE, Nodes, check_hash, range_hash

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedInclusion:
    """Shown: the tree of this size and root has this leaf at this index.

    Attributes:
        leaf: The leaf hash.
        index: Its place, from 0.
        size: Leaves of the tree.
        root: Root of the tree.
    """

    leaf: bytes
    index: int
    size: int
    root: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedConsistency:
    """Shown: the new tree begins with all leaves of the old one, in their order.

    Attributes:
        old_size: Leaves of the old tree.
        old_root: Root of the old tree.
        size: Leaves of the new tree.
        root: Root of the new tree.
    """

    old_size: int
    old_root: bytes
    size: int
    root: bytes


def inclusion_proof(nodes: Nodes, index: int, size: int) -> tuple[bytes, ...]:
    """Return the hashes that lead from one leaf to the root.

    Args:
        nodes: Where complete subtrees are looked up.
        index: The leaf, 0 to `size - 1`.
        size: Leaves of the tree that is proved against.

    Returns:
        The hashes, from the leaf's sibling up.

    Raises:
        LogRangeError: The tree has no such leaf.
    """
    if not 0 <= index < size <= MAX_SIZE:
        raise LogRangeError(f"a tree of {size} leaves has no leaf {index}")
    spans: list[tuple[int, int]] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((start, middle))
            start = middle
    return tuple(range_hash(nodes, *span) for span in reversed(spans))


def consistency_proof(nodes: Nodes, old_size: int, size: int) -> tuple[bytes, ...]:
    """Return the hashes that show a tree to be the beginning of a larger one.

    Args:
        nodes: Where complete subtrees of the larger tree are looked up.
        old_size: Leaves of the smaller tree; for 0 the proof is empty.
        size: Leaves of the larger tree; where it is `old_size`, the proof is empty.

    Returns:
        The hashes, in the order of RFC 6962.

    Raises:
        LogRangeError: The old tree is larger than the new one.
    """
    if not 0 <= old_size <= size <= MAX_SIZE:
        raise LogRangeError(f"a tree of {size} leaves does not extend one of {old_size}")
    if old_size == 0:
        return ()
    spans: list[tuple[int, int]] = []
    start, end = 0, size
    while old_size != end:
        middle = start + _split(end - start)
        if old_size <= middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((start, middle))
            start = middle
    if start:  # the old tree's last subtree is not a prefix: its root is not known to the reader
        spans.append((start, end))
    return tuple(range_hash(nodes, *span) for span in reversed(spans))


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> VerifiedInclusion:
    """Return what an inclusion proof shows.

    Args:
        leaf: The leaf hash.
        index: Where it is said to be.
        size: Leaves of the tree.
        proof: Hashes from the leaf's sibling up.
        root: Root of the tree, from a source that is trusted.

    Returns:
        The statement that was shown.

    Raises:
        LogFormatError: A hash is not 32 bytes.
        LogRangeError: The index is not in the tree.
        LogVerificationError: The proof does not lead to the root.
    """
    if not 0 <= index < size <= MAX_SIZE:
        raise LogRangeError(f"a tree of {size} leaves has no leaf {index}")
    node, last = index, size - 1
    computed = check_hash(leaf, "the leaf")
    check_hash(root, "the root")
    for step in proof:
        check_hash(step, "a step of the proof")
        if last == 0:
            raise LogVerificationError("the inclusion proof is too long; fetch it again")
        if node & 1 or node == last:
            computed = node_hash(step, computed)
            if not node & 1:
                # At the right edge, levels where the node has no sibling are passed over.
                shift = (node & -node).bit_length() - 1
                node, last = node >> shift, last >> shift
        else:
            computed = node_hash(computed, step)
        node, last = node >> 1, last >> 1
    if last:
        raise LogVerificationError("the inclusion proof is too short; fetch it again")
    if computed != root:
        raise LogVerificationError(f"the inclusion proof of leaf {index} leads to another root")
    return VerifiedInclusion(leaf=leaf, index=index, size=size, root=root)


def verify_consistency(
    old_size: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]
) -> VerifiedConsistency:
    """Return what a consistency proof shows.

    Args:
        old_size: Leaves of the old tree.
        old_root: Root of the old tree, from a source that is trusted.
        size: Leaves of the new tree.
        root: Root of the new tree, from a source that is trusted.
        proof: The hashes.

    Returns:
        The statement that was shown.

    Raises:
        LogFormatError: A hash is not 32 bytes.
        LogRangeError: The old tree is larger than the new one.
        LogVerificationError: The proof does not lead to both roots.
    """
    if not 0 <= old_size <= size <= MAX_SIZE:
        raise LogRangeError(f"a tree of {size} leaves does not extend one of {old_size}")
    check_hash(old_root, "the old root")
    check_hash(root, "the root")
    if old_size in (0, size):
        _check_trivial(old_size, old_root, size, root, proof)
    else:
        steps = [check_hash(step, "a step of the proof") for step in proof]
        if old_size & (old_size - 1) == 0:  # a complete tree: its root is the first step
            steps.insert(0, old_root)
        if _fold_consistency(old_size, size, steps) != (old_root, root):
            raise LogVerificationError(
                f"the consistency proof from {old_size} to {size} leads to other roots"
            )
    return VerifiedConsistency(old_size=old_size, old_root=old_root, size=size, root=root)


def _split(width: int) -> int:
    """Return the largest power of two below `width`, which is at least 2."""
    return 1 << (width - 1).bit_length() - 1


def _check_trivial(
    old_size: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]
) -> None:
    """Refuse a proof for equal trees or from the empty tree that says anything else."""
    if proof:
        raise LogVerificationError(f"from {old_size} to {size} the proof is empty, this one is not")
    if old_size == size and old_root != root:
        raise LogVerificationError(f"two roots for one size of {size}: the log has forked")
    if old_size == 0 and old_root != EMPTY_ROOT:
        raise LogVerificationError("the root of an empty tree is the hash of nothing")


def _fold_consistency(old_size: int, size: int, steps: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Return the roots of the old and of the new tree that the steps lead to."""
    node, last = old_size - 1, size - 1
    shift = (~node & node + 1).bit_length() - 1  # levels on which the old tree's end is complete
    node, last = node >> shift, last >> shift
    if not steps:
        raise LogVerificationError("the consistency proof is empty; fetch it again")
    old = new = steps[0]
    for step in steps[1:]:
        if last == 0:
            raise LogVerificationError("the consistency proof is too long; fetch it again")
        if node & 1 or node == last:
            old, new = node_hash(step, old), node_hash(step, new)
            if not node & 1:
                shift = (node & -node).bit_length() - 1
                node, last = node >> shift, last >> shift
        else:
            new = node_hash(new, step)
        node, last = node >> 1, last >> 1
    if last:
        raise LogVerificationError("the consistency proof is too short; fetch it again")
    return old, new
